//! Carries orders out below a directory.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::order::{Order, SetMeta};
use crate::{
    server::{During, Failure},
    wire::{Wire, malformed},
};

/// What a removal leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// A whiteout: the directory is a layer of an overlay.
    Whiteout,
    /// Nothing: the directory is the tree itself.
    Real,
}

/// Writes below one directory.
pub(crate) struct Writer {
    top: OwnedFd,
    removal: Removal,
    /// Open directories and their names, the top left out.
    open: Vec<(OwnedFd, Vec<u8>)>,
    file: Option<(OwnedFd, SetMeta, u64, Vec<u8>)>,
}

const PRIVATE: Mode = Mode::from_raw_mode(0o600);

impl Writer {
    pub(crate) fn new(top: OwnedFd, removal: Removal) -> Self {
        Self { top, removal, open: Vec::new(), file: None }
    }

    fn here(&self) -> &OwnedFd {
        self.open.last().map_or(&self.top, |(fd, _)| fd)
    }

    fn name(&self, last: &[u8]) -> String {
        let parts = self.open.iter().map(|(_, name)| name.as_slice()).chain([last]);
        parts.map(|part| format!("/{}", String::from_utf8_lossy(part))).collect()
    }

    /// Carries out a message of orders.
    pub(crate) fn message(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let order = Order::get(&mut bytes).during(|| "reading what to lay out".into())?;
            self.carry_out(order)?;
        }
        Ok(())
    }

    /// All was said; nothing may be left open.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        if self.file.is_some() || !self.open.is_empty() {
            return Err(malformed()).during(|| "laying out".into());
        }
        Ok(())
    }

    pub(crate) fn carry_out(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Open { name } => self.open(&name),
            Order::Close { meta } => {
                let (fd, name) = match self.open.pop() {
                    Some(open) => open,
                    None => (self.top.try_clone().during(|| "leaving the top".into())?, Vec::new()),
                };
                set_meta(&fd, &meta).during(|| self.name(&name))
            }
            Order::File { name, meta, size } => {
                self.clear(&name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(self.here(), os(&name), flags, PRIVATE).during(|| self.name(&name))?;
                if size == 0 {
                    return set_meta(&file, &meta).during(|| self.name(&name));
                }
                self.file = Some((file, meta, size, name.into_vec()));
                Ok(())
            }
            Order::Data { bytes } => self.data(&bytes),
            Order::Link { name, to } => {
                self.clear(&name)?;
                self.link(&name, &to).during(|| self.name(&name))
            }
            Order::Symlink { name, meta, target } => {
                self.clear(&name)?;
                rustix::fs::symlinkat(os(&target), self.here(), os(&name)).during(|| self.name(&name))?;
                self.set_meta_at(&name, &meta).during(|| self.name(&name))
            }
            Order::Special { name, meta, kind, major, minor } => {
                self.clear(&name)?;
                let kind = match kind {
                    0 => FileType::Fifo,
                    1 => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rustix::fs::makedev(major, minor);
                match rustix::fs::mknodat(self.here(), os(&name), kind, PRIVATE, device) {
                    // User namespaces cannot make devices; something that cannot be opened stands for one.
                    Err(Errno::PERM) => rustix::fs::mknodat(self.here(), os(&name), FileType::Socket, PRIVATE, 0),
                    other => other,
                }
                .during(|| self.name(&name))?;
                rustix::fs::chmodat(self.here(), os(&name), Mode::from_raw_mode(meta.mode), AtFlags::empty())
                    .during(|| self.name(&name))?;
                self.set_meta_at(&name, &meta).during(|| self.name(&name))
            }
            Order::Remove { name } => {
                self.clear(&name)?;
                if self.removal == Removal::Whiteout {
                    rustix::fs::mknodat(self.here(), os(&name), FileType::CharacterDevice, Mode::empty(), 0)
                        .during(|| self.name(&name))?;
                }
                Ok(())
            }
        }
    }

    fn open(&mut self, name: &[u8]) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = self.here();
        let made = match rustix::fs::mkdirat(here, os(name), Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        };
        made.during(|| self.name(name))?;
        let fd = match rustix::fs::openat(here, os(name), flags, Mode::empty()) {
            // A file or link stood there.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.clear(name)?;
                rustix::fs::mkdirat(self.here(), os(name), Mode::from_raw_mode(0o700)).during(|| self.name(name))?;
                rustix::fs::openat(self.here(), os(name), flags, Mode::empty())
            }
            other => other,
        }
        .during(|| self.name(name))?;
        self.open.push((fd, name.to_vec()));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some((file, meta, left, name)) = self.file.take() else {
            return Err(malformed()).during(|| "laying out".into());
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest)).during(|| self.name(&name))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        let left = left.checked_sub(bytes.len() as u64).ok_or_else(malformed).during(|| self.name(&name))?;
        if left == 0 {
            return set_meta(&file, &meta).during(|| self.name(&name));
        }
        self.file = Some((file, meta, left, name));
        Ok(())
    }

    /// Takes away what stands at a name, whatever it is.
    fn clear(&self, name: &[u8]) -> Result<(), Failure> {
        match rustix::fs::unlinkat(self.here(), os(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => crate::server::remove::remove_at(self.here().as_fd(), name),
            Err(e) => Err(e).during(|| self.name(name)),
        }
    }

    fn link(&self, name: &[u8], to: &[u8]) -> Result<(), Errno> {
        let parts = memobuild_tree::path::components(to);
        let Some((last, parents)) = parts.split_last() else { return Err(Errno::NOENT) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir = rustix::fs::openat(&self.top, ".", flags, Mode::empty())?;
        for part in parents {
            dir = rustix::fs::openat(&dir, os(part), flags, Mode::empty())?;
        }
        rustix::fs::linkat(&dir, os(last), self.here(), os(name), AtFlags::empty())
    }

    /// For what cannot be opened: owner and time. Links have no mode, and neither has attributes.
    fn set_meta_at(&self, name: &[u8], meta: &SetMeta) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
        rustix::fs::chownat(self.here(), os(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(self.here(), os(name), &times(meta), AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn times(meta: &SetMeta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: meta.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner first, which takes set-id bits and capabilities away; then those; the time last.
fn set_meta(fd: &OwnedFd, meta: &SetMeta) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode))?;
    for (name, value) in &meta.xattrs {
        rustix::fs::fsetxattr(fd, os(name), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(fd, &times(meta))
}
