//! Starts the sandbox server and speaks to it.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use memobuild_tree::{Diff, Tree};
use rustix::fs::{MemfdFlags, SeekFrom};

use crate::{
    channel::{self, Receiver},
    contents::Contents,
    error::SandboxError,
    ids::{IdMap, Ids},
    layout::order::{Batch, Order, Orders},
    sandbox::SANDBOX_INIT_ARG,
    server::Hello,
    spec::{Event, Request, Spec},
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
    /// How ids are mapped.
    pub(crate) ids: Ids,
}

/// The main process's ends of a step.
pub(crate) struct Running {
    pub(crate) socket: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

fn helper(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |e| SandboxError::Helper(format!("{what}: {e}"))
}

impl ServerHandle {
    /// Starts a server that maps ids in the given way.
    pub(crate) fn start(program: &Path, ids: Ids) -> Result<Self, SandboxError> {
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        let child = Command::new(program)
            .arg(SANDBOX_INIT_ARG)
            .current_dir("/")
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| SandboxError::Helper(format!("starting {}: {e}", program.display())))?;
        let handle =
            Self { socket: Mutex::new(near), child: Mutex::new(child), removals: Mutex::default(), ids: ids.clone() };
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

    /// Starts a step.
    pub(crate) fn run(&self, spec: &Spec) -> Result<Running, SandboxError> {
        let file = spec_file(spec).map_err(helper("writing what to run"))?;
        let (near, far) = channel::pair().map_err(helper("making a socket"))?;
        let pipe =
            || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| helper("making a pipe")(e.into()));
        let (stdout, stdout_far) = pipe()?;
        let (stderr, stderr_far) = pipe()?;
        self.request(&Request::Run {}, &[file.as_fd(), stdout_far.as_fd(), stderr_far.as_fd(), far.as_fd()])?;
        Ok(Running { socket: near, stdout, stderr })
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

fn spec_file(spec: &Spec) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("memobuild-step", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    io::Write::write_all(&mut file, &spec.to_bytes())?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}
