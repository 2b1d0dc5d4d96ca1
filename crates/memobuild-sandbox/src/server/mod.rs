//! The sandbox server: a small single-threaded process that enters the user namespace once and forks a child for every
//! step.
//!
//! In: requests on its standard input, a socket. Out: nothing; each request brings a socket of its own for the
//! answers. Who calls it: [`crate::init_main`]. It ends when the main process does, and every step with it.

mod cgroup;
mod child;
mod chroot;
mod device;
mod emulate;
mod filter;
mod identity;
mod init;
mod lay;
mod mounts;
pub(crate) mod notify;
pub(crate) mod remove;
mod root;
mod stage;

pub(crate) use child::describe;
pub(crate) use device::{LINKS as DEVICE_LINKS, NODES as DEVICES};
pub(crate) use mounts::open_in;

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use rustix::thread::{Gid, Uid, UnshareFlags};

use crate::{
    channel::{self, Receiver},
    spec::{Event, Request},
    sys,
    wire::wire,
};

/// The first message: how ids are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hello {
    /// No user namespace: this is root.
    Stay {},
    /// A user namespace in which the one id of the user is root.
    Single { uid: u32, gid: u32 },
    /// A user namespace whose maps the main process has written by `newuidmap` once this process asks.
    Ranges {},
}
wire!(enum Hello { 0 => Stay {}, 1 => Single { uid, gid }, 2 => Ranges {} });

/// What went wrong in one of the server's processes.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done.
    pub(crate) what: String,
    /// What the kernel said.
    pub(crate) errno: i32,
}

/// Adds what was being done to an error.
pub(crate) trait During<T> {
    /// The same, with the words.
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure { what: what(), errno: e.into().raw_os_error().unwrap_or(libc::EIO) })
    }
}

/// Second argument of a server that runs from [`own_file`] already.
const AGAIN_ARG: &CStr = c"again";

/// Runs the server on standard input until its other end closes. Gives the exit code.
pub(crate) fn main() -> i32 {
    let input = io::stdin();
    let socket = input.as_fd();
    sys::reset_signals(true);
    // Children that have ended vanish by themselves.
    sys::ignore_children();
    let mut receiver = Receiver::new();
    let entered = if std::env::args_os().nth(2).is_some_and(|arg| arg.as_bytes() == AGAIN_ARG.to_bytes()) {
        Event::Done {}
    } else {
        let Ok(Some((hello, _))) = receiver.receive::<Hello>(socket) else { return 1 };
        match enter(hello, socket, &mut receiver) {
            Ok(()) => Event::Done {},
            Err(e) => Event::Failed { what: e.what.into_bytes().into(), errno: e.errno },
        }
    };
    let failed = entered != Event::Done {};
    if channel::send(socket, &entered, &[]).is_err() || failed {
        return 1;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    loop {
        match receiver.receive::<Request>(socket) {
            Ok(Some((request, descriptors))) => serve(request, descriptors),
            Ok(None) => return 0,
            Err(_) => return 1,
        }
    }
}

/// A way to a program's file by which nobody can write to it, for the server to run from. Root in a step has a way to that
/// file, if a script or program of its own names `/proc/self/exe` as what it is to be run by (CVE-2019-5736). `None` where
/// this user, or kernel, can't make a mount: then all that stops a write is that the file is being executed.
pub(crate) fn own_file(program: &Path) -> Option<OwnedFd> {
    // By its name: a link to the program that runs leads to a mount of the namespace that it was started in.
    let name = program.canonicalize().ok()?;
    let file = mounts::bind(name.as_os_str().as_bytes(), libc::MOUNT_ATTR_RDONLY).ok()?;
    // Another may have got the name meanwhile.
    let (ours, bound) = (rustix::fs::stat(program).ok()?, rustix::fs::fstat(&file).ok()?);
    ((ours.st_dev, ours.st_ino) == (bound.st_dev, bound.st_ino)).then_some(file)
}

/// Starts this program anew from such a file; comes back where that can't be.
fn run_from_own_file() {
    // The user namespace is another than the one that has made the machine's mounts.
    if sys::unshare(UnshareFlags::NEWNS).is_err() {
        return;
    }
    let Some(file) = own_file(Path::new("/proc/self/exe")) else { return };
    let Ok(path) = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())) else { return };
    let args = std::env::args_os().chain([OsStr::from_bytes(AGAIN_ARG.to_bytes()).to_owned()]);
    let env = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| list.map(CString::new).collect::<Result<Vec<_>, _>>();
    if let (Ok(args), Ok(env)) = (strings(&mut args.map(OsString::into_vec)), strings(&mut env.into_iter())) {
        let _ = sys::exec(&path, &args, &env);
    }
}

