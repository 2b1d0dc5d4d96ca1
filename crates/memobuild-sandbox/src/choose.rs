//! Finds the mode: tries what could work, best first, by setting a root up without running anything in it.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use memobuild_tree::Tree;

use crate::{
    compose::{self, Lowers},
    contents::Contents,
    emulate::Emulator,
    error::SandboxError,
    fuse::sides::{Division, Serving, Side},
    ids::Ids,
    launch::{ServerHandle, Waiting},
    layout::{layers::Layers, roots::Roots},
    mode::{Mode, ModeChoice, ModeKind, OwnershipClass},
    run::{self, Job},
    rundir::RunDir,
    sandbox::SandboxConfig,
    served::View,
    spec::{Bytes, Room, Shape},
    step::{Cancel, Output, Step, Stream},
};

/// What was found to work.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) mode: Mode,
    pub(crate) server: ServerHandle,
    /// Whether overlay takes `datadir+`.
    pub(crate) datadir: bool,
    /// Trees laid out, for the exact mode.
    pub(crate) layers: Layers,
    /// The same for the chroot mode.
    pub(crate) roots: Roots,
    run: RunDir,
    steps: AtomicU64,
    /// Made ready for the next step that is like the last one.
    spare: Mutex<Option<Waiting>>,
    /// Whether a step ran.
    ran: AtomicBool,
}

impl Chosen {
    /// A new directory for a step.
    pub(crate) fn step_dir(&self) -> Result<PathBuf, SandboxError> {
        step_dir(&self.run.path, &self.steps)
    }

    fn spare(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_ready(&self, shape: Shape) -> Result<Waiting, SandboxError> {
        self.server.make_ready(Some(room(&self.run, self.step_dir()?, shape)?))
    }

    /// A process with a room: the one that was made ready, if it is of that shape.
    pub(crate) fn waiting(&self, shape: Shape) -> Result<Waiting, SandboxError> {
        let fits = |waiting: &Waiting| waiting.room.as_ref().is_some_and(|room| room.shape == shape);
        let spare = self.spare().take();
        match spare {
            Some(spare) if fits(&spare) => return Ok(spare),
            Some(other) => self.server.leave(other.leave()),
            None => {}
        }
        self.make_ready(shape)
    }

    /// Has a room made ready while a step runs: when there was one step before, there may be more.
    pub(crate) fn make_spare(&self, shape: Shape) -> Result<(), SandboxError> {
        let mut spare = self.spare();
        if spare.is_none() && self.ran.swap(true, Ordering::Relaxed) {
            *spare = Some(self.make_ready(shape)?);
        }
        Ok(())
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if let Some(spare) = self.spare().take() {
            self.server.leave(spare.leave());
        }
        self.run.remove(&self.server);
    }
}

fn room(run: &RunDir, dir: PathBuf, shape: Shape) -> Result<Room, SandboxError> {
    // One for all: each step mounts a tmpfs over it in a namespace of its own.
    let mem = run.path.join("mem");
    match std::fs::create_dir(&mem) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(SandboxError::Scratch { path: mem, source });
        }
        _ => {}
    }
    let bytes = |path: &Path| path.as_os_str().as_bytes().into();
    Ok(Room { dir: bytes(&dir), mem: bytes(&mem), shape })
}

fn step_dir(run: &Path, steps: &AtomicU64) -> Result<PathBuf, SandboxError> {
    let dir = run.join(format!("step-{}", steps.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir).map_err(|source| SandboxError::Scratch { path: dir.clone(), source })?;
    Ok(dir)
}

/// Steps with emulators of their own.
pub(crate) struct Emulation<'a> {
    /// What is registered for them.
    pub(crate) emulators: &'a [Emulator],
    /// What owners must mean to them.
    pub(crate) ownership: OwnershipClass,
}

/// Tries what could work, best first, and takes the first that does.
pub(crate) fn choose(config: &SandboxConfig, emulation: Option<&Emulation<'_>>) -> Result<Chosen, SandboxError> {
    let scratch = &config.scratch;
    let run = RunDir::create(scratch).map_err(|source| SandboxError::Scratch { path: scratch.clone(), source })?;
    let steps = AtomicU64::new(0);
    let mut reasons: Vec<String> = Vec::new();
    let mut server = None;
    let handlers: Vec<Bytes> =
        emulation.map_or(&[][..], |e| e.emulators).iter().filter_map(Emulator::registration).collect();
    for (kind, ids) in candidates(config, emulation, &mut reasons) {
        let tried = connect(config, &ids, &mut server).and_then(|server| {
            if emulation.is_some() {
                server.emulate(&handlers)?;
            }
            RunDir::remove_leftovers(scratch, server)?;
            probe(config, kind, server, &run, &steps)
        });
        match (tried, server.take()) {
            (Ok(datadir), Some(server)) => {
                let mode = Mode { kind, ownership: ids.class(), why: why(kind, &ids, &reasons) };
                let (layers, roots) = (Layers::new(&run.path), Roots::new(&run.path));
                let (spare, ran) = (Mutex::new(None), AtomicBool::new(false));
                return Ok(Chosen { mode, server, datadir, layers, roots, run, steps, spare, ran });
            }
            (Ok(_), None) => {}
            (Err(e), kept) => {
                server = kept;
                // What emulation lacks has nothing to do with the mode, and is said once.
                reasons.push(match emulation {
                    Some(_) => e.to_string(),
                    None => format!("{} with {}: {e}", kind.name(), ids.name()),
                });
                if emulation.is_some() {
                    reasons.dedup();
                }
            }
        }
    }
    if let Some(server) = &server {
        run.remove(server);
    }
    Err(SandboxError::Unavailable { asked: config.mode.name(), reason: reasons.join("; ") })
}

