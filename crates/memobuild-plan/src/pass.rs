//! One file planned for one platform: what all parts of that work share, and the order in which they do it.

use std::collections::BTreeSet;

use memobuild_dockerfile::Dockerfile;
use memobuild_dockerfile::ast::Kind;
use memobuild_dockerfile::words::Lexer;
use memobuild_image::Platform;

use crate::args::{self, EnvList, Globals};
use crate::contexts::Contexts;
use crate::dispatch::Dispatch;
use crate::error::Failure;
use crate::image;
use crate::lint::Checks;
use crate::model::{BaseResolver, History, Options, StepId};
use crate::stages::{Base, Names, Stage};
use crate::state::State;
use crate::steps::{About, Graph};

/// Says of a path in the build's context whether `.dockerignore` leaves it out; see [`crate::Hooks::ignored`].
pub(crate) type Ignored<'f> = &'f dyn Fn(&str) -> bool;

/// A pass.
pub(crate) struct Pass<'f> {
    pub(crate) file: &'f Dockerfile,
    pub(crate) options: &'f Options,
    pub(crate) contexts: &'f Contexts,
    pub(crate) resolver: &'f dyn BaseResolver,
    pub(crate) ignored: Option<Ignored<'f>>,
    pub(crate) all_stages: bool,
    pub(crate) target_platform: Platform,
    /// No `--platform` was given.
    pub(crate) implicit_platform: bool,
    pub(crate) globals: Globals,
    pub(crate) stages: Vec<Stage<'f>>,
    pub(crate) names: Names,
    pub(crate) graph: Graph,
    pub(crate) checks: Checks,
}

/// What a pass gives: one target, its steps in the graph's numbering.
pub(crate) struct Outcome {
    pub(crate) platform: Platform,
    pub(crate) stage: String,
    pub(crate) root: StepId,
    pub(crate) image: memobuild_image::ImageConfig,
    pub(crate) history: Vec<History>,
    pub(crate) base: Option<usize>,
    /// SOURCE_DATE_EPOCH as the file sees it.
    pub(crate) epoch: Option<String>,
}

impl<'f> Pass<'f> {
    /// Runs the pass.
    pub(crate) fn run(&mut self) -> Result<Outcome, Failure> {
        self.globals = args::globals(
            self.file,
            &self.options.build_platform,
            &self.target_platform,
            &self.target_stage(),
            &self.options.build_args,
        )?;
        self.read_stages()?;
        let target = self.find_target()?;
        self.link_stages()?;
        let reachable = self.find_bases(target)?;
        self.dispatch_stages(&reachable)?;
        let stage = &self.stages[target];
        let Some(end) = &stage.end else {
            return Err(Failure::new(stage.span, "the target was not planned"));
        };
        let mut image = end.image.clone();
        image.config.labels.extend(self.options.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        image::set_platform(&mut image, &self.target_platform, self.implicit_platform);
        Ok(Outcome {
            platform: self.target_platform.clone(),
            stage: stage.id.clone(),
            root: end.root,
            image,
            history: end.history.clone(),
            base: end.base,
            epoch: self.globals.env.value(args::EPOCH).filter(|value| !value.is_empty()).map(Into::into),
        })
    }

    /// What TARGETSTAGE says.
    fn target_stage(&self) -> String {
        let last = || self.file.stages.last().and_then(|stage| stage.name.as_ref()).map(|name| name.text.clone());
        self.options.target.clone().or_else(last).unwrap_or_default()
    }

    /// The global ARGs as if no build arg were given.
    pub(crate) fn default_globals(&self) -> Option<EnvList> {
        args::default_globals(
            self.file,
            &self.options.build_platform,
            &self.target_platform,
            &self.target_stage(),
            &self.options.build_args,
        )
    }

    /// The lexer of the file's own escape character.
    pub(crate) fn lexer(&self) -> Lexer {
        Lexer::new(self.file.directives.escape)
    }

    /// Several platforms were asked for: labels name theirs.
    pub(crate) fn many_platforms(&self) -> bool {
        self.options.platforms.len() > 1
    }

    fn dispatch_stages(&mut self, reachable: &BTreeSet<usize>) -> Result<(), Failure> {
        // Images that instructions name come first: nothing runs in them.
        let (written, named): (Vec<usize>, Vec<usize>) =
            reachable.iter().copied().partition(|&index| self.stages[index].written);
        for index in named {
            let (state, _) = self.begin(index)?;
            self.stages[index].end = Some(state);
        }
        for index in written {
            let (state, at) = self.begin(index)?;
            let commands = std::mem::take(&mut self.stages[index].commands);
            let total = self.total(index, &commands.iter().map(|c| &c.instruction.kind).collect::<Vec<_>>());
            let mut dispatch = Dispatch::new(self, index, state, at, total);
            for command in &commands {
                dispatch.command(command)?;
            }
            let end = dispatch.state;
            let stage = &mut self.stages[index];
            stage.commands = commands;
            stage.end = Some(end);
        }
        Ok(())
    }

    /// How many steps a stage counts in its labels.
    fn total(&self, index: usize, kinds: &[&Kind]) -> usize {
        let steps = kinds
            .iter()
            .filter(|kind| matches!(kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_)))
            .count();
        steps + usize::from(self.stages[index].start.as_ref().is_some_and(|start| start.counted))
    }

    /// A stage's state in front of its first instruction, and how many steps it has counted.
    fn begin(&mut self, index: usize) -> Result<(State, usize), Failure> {
        let stage = &self.stages[index];
        let base = match stage.base {
            Base::Stage(base) => Some(base),
            _ => None,
        };
        let mut counted = 0;
        let mut state = match (base, stage.start.clone()) {
            (Some(base), _) => self.stages[base].end.clone().ok_or_else(|| {
                Failure::new(
                    stage.span,
                    format!("stage {:?} needs to be defined before {:?}", stage.base_name, stage.id),
                )
            })?,
            (None, Some(start)) => {
                let mut label = start.label;
                if start.counted && stage.written {
                    counted = 1;
                    let kinds: Vec<&Kind> = stage.commands.iter().map(|c| &c.instruction.kind).collect();
                    let total = self.total(index, &kinds);
                    let platform = self.many_platforms().then_some(&start.platform);
                    let prefix = crate::label::prefix(&stage.label, 1, total, platform, &EnvList::default());
                    label = format!("{prefix}{label}");
                }
                let about = About {
                    label,
                    stage: stage.id.clone(),
                    span: Some(stage.span),
                    platform: start.platform.clone(),
                    hints: Default::default(),
                    ignore_cache: false,
                };
                let root = self.graph.add(start.op, about);
                State::new(root, start.image, start.base, start.platform)
            }
            (None, None) => return Err(Failure::new(stage.span, "the base was not found")),
        };
        state.image.config.on_build.clear();
        if self.stages[index].written {
            set_up(&mut state);
        }
        Ok((state, counted))
    }
}

/// What the image config says of the environment holds for the instructions too.
fn set_up(state: &mut State) {
    let config = &mut state.image.config;
    if !image::has_env(&config.env, "PATH") && state.platform.os != "windows" {
        config.env.push(format!("PATH={}", image::DEFAULT_PATH));
    }
    for pair in &config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        state.env.set(name, value);
    }
    if !config.working_dir.is_empty() {
        state.dir = crate::path::absolute(&config.working_dir);
        if !config.working_dir.starts_with('/') {
            config.working_dir.clone_from(&state.dir);
        }
    }
}
