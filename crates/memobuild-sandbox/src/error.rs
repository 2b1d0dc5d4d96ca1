//! What can go wrong around a step, apart from the command's own exit status.

use std::{io, path::PathBuf};

/// Why a step gave no outcome, or why no sandbox can be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// No mode works on this machine, or the one asked for does not. Exit code 6 of the program.
    #[error("this machine cannot run steps in {asked} mode: {reason}")]
    Unavailable {
        /// The mode asked for (`auto` when any would do).
        asked: &'static str,
        /// Why not, one line.
        reason: String,
    },
    /// The step's programs are for another processor, and nothing here emulates it. Exit code 6 of the program.
    #[error(
        "this machine cannot run steps for {platform}: {program}, the kernel has no handler for such programs \
             (binfmt_misc), and memobuild's own emulation does not work: {reason}"
    )]
    Foreign {
        /// The platform, like `linux/arm64`.
        platform: String,
        /// What shows it.
        program: String,
        /// Why memobuild can't emulate it, one line.
        reason: String,
    },
    /// The step was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The command could not be started: not found, not executable, bad working directory.
    #[error("{command}: {reason}")]
    Start {
        /// `argv[0]`.
        command: String,
        /// What the kernel said, as a shell would.
        reason: String,
        /// 127 (not found) or 126 (not executable).
        code: i32,
    },
    /// Setting the step's root, mounts or ids up failed.
    #[error("cannot set up the step: {what}: {source}")]
    Setup {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The step asks for what this mode or this step's base cannot give.
    #[error("{0}")]
    Unsupported(String),
    /// Serving the tree failed while the step ran; its result can't be trusted and it was killed.
    #[error("serving the step's files failed, so it was stopped: {0}")]
    Serving(String),
    /// The helper process ended or spoke nonsense.
    #[error("the sandbox helper process failed: {0}")]
    Helper(String),
    /// What the step wrote could not be read back or stored.
    #[error("cannot take in what the step wrote: {what}: {source}")]
    Harvest {
        /// The path or action.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The scratch directory cannot be used.
    #[error("scratch directory {}: {source}", path.display())]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SandboxError {
    /// Whether the kernel knew nothing to do with the command's file.
    pub(crate) fn is_exec_format(&self) -> bool {
        let words = crate::server::describe(libc::ENOEXEC);
        matches!(self, Self::Start { reason, .. } if reason.ends_with(&words))
    }

    pub(crate) fn setup(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Setup { what: what.into(), source: source.into() }
    }

    pub(crate) fn harvest(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Harvest { what: what.into(), source: source.into() }
    }
}
