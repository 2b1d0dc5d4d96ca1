//! What a stage has become up to one of its instructions.

use memobuild_image::{ImageConfig, Platform};

use crate::args::EnvList;
use crate::model::{History, Op, StepId};

/// What a stage starts from, found but not yet a step.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// How its tree comes to be.
    pub(crate) op: Op,
    /// What the step is called.
    pub(crate) label: String,
    /// Whether the label gets the stage's name and count in front.
    pub(crate) counted: bool,
    /// What the stage inherits.
    pub(crate) image: ImageConfig,
    /// The base image, if it is one.
    pub(crate) base: Option<usize>,
    /// The platform.
    pub(crate) platform: Platform,
}

/// A stage at one point: its tree, its variables, its image config.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The step that yields its tree.
    pub(crate) root: StepId,
    /// ENV and ARG.
    pub(crate) env: EnvList,
    /// Working directory; absolute and clean.
    pub(crate) dir: String,
    /// The config so far.
    pub(crate) image: ImageConfig,
    /// History of the instructions, without that of the base image.
    pub(crate) history: Vec<History>,
    /// The image at the bottom.
    pub(crate) base: Option<usize>,
    /// The ARGs declared so far, with the defaults they had.
    pub(crate) declared: Vec<(String, Option<String>)>,
    /// The platform.
    pub(crate) platform: Platform,
    /// A WORKDIR of the file was seen.
    pub(crate) workdir_set: bool,
}

impl State {
    /// A base that has just been found.
    pub(crate) fn new(root: StepId, image: ImageConfig, base: Option<usize>, platform: Platform) -> Self {
        Self {
            root,
            env: EnvList::default(),
            dir: "/".to_owned(),
            image,
            history: Vec::new(),
            base,
            declared: Vec::new(),
            platform,
            workdir_set: false,
        }
    }

    /// Notes an instruction that made no layer.
    pub(crate) fn note(&mut self, created_by: String) {
        self.history.push(History { created_by, step: None });
    }

    /// Notes an instruction that made a layer, and goes on from it.
    pub(crate) fn advance(&mut self, created_by: String, step: StepId) {
        self.root = step;
        self.history.push(History { created_by, step: Some(step) });
    }

    /// Puts the shell in front of a command line.
    pub(crate) fn with_shell(&self, line: String) -> Vec<String> {
        let mut argv = match self.image.config.shell.as_slice() {
            [] if self.image.platform.os == "windows" => ["cmd", "/S", "/C"].map(String::from).to_vec(),
            [] => ["/bin/sh", "-c"].map(String::from).to_vec(),
            shell => shell.to_vec(),
        };
        argv.push(line);
        argv
    }
}
