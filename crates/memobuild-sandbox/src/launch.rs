//! Starts the sandbox server and speaks to it.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use memobuild_tree::{Diff, Tree};
use rustix::{
    event::{PollFd, PollFlags},
    fs::{MemfdFlags, SeekFrom},
};

use crate::{
    channel::{self, Receiver},
    contents::Contents,
    error::SandboxError,
    fuse,
    ids::{IdMap, Ids},
    layout::order::{Batch, Order, Orders},
    sandbox::SANDBOX_INIT_ARG,
    server::{self, Hello},
    spec::{Begin, Bytes, Event, Request, Room, Spec},
    wire::Wire,
};

/// A running server.
#[derive(Debug)]
pub(crate) struct ServerHandle {
    /// Requests of several threads must not mix.
    socket: Mutex<OwnedFd>,
    child: Mutex<Child>,
    /// Removals under way: they are waited for at the end.
    removals: Mutex<Vec<OwnedFd>>,
    /// Steps that are over but for taking down what was theirs.
    leaving: Mutex<VecDeque<Leaving>>,
    /// Handlers of other machines' programs, which live as long as this.
    emulation: Mutex<Option<OwnedFd>>,
    /// How ids are mapped.
    pub(crate) ids: Ids,
}

/// Most steps of which a build lets the remains be taken down behind its back.
const MOST_LEAVING: usize = 8;

/// A process that makes a room ready, or has done so, and waits for the step. Dropped, it goes, and the room with it.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What it was made for; `None` for a step that changes root only.
    pub(crate) room: Option<Room>,
    socket: OwnedFd,
}

/// The main process's ends of a step.
pub(crate) struct Running {
    pub(crate) socket: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// A step whose processes have all ended: its last one takes its mounts down and removes its directory, upon which the
/// file server ends.
#[derive(Debug)]
pub(crate) struct Leaving {
    socket: OwnedFd,
    files: Option<fuse::Server>,
}

impl Leaving {
    /// `files` has served the step. It is too late for its failures to matter: those that the step can have met were
    /// looked for when it ended.
    pub(crate) fn new(socket: OwnedFd, files: Option<fuse::Server>) -> Self {
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Write);
        Self { socket, files }
    }

    fn is_over(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..))
    }

    /// Waits until nothing of it is left.
    pub(crate) fn wait(self) {
        while let Ok(Some(_)) = Receiver::new().receive::<Event>(&self.socket) {}
        if let Some(files) = self.files {
            let _ = files.join();
        }
    }
}

fn helper(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |e| SandboxError::Helper(format!("{what}: {e}"))
}

