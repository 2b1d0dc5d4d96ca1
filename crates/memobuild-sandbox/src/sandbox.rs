//! Chooses the mode, starts the sandbox server once, runs steps.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use memobuild_tree::{Diff, Tree};

use crate::{
    compose::{self, Lowers},
    contents::Contents,
    error::SandboxError,
    ids::Ids,
    launch::ServerHandle,
    layout::{layers::Layers, roots::Roots},
    run::{Job, Ran},
    served::{SYSTEM_DIRS, View},
    step::{Cancel, MountKind, Outcome, Output, Step},
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

impl ModeChoice {
    /// As `--sandbox` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Traced => "traced",
            Self::Exact => "exact",
            Self::Chroot => "chroot",
        }
    }
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

impl ModeKind {
    /// As `--sandbox` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traced => "traced",
            Self::Exact => "exact",
            Self::Chroot => "chroot",
        }
    }
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
    /// other). Made where it lacks; several processes may share it, each makes a directory of its own there, and what
    /// killed ones left is removed.
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
    /// Empty until the first use.
    chosen: Mutex<Option<Arc<Chosen>>>,
    steps: AtomicU64,
}

/// The names below scratch: `run-PID-N`, with a lock beside it that its process holds.
const RUN_PREFIX: &str = "run-";
const LOCK_SUFFIX: &str = ".lock";

/// A directory of this process's own in scratch, which several processes may share.
#[derive(Debug)]
struct RunDir {
    path: PathBuf,
    lock_path: PathBuf,
    /// Held as long as this lives, and let go by the kernel when the process dies.
    _lock: std::fs::File,
}

impl RunDir {
    fn create(scratch: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(scratch)?;
        let pid = std::process::id();
        for number in 0u64.. {
            let path = scratch.join(format!("{RUN_PREFIX}{pid}-{number}"));
            let lock_path = scratch.join(format!("{RUN_PREFIX}{pid}-{number}{LOCK_SUFFIX}"));
            let lock = match std::fs::File::create_new(&lock_path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            // Another process may have taken it for one that a dead process left.
            if lock.try_lock().is_err() || std::fs::create_dir(&path).is_err() {
                continue;
            }
            return Ok(Self { path, lock_path, _lock: lock });
        }
        Err(std::io::ErrorKind::AlreadyExists.into())
    }

    /// Removes what processes left that were killed.
    fn remove_leftovers(scratch: &Path, server: &ServerHandle) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Scratch { path: scratch.to_owned(), source };
        for entry in std::fs::read_dir(scratch).map_err(failed)? {
            let lock_path = entry.map_err(failed)?.path();
            let name = lock_path.file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
            let Some(run) = name.strip_suffix(LOCK_SUFFIX.as_bytes()) else { continue };
            if !run.starts_with(RUN_PREFIX.as_bytes()) {
                continue;
            }
            let Ok(lock) = std::fs::File::open(&lock_path) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let run = scratch.join(std::ffi::OsStr::from_bytes(run));
            if run.exists() {
                Roots::rescue(&run).map_err(failed)?;
            }
            server.remove(&run)?;
            server.finish_removals()?;
            let _ = std::fs::remove_file(&lock_path);
        }
        Ok(())
    }
}

/// What was found to work.
#[derive(Debug)]
struct Chosen {
    mode: Mode,
    server: ServerHandle,
    /// Whether overlay takes `datadir+`.
    datadir: bool,
    /// Trees laid out, for the exact mode.
    layers: Layers,
    /// The same for the chroot mode.
    roots: Roots,
    run: RunDir,
}

/// Says nothing to nobody.
struct Silent;

impl Output for Silent {
    fn write(&self, _stream: crate::step::Stream, _bytes: &[u8]) {}
}

