//! Fills /dev: the nodes that every program may count on, terminals, shared memory, message queues.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags},
    io::Errno,
};

use super::{During, Failure, mounts};
use crate::spec::Shape;

/// Name and device number (major 1 is memory devices, 5 is terminals; Documentation/admin-guide/devices.txt).
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

pub(crate) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// `nodes` is a directory out of the step's sight, on a file system whose nodes can be opened.
pub(super) fn fill(shape: &Shape, dev: BorrowedFd<'_>, nodes: &[u8]) -> Result<(), Failure> {
    for (name, major, minor) in NODES {
        node(dev, nodes, name, (major, minor)).during(|| format!("making /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).during(|| format!("making /dev/{name}"))?;
    }
    let (nosuid, nodev, noexec) = (libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR_NODEV, libc::MOUNT_ATTR_NOEXEC);
    let shm = mounts::tmpfs(0o1777, Some(shape.shm_size), nosuid | nodev | noexec)?;
    put(dev, "shm", &shm)?;
    let options = |group: bool| {
        let mut list = vec![("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
        if group {
            // The group of terminals in every distribution.
            list.push(("gid", Some("5")));
        }
        list
    };
    let pts = devpts(&options(!shape.single), nosuid | noexec)?;
    put(dev, "pts", &pts)?;
    // A kernel without POSIX message queues has nothing to mount.
    if let Ok(queues) = mounts::make("mqueue", &[], (nosuid | nodev | noexec) as u32) {
        put(dev, "mqueue", &queues)?;
    }
    Ok(())
}

fn put(dev: BorrowedFd<'_>, name: &str, mount: &impl AsFd) -> Result<(), Failure> {
    let place = mounts::place(dev, name.as_bytes(), true)?;
    mounts::attach(mount.as_fd(), place.as_fd()).during(|| format!("mounting on /dev/{name}"))
}

fn devpts(options: &[(&str, Option<&str>)], attributes: u64) -> Result<rustix::fd::OwnedFd, Failure> {
    use rustix::mount::*;
    let what = || "mounting devpts".to_owned();
    let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).during(what)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(fs.as_fd(), *key, *value).during(what)?,
            None => fsconfig_set_flag(fs.as_fd(), *key).during(what)?,
        }
    }
    fsconfig_create(fs.as_fd()).during(what)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).during(what)
}

/// A device mounted over an empty file, so that /dev itself need not be a place where nodes can be opened: those that a
/// step makes there must not. The device is a node of one's own where the kernel allows one, else the machine's: user
/// namespaces cannot make nodes.
fn node(dev: BorrowedFd<'_>, nodes: &[u8], name: &str, number: (u32, u32)) -> std::io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    let own = [nodes, b"/", name.as_bytes()].concat();
    let rdev = rustix::fs::makedev(number.0, number.1);
    let from = match rustix::fs::mknodat(CWD, OsStr::from_bytes(&own), FileType::CharacterDevice, mode, rdev) {
        Ok(()) => own,
        Err(Errno::PERM) => format!("/dev/{name}").into_bytes(),
        Err(e) => return Err(e.into()),
    };
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, mode)?;
    let place = rustix::fs::openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mount = mounts::bind(&from, 0).map_err(|e| std::io::Error::from_raw_os_error(e.errno))?;
    mounts::attach(mount.as_fd(), place.as_fd())
}