/// Enters the user namespace.
fn enter(hello: Hello, socket: impl AsFd, receiver: &mut Receiver) -> Result<(), Failure> {
    match hello {
        Hello::Stay {} => return Ok(()),
        Hello::Single { uid, gid } => {
            sys::unshare(UnshareFlags::NEWUSER).during(|| "making a user namespace".into())?;
            let write = |file: &str, text: String| {
                std::fs::write(format!("/proc/self/{file}"), text).during(|| format!("writing /proc/self/{file}"))
            };
            write("setgroups", "deny".into())?;
            write("uid_map", format!("0 {uid} 1"))?;
            write("gid_map", format!("0 {gid} 1"))?;
        }
        Hello::Ranges {} => {
            sys::unshare(UnshareFlags::NEWUSER).during(|| "making a user namespace".into())?;
            channel::send(&socket, &Event::Started {}, &[]).during(|| "asking for id maps".into())?;
            match receiver.receive::<Event>(&socket) {
                Ok(Some((Event::Done {}, _))) => {}
                _ => return Err(Failure { what: "waiting for id maps".into(), errno: libc::EIO }),
            }
        }
    }
    let (root, wheel) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(wheel, wheel, wheel).during(|| "becoming group 0".into())?;
    rustix::thread::set_thread_res_uid(root, root, root).during(|| "becoming user 0".into())?;
    if matches!(hello, Hello::Ranges {}) {
        rustix::thread::set_thread_groups(&[]).during(|| "dropping groups".into())?;
    }
    run_from_own_file();
    Ok(())
}

/// Forks a child for the request. What goes wrong here shows at the other end as a socket closed too early.
fn serve(request: Request, descriptors: Vec<OwnedFd>) {
    let child = move || {
        sys::reset_signals(false);
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        match (request, descriptors.as_slice()) {
            (Request::Run { room }, [socket]) => stage::run(room.as_ref(), socket.as_fd()),
            (Request::Remove { path }, [socket]) => answer(socket, remove::remove_all(&path)),
            (Request::LayOut { dir, layer }, [socket]) => answer(socket, lay::lay_out(&dir, layer, socket.as_fd())),
            (Request::Own { path, uid, gid, mode }, [socket]) => answer(socket, own(&path, (uid, gid), mode)),
            (Request::Emulate { handlers }, [socket]) => match emulate::register(&handlers) {
                Ok(mount) => i32::from(channel::send(socket, &Event::Done {}, &[mount.as_fd()]).is_err()),
                Err(e) => answer(socket, Err(e)),
            },
            _ => 1,
        }
    };
    let _ = sys::fork(child);
}

fn answer(socket: &OwnedFd, result: Result<(), Failure>) -> i32 {
    let answer = match result {
        Ok(()) => Event::Done {},
        Err(e) => Event::Failed { what: e.what.into_bytes().into(), errno: e.errno },
    };
    i32::from(channel::send(socket, &answer, &[]).is_err())
}

fn own(path: &[u8], (uid, gid): (u32, u32), mode: u32) -> Result<(), Failure> {
    let what = || format!("setting the owner of {}", String::from_utf8_lossy(path));
    let path = OsStr::from_bytes(path);
    rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).during(what)?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode)).during(what)
}