impl Sandbox {
    /// Nothing is started or probed yet.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        crate::sys::fresh_large_buffers();
        Ok(Self { config, chosen: Mutex::new(None), steps: AtomicU64::new(0) })
    }

    /// The mode in use; probes the machine and starts the server if that was not done yet.
    pub fn mode(&self) -> Result<Mode, SandboxError> {
        self.chosen().map(|chosen| chosen.mode.clone())
    }

    fn chosen(&self) -> Result<Arc<Chosen>, SandboxError> {
        let mut slot = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chosen) = &*slot {
            return Ok(chosen.clone());
        }
        let chosen = Arc::new(self.choose()?);
        *slot = Some(chosen.clone());
        Ok(chosen)
    }

    /// Tries what could work, best first, and takes the first that does.
    fn choose(&self) -> Result<Chosen, SandboxError> {
        let scratch = &self.config.scratch;
        let run = RunDir::create(scratch).map_err(|source| SandboxError::Scratch { path: scratch.clone(), source })?;
        let mut reasons: Vec<String> = Vec::new();
        let mut server = None;
        for (kind, ids) in self.candidates(&mut reasons) {
            match self.try_candidate(kind, &ids, &run.path, &mut server) {
                Ok(datadir) => {
                    let Some(server) = server else { continue };
                    let mode = Mode { kind, ownership: ids.class(), why: why(kind, &ids, &reasons) };
                    let (layers, roots) = (Layers::new(&run.path), Roots::new(&run.path));
                    return Ok(Chosen { mode, server, datadir, layers, roots, run });
                }
                Err(e) => reasons.push(format!("{} with {}: {e}", kind.name(), ids.name())),
            }
        }
        Err(SandboxError::Unavailable { asked: self.config.mode.name(), reason: reasons.join("; ") })
    }

    fn candidates(&self, reasons: &mut Vec<String>) -> Vec<(ModeKind, Ids)> {
        let root = rustix::process::geteuid().is_root();
        let mut ids = Vec::new();
        if root {
            ids.push(Ids::HOST);
        }
        match Ids::ranges() {
            Ok(ranges) if self.config.subids => ids.push(ranges),
            Ok(_) => {}
            Err(why) => reasons.push(why),
        }
        ids.push(Ids::SINGLE);
        let mut out = Vec::new();
        for kind in [ModeKind::Traced, ModeKind::Exact] {
            if self.config.mode == ModeChoice::Auto || self.config.mode.name() == kind.name() {
                out.extend(ids.iter().map(|ids| (kind, ids.clone())));
            }
        }
        if matches!(self.config.mode, ModeChoice::Auto | ModeChoice::Chroot) {
            if root {
                out.push((ModeKind::Chroot, Ids::HOST));
            } else {
                reasons.push("chroot: only root can".to_owned());
            }
        }
        out
    }

    /// Sets a root up without running anything in it. The server stays for the next candidate where ids are the same.
    fn try_candidate(
        &self,
        kind: ModeKind,
        ids: &Ids,
        run: &Path,
        server: &mut Option<ServerHandle>,
    ) -> Result<bool, SandboxError> {
        if server.as_ref().is_none_or(|s| s.ids != *ids) {
            *server = None;
            *server = Some(ServerHandle::start(&self.config.init_program, ids.clone())?);
        }
        let Some(server) = server else { return Err(SandboxError::Helper("no server".into())) };
        RunDir::remove_leftovers(&self.config.scratch, server)?;
        let contents: Arc<dyn Contents> = Arc::new(NoContents);
        let mut datadir = self.config.datadir && kind == ModeKind::Traced;
        loop {
            let dir = self.step_dir(run)?;
            let step = Step::new(Tree::default(), Vec::new());
            let view = View::of(&step)?;
            let chain = dir.join("lower");
            let laid_out;
            let lowers = if kind == ModeKind::Traced {
                Lowers::Fuse { data: datadir.then_some(dir.as_path()) }
            } else {
                let made = std::fs::create_dir(&chain);
                made.map_err(|source| SandboxError::Scratch { path: chain.clone(), source })?;
                laid_out = [vec![chain.as_os_str().as_bytes().into()]];
                Lowers::LaidOut(&laid_out)
            };
            let mut spec = if kind == ModeKind::Chroot {
                compose::chroot_spec(&step, &view, &dir, &server.ids, &chain)?
            } else {
                compose::spec(&step, &view, &dir, &server.ids, &lowers)?
            };
            spec.probe = true;
            let (cancel, output) = (Cancel::new(), Silent);
            let job = Job {
                spec: &spec,
                dir: &dir,
                trees: &view.trees,
                before: &step.root,
                contents: &contents,
                output: &output,
                cancel: &cancel,
                asked: Instant::now(),
            };
            let result = crate::run::run(server, &job);
            server.remove(&dir)?;
            match result {
                Ok(_) => return Ok(datadir),
                // Kernels before 6.16 refuse the option.
                Err(SandboxError::Setup { .. }) if datadir => datadir = false,
                Err(e) => return Err(e),
            }
        }
    }

    /// A new directory for a step.
    fn step_dir(&self, run: &Path) -> Result<PathBuf, SandboxError> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let dir = run.join(format!("step-{number}"));
        std::fs::create_dir(&dir).map_err(|source| SandboxError::Scratch { path: dir.clone(), source })?;
        Ok(dir)
    }

    /// Runs a step to its end. Several may run at once.
    pub fn run(
        &self,
        step: &Step,
        contents: &Arc<dyn Contents>,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let asked = Instant::now();
        let chosen = self.chosen()?;
        let dir = self.step_dir(&chosen.run.path)?;
        let result = self.run_in(&chosen, step, &dir, contents, output, cancel, asked);
        chosen.server.remove(&dir)?;
        result
    }

    /// The chains of a step's trees. Mount points make a small layer of their own, in the step's directory.
    fn lay_out(
        &self,
        chosen: &Chosen,
        step: &Step,
        view: &View,
        dir: &Path,
        contents: &dyn Contents,
    ) -> Result<Vec<Vec<Box<[u8]>>>, SandboxError> {
        let mounted = step.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Tree { tree, .. } => Some(tree),
            _ => None,
        });
        let mut chains = Vec::new();
        for (number, (before, shown)) in [&step.root].into_iter().chain(mounted).zip(&view.trees).enumerate() {
            let mut chain = chosen.layers.chain(&chosen.server, before, contents)?;
            let stubs = Diff::between(before, shown);
            if !stubs.is_empty() {
                let layer = dir.join(format!("stubs{number}"));
                chosen.server.lay_out(&layer, true, &stubs, shown, contents)?;
                chain.insert(0, layer.as_os_str().as_bytes().into());
            }
            chains.push(chain);
        }
        Ok(chains)
    }

    #[allow(clippy::too_many_arguments)]
    fn run_in_root(
        &self,
        chosen: &Chosen,
        step: &Step,
        view: &View,
        dir: &Path,
        contents: &Arc<dyn Contents>,
        output: &dyn Output,
        cancel: &Cancel,
        asked: Instant,
    ) -> Result<Outcome, SandboxError> {
        let composite = view.composite()?;
        let mut targets: Vec<Vec<u8>> = view.points.iter().map(|p| p.target.clone()).collect();
        targets.extend(SYSTEM_DIRS.iter().map(|d| d.as_bytes().to_vec()));
        let root = chosen.roots.take(&chosen.server, composite, targets, &**contents)?;
        let spec = compose::chroot_spec(step, view, dir, &chosen.server.ids, &root.dir)?;
        let job = Job { spec: &spec, dir, trees: &view.trees, before: &step.root, contents, output, cancel, asked };
        let Ran { outcome, touched } = crate::run::run(&chosen.server, &job)?;
        if outcome.exit.success() {
            let after = outcome.diff.apply(&step.root).map_err(|e| SandboxError::Helper(e.to_string()))?;
            root.settle(&outcome.diff, &after, &touched)?;
        }
        Ok(outcome)
    }

    #[allow(clippy::too_many_arguments)]
    fn run_in(
        &self,
        chosen: &Chosen,
        step: &Step,
        dir: &Path,
        contents: &Arc<dyn Contents>,
        output: &dyn Output,
        cancel: &Cancel,
        asked: Instant,
    ) -> Result<Outcome, SandboxError> {
        let view = View::of(step)?;
        if chosen.mode.kind == ModeKind::Chroot {
            return self.run_in_root(chosen, step, &view, dir, contents, output, cancel, asked);
        }
        let chains;
        let lowers = if chosen.mode.kind == ModeKind::Traced {
            Lowers::Fuse { data: contents.blobs_dir().filter(|_| chosen.datadir) }
        } else {
            chains = self.lay_out(chosen, step, &view, dir, &**contents)?;
            Lowers::LaidOut(&chains)
        };
        let spec = compose::spec(step, &view, dir, &chosen.server.ids, &lowers)?;
        let job = Job { spec: &spec, dir, trees: &view.trees, before: &step.root, contents, output, cancel, asked };
        Ok(crate::run::run(&chosen.server, &job)?.outcome)
    }
}

