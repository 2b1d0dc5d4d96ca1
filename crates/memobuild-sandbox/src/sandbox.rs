//! Chooses the mode, starts the sandbox server once, runs steps.

use std::{path::PathBuf, sync::Arc};

use crate::{
    contents::Contents,
    error::SandboxError,
    step::{Cancel, Outcome, Output, Step},
};

/// The hidden first argument with which the program becomes the sandbox server: `main` must call [`init_main`] when it
/// sees it, before anything else (no threads, no logging).
pub const SANDBOX_INIT_ARG: &str = "__memobuild-sandbox-server";

/// Which mode is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// Only traced.
    Traced,
    /// Only exact.
    Exact,
    /// Only chroot.
    Chroot,
}

/// How steps are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeKind {
    /// Namespaces, overlay over FUSE: nothing is unpacked, every look-up is seen.
    Traced,
    /// Namespaces, overlay over trees laid out on disk.
    Exact,
    /// A laid-out tree, chroot, and a scan afterwards; no namespaces.
    Chroot,
}

/// What owners a step can give files; part of cache keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnershipClass {
    /// Real ones: root, or subordinate id ranges.
    True,
    /// One mapped id; others are recorded by answering system calls.
    Single,
}

/// The mode in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Which.
    pub kind: ModeKind,
    /// What owners mean in it.
    pub ownership: OwnershipClass,
    /// Why this one, in one line for the user.
    pub why: String,
}

/// Settings of a [`Sandbox`].
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Which mode.
    pub mode: ModeChoice,
    /// A directory for upper directories, on the file system of the store (large files are moved from one to the
    /// other). Made where it lacks; owned by this process alone while the sandbox lives.
    pub scratch: PathBuf,
    /// The program to run as the sandbox server, with [`SANDBOX_INIT_ARG`] as its only argument: normally
    /// `/proc/self/exe`.
    pub init_program: PathBuf,
    /// Whether large blobs may be read natively where the kernel can (overlay's `datadir+`, Linux 6.16).
    pub datadir: bool,
    /// Whether /etc/subuid ranges may be used.
    pub subids: bool,
}

impl SandboxConfig {
    /// The defaults: any mode, this program as the server, native reads and subordinate ids where they are to be had.
    pub fn new(scratch: PathBuf) -> Self {
        Self {
            mode: ModeChoice::Auto,
            scratch,
            init_program: PathBuf::from("/proc/self/exe"),
            datadir: true,
            subids: true,
        }
    }
}

/// Runs steps. One for each build; starts its server with the first step; may be shared by threads.
#[derive(Debug)]
pub struct Sandbox {
    config: SandboxConfig,
}

impl Sandbox {
    /// Nothing is started or probed yet.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        Ok(Self { config })
    }

    /// The mode in use; probes the machine and starts the server if that was not done yet.
    pub fn mode(&self) -> Result<Mode, SandboxError> {
        Err(SandboxError::Unavailable { asked: "auto", reason: format!("{:?}", self.config.mode) })
    }

    /// Runs a step to its end. Several may run at once.
    pub fn run(
        &self,
        step: &Step,
        contents: &Arc<dyn Contents>,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let _ = (step, contents, output, cancel);
        self.mode().map(|_| unreachable!("no mode yet"))
    }
}

/// The sandbox server: what the program does when its first argument is [`SANDBOX_INIT_ARG`].
pub fn init_main() -> ! {
    std::process::exit(1)
}