impl ServerHandle {
    /// Starts a server that maps ids in the given way.
    pub(crate) fn start(program: &Path, ids: Ids) -> Result<Self, SandboxError> {
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        // In a user namespace it can do the same only once it is there.
        let own = (ids.map == IdMap::Host).then(|| server::own_file(program)).flatten();
        let from = own.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let child = Command::new(from.as_deref().unwrap_or(program))
            .arg0(program)
            .arg(SANDBOX_INIT_ARG)
            .current_dir("/")
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| SandboxError::Helper(format!("starting {}: {e}", program.display())))?;
        let handle = Self {
            socket: Mutex::new(near),
            child: Mutex::new(child),
            removals: Mutex::default(),
            leaving: Mutex::default(),
            emulation: Mutex::default(),
            ids: ids.clone(),
        };
        handle.greet(&ids)?;
        Ok(handle)
    }

    fn greet(&self, ids: &Ids) -> Result<(), SandboxError> {
        let hello = match &ids.map {
            IdMap::Host => Hello::Stay {},
            IdMap::Single => {
                Hello::Single { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
            }
            IdMap::Ranges(_) => Hello::Ranges {},
        };
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        channel::send(&*socket, &hello, &[]).map_err(helper("greeting"))?;
        let mut receiver = Receiver::new();
        loop {
            match receiver.receive::<Event>(&*socket).map_err(helper("greeting"))? {
                Some((Event::Started {}, _)) => {
                    let pid = self.child.lock().unwrap_or_else(PoisonError::into_inner).id();
                    ids.write_maps(pid)?;
                    channel::send(&*socket, &Event::Done {}, &[]).map_err(helper("greeting"))?;
                }
                Some((Event::Done {}, _)) => return Ok(()),
                Some((Event::Failed { what, errno }, _)) => {
                    let what = String::from_utf8_lossy(&what).into_owned();
                    return Err(SandboxError::setup(what, io::Error::from_raw_os_error(errno)));
                }
                Some(_) => return Err(SandboxError::Helper("an unexpected greeting".into())),
                None => return Err(SandboxError::Helper("it ended at once".into())),
            }
        }
    }

    fn request(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        channel::send(&*socket, request, descriptors).map_err(helper("asking"))
    }

    /// Starts the process of a step that is to come, which makes the room ready meanwhile.
    pub(crate) fn make_ready(&self, room: Option<Room>) -> Result<Waiting, SandboxError> {
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        self.request(&Request::Run { room: room.clone() }, &[far.as_fd()])?;
        Ok(Waiting { room, socket: near })
    }

    /// Notes a step that takes itself down. Those that have done so are forgotten.
    pub(crate) fn leave(&self, step: Leaving) {
        let mut over = Vec::new();
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.push_back(step);
        while leaving.len() > MOST_LEAVING || leaving.front().is_some_and(Leaving::is_over) {
            over.extend(leaving.pop_front());
        }
        drop(leaving);
        over.into_iter().for_each(Leaving::wait);
    }

    /// Lays out the diff that leads to a tree: as a layer of an overlay in a new directory, or as a change to the tree
    /// in that directory.
    pub(crate) fn lay_out(
        &self,
        dir: &Path,
        layer: bool,
        diff: &Diff,
        tree: &Tree,
        contents: &dyn Contents,
    ) -> Result<(), SandboxError> {
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        self.request(&Request::LayOut { dir: dir.as_os_str().as_bytes().into(), layer }, &[far.as_fd()])?;
        drop(far);
        let mut batch = Batch::default();
        let mut send = |order: Order| match batch.add(&order) {
            Some(bytes) => channel::send(&near, &Event::Harvest { bytes }, &[]),
            None => Ok(()),
        };
        let mut ordered = Orders::new(contents, self.ids.view(), &mut send).diff(diff, tree);
        if ordered.is_ok() {
            let rest = Event::Harvest { bytes: batch.take() };
            let said = channel::send(&near, &rest, &[]).and_then(|()| channel::send(&near, &Event::Done {}, &[]));
            ordered = said.map_err(helper("laying out"));
        } else {
            // The other end hears that no more comes, and gives up.
            let _ = rustix::net::shutdown(&near, rustix::net::Shutdown::Write);
        }
        // Its own words say more than a broken pipe here.
        match Receiver::new().receive::<Event>(&near) {
            Ok(Some((Event::Done {}, _))) => ordered,
            Ok(Some((Event::Failed { what, errno }, _))) if errno != libc::ECONNABORTED => Err(SandboxError::setup(
                String::from_utf8_lossy(&what).into_owned(),
                io::Error::from_raw_os_error(errno),
            )),
            _ => ordered.and(Err(SandboxError::Helper("it ended while laying out".into()))),
        }
    }

    /// Sets the owner that steps see, as far as it can be mapped, and the mode.
    pub(crate) fn own(&self, path: &Path, (uid, gid): (u32, u32), mode: u32) -> Result<(), SandboxError> {
        let ((uid, gid), _) = self.ids.view().show(uid, gid);
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        let path = path.as_os_str().as_bytes().into();
        self.request(&Request::Own { path, uid, gid, mode }, &[far.as_fd()])?;
        drop(far);
        match Receiver::new().receive::<Event>(&near) {
            Ok(Some((Event::Done {}, _))) => Ok(()),
            Ok(Some((Event::Failed { what, errno }, _))) => {
                let what = String::from_utf8_lossy(&what).into_owned();
                Err(SandboxError::setup(what, io::Error::from_raw_os_error(errno)))
            }
            _ => Err(SandboxError::Helper("it ended while setting an owner".into())),
        }
    }

    /// Has the kernel run programs of other machines for this server's steps, by handlers as binfmt_misc takes them;
    /// once.
    pub(crate) fn emulate(&self, handlers: &[Bytes]) -> Result<(), SandboxError> {
        let mut emulation = self.emulation.lock().unwrap_or_else(PoisonError::into_inner);
        if emulation.is_some() {
            return Ok(());
        }
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        self.request(&Request::Emulate { handlers: handlers.to_vec() }, &[far.as_fd()])?;
        drop(far);
        match Receiver::new().receive::<Event>(&near) {
            Ok(Some((Event::Done {}, mut descriptors))) if descriptors.len() == 1 => {
                *emulation = descriptors.pop();
                Ok(())
            }
            Ok(Some((Event::Failed { what, errno }, _))) => {
                let what = String::from_utf8_lossy(&what).into_owned();
                Err(SandboxError::setup(what, io::Error::from_raw_os_error(errno)))
            }
            _ => Err(SandboxError::Helper("it ended while registering an emulator".into())),
        }
    }

    /// Removes a directory and all below it, in the background.
    pub(crate) fn remove(&self, dir: &Path) -> Result<(), SandboxError> {
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        let path = dir.as_os_str().as_bytes().into();
        self.request(&Request::Remove { path }, &[far.as_fd()])?;
        self.removals.lock().unwrap_or_else(PoisonError::into_inner).push(near);
        Ok(())
    }

    /// Waits for removals; the first that failed is told.
    pub(crate) fn finish_removals(&self) -> Result<(), SandboxError> {
        let leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        leaving.into_iter().for_each(Leaving::wait);
        let waiting = std::mem::take(&mut *self.removals.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for socket in waiting {
            let failed = match Receiver::new().receive::<Event>(&socket) {
                Ok(Some((Event::Done {}, _))) => None,
                Ok(Some((Event::Failed { what, errno }, _))) => {
                    Some((String::from_utf8_lossy(&what).into_owned(), io::Error::from_raw_os_error(errno)))
                }
                Ok(_) => Some(("removing scratch".to_owned(), io::Error::from(io::ErrorKind::UnexpectedEof))),
                Err(e) => Some(("removing scratch".to_owned(), e)),
            };
            if let (Some((what, e)), Ok(())) = (failed, &result) {
                result = Err(SandboxError::setup(what, e));
            }
        }
        result
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // What is left in scratch is found and removed by the next sandbox.
        let _ = self.finish_removals();
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Both);
        let _ = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

impl Waiting {
    /// Gives it the step.
    pub(crate) fn begin(self, spec: &Spec) -> Result<Running, SandboxError> {
        let file = spec_file(spec).map_err(helper("writing what to run"))?;
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| helper("making a pipe")(e.into()));
        let (stdout, stdout_far) = pipe()?;
        let (stderr, stderr_far) = pipe()?;
        let descriptors = [file.as_fd(), stdout_far.as_fd(), stderr_far.as_fd()];
        match channel::send(&self.socket, &Begin::Step {}, &descriptors) {
            // It has gone already; why, it has said.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.map_err(helper("asking"))?,
        }
        Ok(Running { socket: self.socket, stdout, stderr })
    }

    /// Gives it up.
    pub(crate) fn leave(self) -> Leaving {
        Leaving::new(self.socket, None)
    }
}

fn spec_file(spec: &Spec) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("memobuild-step", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    io::Write::write_all(&mut file, &spec.to_bytes())?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}