fn candidates(
    config: &SandboxConfig,
    emulation: Option<&Emulation<'_>>,
    reasons: &mut Vec<String>,
) -> Vec<(ModeKind, Ids)> {
    let root = rustix::process::geteuid().is_root();
    let mut ids = Vec::new();
    if root {
        ids.push(Ids::HOST);
    }
    match Ids::ranges() {
        Ok(ranges) if config.subids => ids.push(ranges),
        Ok(_) => {}
        Err(why) => reasons.push(why),
    }
    ids.push(Ids::SINGLE);
    if let Some(emulation) = emulation {
        // Handlers of one's own need a user namespace of one's own.
        ids.retain(|ids| *ids != Ids::HOST && ids.class() == emulation.ownership);
    }
    let mut out = Vec::new();
    for kind in [ModeKind::Traced, ModeKind::Exact] {
        if config.mode == ModeChoice::Auto || config.mode.name() == kind.name() {
            out.extend(ids.iter().map(|ids| (kind, ids.clone())));
        }
    }
    if emulation.is_some() {
        if config.mode == ModeChoice::Chroot {
            reasons.push("the chroot mode has none".to_owned());
        }
    } else if matches!(config.mode, ModeChoice::Auto | ModeChoice::Chroot) {
        if root {
            out.push((ModeKind::Chroot, Ids::HOST));
        } else {
            reasons.push("chroot: only root can".to_owned());
        }
    }
    out
}

/// A server with these ids: the one of the last candidate if it has them.
fn connect<'a>(
    config: &SandboxConfig,
    ids: &Ids,
    server: &'a mut Option<ServerHandle>,
) -> Result<&'a ServerHandle, SandboxError> {
    let fitting = match server.take() {
        Some(server) if server.ids == *ids => server,
        _ => ServerHandle::start(&config.init_program, ids.clone())?,
    };
    Ok(server.insert(fitting))
}

/// Sets a root up; says whether large blobs can be read natively.
fn probe(
    config: &SandboxConfig,
    kind: ModeKind,
    server: &ServerHandle,
    run: &RunDir,
    steps: &AtomicU64,
) -> Result<bool, SandboxError> {
    let contents: Arc<dyn Contents> = Arc::new(NoContents);
    let step = Step::new(Tree::default(), Vec::new());
    let view = View::of(&step)?;
    let mut datadir = config.datadir && kind == ModeKind::Traced;
    loop {
        let dir = step_dir(&run.path, steps)?;
        let lower = dir.join("lower");
        std::fs::create_dir(&lower).map_err(|source| SandboxError::Scratch { path: lower.clone(), source })?;
        let chains: [Vec<Bytes>; 1] = [vec![lower.as_os_str().as_bytes().into()]];
        let shape = compose::shape(&step, &server.ids, kind == ModeKind::Traced);
        let room = room(run, dir.clone(), shape)?;
        // Both sides, as a step with all that there can be has them.
        let division = Division { small: u64::MAX, owners: server.ids.view() };
        let data = datadir.then_some(lower.as_path());
        let serving = Serving { sides: &[Side::Plain, Side::Rich], division, data };
        let mut spec = match kind {
            ModeKind::Traced => compose::spec(&step, &view, room, &server.ids, &Lowers::Fuse(serving))?,
            ModeKind::Exact => compose::spec(&step, &view, room, &server.ids, &Lowers::LaidOut(&chains))?,
            ModeKind::Chroot => compose::chroot_spec(&step, &view, &dir, &server.ids, &lower)?,
        };
        spec.probe = true;
        let job = Job {
            spec: &spec,
            dir: &dir,
            trees: &view.trees,
            serving: (kind == ModeKind::Traced).then_some(serving),
            before: &step.root,
            contents: &contents,
            output: &Silent,
            cancel: &Cancel::new(),
            creator: (0, 0),
            asked: Instant::now(),
        };
        let waiting = server.make_ready((kind != ModeKind::Chroot).then(|| spec.room.clone()))?;
        let result = waiting.begin(&spec).and_then(|running| run::run(server, running, &job));
        if kind == ModeKind::Chroot {
            server.remove(&dir)?;
        }
        match result {
            Ok(_) => return Ok(datadir),
            // Kernels before 6.16 refuse the option.
            Err(SandboxError::Setup { .. }) if datadir => datadir = false,
            Err(e) => return Err(e),
        }
    }
}

/// Says nothing to nobody.
struct Silent;

impl Output for Silent {
    fn write(&self, _stream: Stream, _bytes: &[u8]) {}
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

    fn native_above(&self) -> u64 {
        u64::MAX
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
