//! The sandbox as callers see it: its settings, and running a step in the mode that was found.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use memobuild_tree::{Diff, Tree};

use crate::{
    choose::{Chosen, Emulation, choose},
    compose::{self, Lowers},
    contents::Contents,
    emulate::{Emulator, Need, Platforms},
    error::SandboxError,
    fuse::sides::Serving,
    launch::ServerHandle,
    mode::{Mode, ModeChoice, ModeKind},
    run::{Job, Ran, run},
    served::{SYSTEM_DIRS, View},
    spec::{Bytes, Spec},
    ssh::Proxy,
    step::{Cancel, Mount, MountKind, Outcome, Output, Step},
};

/// The hidden first argument with which the program becomes the sandbox server: `main` must call [`init_main`] when it
/// sees it, before anything else (no threads, no logging).
pub const SANDBOX_INIT_ARG: &str = "__memobuild-sandbox-server";

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
    /// The same for steps with emulators of their own, or why there can be none.
    emulating: Mutex<Option<Result<Arc<Chosen>, String>>>,
}

/// One call of [`Sandbox::run`].
struct Call<'a> {
    chosen: &'a Chosen,
    step: &'a Step,
    contents: &'a Arc<dyn Contents>,
    output: &'a dyn Output,
    cancel: &'a Cancel,
    asked: Instant,
}

impl Sandbox {
    /// Nothing is started or probed yet.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        crate::sys::fresh_large_buffers();
        Ok(Self { config, chosen: Mutex::new(None), emulating: Mutex::new(None) })
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
        let chosen = Arc::new(choose(&self.config, None)?);
        *slot = Some(chosen.clone());
        Ok(chosen)
    }

    /// The same for steps that need an emulator which the kernel has not. An error is one line.
    fn emulating(&self, emulators: &[Emulator]) -> Result<Arc<Chosen>, String> {
        let ownership = self.mode().map_err(|e| e.to_string())?.ownership;
        let mut slot = self.emulating.lock().unwrap_or_else(PoisonError::into_inner);
        let choose = || match choose(&self.config, Some(&Emulation { emulators, ownership })) {
            Ok(chosen) => Ok(Arc::new(chosen)),
            Err(SandboxError::Unavailable { reason, .. }) => Err(reason),
            Err(e) => Err(e.to_string()),
        };
        slot.get_or_insert_with(choose).clone()
    }

    /// The platforms whose steps can be run here. Tries what memobuild's own emulation needs.
    pub fn platforms(&self) -> Platforms {
        Platforms::look(|emulators| self.emulating(emulators).map(drop))
    }

    /// Where a step that this machine can't run itself is run.
    fn chosen_for(&self, need: &Need, step: &Step) -> Result<Arc<Chosen>, SandboxError> {
        if need.is_handled(step) {
            return self.chosen();
        }
        match (need.emulators().and_then(|emulators| self.emulating(emulators)), &need.program) {
            (Ok(chosen), _) => Ok(chosen),
            (Err(reason), Some(_)) => Err(need.unmet(reason)),
            // It is not known to be one.
            (Err(_), None) => self.chosen(),
        }
    }

    /// Runs a step to its end. Several may run at once. One whose program is for another processor is run by the
    /// kernel's handler for it, else by memobuild's own emulation, where there can be one, else not begun.
    pub fn run(
        &self,
        step: &Step,
        contents: &Arc<dyn Contents>,
        output: &dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let asked = Instant::now();
        let need = Need::of(step, &**contents);
        let chosen = match &need {
            None => self.chosen()?,
            Some(need) => self.chosen_for(need, step)?,
        };
        let call = Call { chosen: &chosen, step, contents, output, cancel, asked };
        let result = match chosen.mode.kind {
            ModeKind::Traced | ModeKind::Exact => call.mounted(),
            ModeKind::Chroot => call.in_root(),
        };
        match (result, need) {
            (Err(e), Some(need)) if e.is_exec_format() => {
                let reason = need.emulators().and_then(|emulators| self.emulating(emulators)).err();
                Err(need.unmet(reason.unwrap_or_else(|| "the kernel does not take its program for one".to_owned())))
            }
            (result, _) => result,
        }
    }

    /// Lays a tree out in a directory that is made for it, with owners as steps will see them: for new cache mounts,
    /// whose owners an ordinary user could not set from outside. An empty tree makes an empty directory with the
    /// root's mode and owner.
    pub fn lay_out(&self, dir: &Path, tree: &Tree, contents: &dyn Contents) -> Result<(), SandboxError> {
        let diff = Diff::between(&Tree::default(), tree);
        self.chosen()?.server.lay_out(dir, false, &diff, tree, contents)
    }

    /// Removes a directory that steps wrote to, whoever owns what is in it. Nothing there is fine.
    pub fn remove(&self, dir: &Path) -> Result<(), SandboxError> {
        let chosen = self.chosen()?;
        chosen.server.finish_removals()?;
        chosen.server.remove(dir)?;
        chosen.server.finish_removals()
    }
}