impl Drop for Chosen {
    /// What cannot be removed now is found by the next sandbox that uses the same scratch directory.
    fn drop(&mut self) {
        let _ = self.server.remove(&self.run.path);
        if self.server.finish_removals().is_ok() {
            let _ = std::fs::remove_file(&self.run.lock_path);
        }
    }
}

/// For trees without files.
struct NoContents;

impl Contents for NoContents {
    fn open(&self, _digest: &memobuild_tree::ContentDigest) -> std::io::Result<Arc<dyn crate::ReadAt>> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn native(&self, _digest: &memobuild_tree::ContentDigest, _size: u64) -> Option<PathBuf> {
        None
    }

    fn blobs_dir(&self) -> Option<&Path> {
        None
    }

    fn put_small(&self, _bytes: &[u8]) -> std::io::Result<memobuild_tree::ContentDigest> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn put_large(&self, _tmp: &Path, _digest: memobuild_tree::ContentDigest, _size: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

fn why(kind: ModeKind, ids: &Ids, refused: &[String]) -> String {
    let mut text = format!("{} with {}", kind.name(), ids.name());
    if let Some(last) = refused.last() {
        text.push_str(&format!(" (not better: {last})"));
    }
    text
}

/// The sandbox server: what the program does when its first argument is [`SANDBOX_INIT_ARG`].
pub fn init_main() -> ! {
    crate::sys::exit_now(crate::server::main())
}