/// The step with each socket of this machine replaced by one of its own.
fn with_sockets(step: &Step, dir: &Path, server: &ServerHandle) -> Result<(Step, Vec<Proxy>), SandboxError> {
    let (mut step, mut proxies) = (step.clone(), Vec::new());
    for (number, Mount { kind, .. }) in step.mounts.iter_mut().enumerate() {
        let MountKind::SshSocket { host_path, uid, gid, mode } = kind else { continue };
        let path = dir.join(format!("socket{number}"));
        let proxy = Proxy::start(&path, host_path);
        proxies.push(proxy.map_err(|e| SandboxError::setup("making a socket for the step", e))?);
        server.own(&path, (*uid, *gid), *mode)?;
        *kind = MountKind::Host { path, writable: true };
    }
    Ok((step, proxies))
}

impl Call<'_> {
    fn job<'a>(&'a self, spec: &'a Spec, dir: &'a Path, view: &'a View, serving: Option<Serving<'a>>) -> Job<'a> {
        Job {
            spec,
            dir,
            trees: &view.trees,
            serving,
            before: &self.step.root,
            contents: self.contents,
            output: self.output,
            cancel: self.cancel,
            creator: (self.step.user.uid, self.step.user.gid),
            asked: self.asked,
        }
    }

    /// In namespaces, with an overlay.
    fn mounted(&self) -> Result<Outcome, SandboxError> {
        let (chosen, server) = (self.chosen, &self.chosen.server);
        let traced = chosen.mode.kind == ModeKind::Traced;
        let shape = compose::shape(self.step, &server.ids, traced);
        let waiting = chosen.waiting(shape)?;
        let room = waiting.room.clone().ok_or_else(|| SandboxError::Helper("no room was made".into()))?;
        let dir = PathBuf::from(OsStr::from_bytes(&room.dir));
        let (step, _proxies) = with_sockets(self.step, &dir, server)?;
        let view = View::of(&step)?;
        let chains;
        let serving = traced.then(|| {
            let data = self.contents.blobs_dir().filter(|_| chosen.datadir && !step.see_reads);
            let root = view.trees.first().unwrap_or(&step.root);
            Serving::of(root.root(), server.ids.view(), data, &**self.contents)
        });
        let lowers = if let Some(serving) = serving {
            Lowers::Fuse(serving)
        } else {
            chains = self.chains(&view, &dir)?;
            Lowers::LaidOut(&chains)
        };
        let spec = compose::spec(&step, &view, room, &server.ids, &lowers)?;
        let running = waiting.begin(&spec)?;
        chosen.make_spare(shape)?;
        let mut outcome = run(server, running, &self.job(&spec, &dir, &view, serving))?.outcome;
        if let Some(root) = outcome.looks.first_mut() {
            root.merge(&view.looked);
        }
        Ok(outcome)
    }

    /// The chains of a step's trees. Mount points make a small layer of their own, in the step's directory.
    fn chains(&self, view: &View, dir: &Path) -> Result<Vec<Vec<Bytes>>, SandboxError> {
        let (server, contents) = (&self.chosen.server, &**self.contents);
        let mut chains = Vec::new();
        for (number, (before, shown)) in view.originals.iter().zip(&view.trees).enumerate() {
            let mut chain = self.chosen.layers.chain(server, before, contents)?;
            let stubs = Diff::between(before, shown);
            if !stubs.is_empty() {
                let layer = dir.join(format!("stubs{number}"));
                server.lay_out(&layer, true, &stubs, shown, contents)?;
                chain.insert(0, layer.as_os_str().as_bytes().into());
            }
            chains.push(chain);
        }
        Ok(chains)
    }

    /// In a root on disk, without namespaces or mounts.
    fn in_root(&self) -> Result<Outcome, SandboxError> {
        let dir = self.chosen.step_dir()?;
        let result = with_sockets(self.step, &dir, &self.chosen.server)
            .and_then(|(step, _proxies)| self.in_root_with(&step, &dir));
        self.chosen.server.remove(&dir)?;
        result
    }

    fn in_root_with(&self, step: &Step, dir: &Path) -> Result<Outcome, SandboxError> {
        let view = View::of(step)?;
        let composite = view.composite()?;
        let mut targets: Vec<Vec<u8>> = view.points.iter().map(|p| p.target.clone()).collect();
        targets.extend(SYSTEM_DIRS.iter().map(|d| d.as_bytes().to_vec()));
        let server = &self.chosen.server;
        let root = self.chosen.roots.take(server, composite, targets, &**self.contents)?;
        let spec = compose::chroot_spec(step, &view, dir, &server.ids, &root.dir)?;
        let running = server.make_ready(None)?.begin(&spec)?;
        let Ran { outcome, touched } = run(server, running, &self.job(&spec, dir, &view, None))?;
        if outcome.exit.success() {
            let after = outcome.diff.apply(&step.root).map_err(|e| SandboxError::Helper(e.to_string()))?;
            root.settle(&outcome.diff, &after, &touched)?;
        }
        Ok(outcome)
    }
}

/// The sandbox server: what the program does when its first argument is [`SANDBOX_INIT_ARG`].
pub fn init_main() -> ! {
    crate::sys::exit_now(crate::server::main())
}
