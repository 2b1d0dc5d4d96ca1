//! `type=local`: the root file system laid out in a directory.
//!
//! Everything belongs to the user who runs it, as with BuildKit's client. Directories are opened one name at a time and
//! no symbolic link is followed below the destination, so that neither the image nor what lies there already can lead
//! elsewhere. Files that stand there are replaced by rename; others stay. Devices are left out with a warning.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use memobuild_store::Store;
use memobuild_tree::{Dir, LinkId, Meta, Node, Special, SpecialKind, Symlink, Tree, path::display};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::OutputError;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Lays the tree out in a directory, made if it lacks. Gives back what a person should know: entries that could not be
/// made. With an epoch every time is that second.
pub fn write_local(store: &Store, tree: &Tree, epoch: Option<i64>, dir: &Path) -> Result<Vec<String>, OutputError> {
    let error = |source| OutputError::Io { path: dir.to_path_buf(), source };
    fs::create_dir_all(dir).map_err(error)?;
    // The destination itself may be reached through links: it is the user's own word.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(|e| error(e.into()))?;
    let mut writer =
        Writer { store, epoch, dest: dir, root: root.as_fd(), links: HashMap::new(), warnings: Vec::new(), count: 0 };
    writer.children(tree.root(), root.as_fd(), &mut Vec::new())?;
    Ok(writer.warnings)
}

struct Writer<'a> {
    store: &'a Store,
    epoch: Option<i64>,
    dest: &'a Path,
    root: BorrowedFd<'a>,
    /// Where the first file of each group of hard links was put.
    links: HashMap<LinkId, Vec<Vec<u8>>>,
    warnings: Vec<String>,
    count: u64,
}

impl Writer<'_> {
    fn children(&mut self, dir: &Dir, fd: BorrowedFd<'_>, at: &mut Vec<Vec<u8>>) -> Result<(), OutputError> {
        for (name, node) in dir.entries() {
            at.push(name.to_vec());
            match node {
                Node::Dir(sub) => self.dir(sub, fd, name, at)?,
                Node::File(file) => self.file(file, fd, name, at)?,
                Node::Symlink(link) => self.symlink(link, fd, name, at)?,
                Node::Special(special) => self.special(special, fd, name, at)?,
            }
            at.pop();
        }
        Ok(())
    }

    fn dir(&mut self, dir: &Dir, fd: BorrowedFd<'_>, name: &[u8], at: &mut Vec<Vec<u8>>) -> Result<(), OutputError> {
        let fail = |e: Errno| node_error(at, e);
        let open = || rustix::fs::openat(fd, name, DIR, Mode::empty());
        let made = match open() {
            Ok(there) => there,
            Err(_) => {
                match rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) => {
                        // A file or link, or a directory of ours that may not be read: mkdir after unlink tells.
                        if rustix::fs::unlinkat(fd, name, AtFlags::empty()).is_ok() {
                            rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(0o700)).map_err(fail)?;
                        }
                    }
                    other => other.map_err(fail)?,
                }
                open().map_err(fail)?
            }
        };
        // Writable until all is in it.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(dir.meta().mode & 0o7777 | 0o700)).map_err(fail)?;
        self.children(dir, made.as_fd(), at)?;
        self.finish(&made, dir.meta(), at)
    }

    fn file(
        &mut self,
        file: &memobuild_tree::File,
        fd: BorrowedFd<'_>,
        name: &[u8],
        at: &[Vec<u8>],
    ) -> Result<(), OutputError> {
        let temporary = self.temporary();
        if let Some(first) = file.link.and_then(|id| self.links.get(&id)) {
            let linked = self
                .parent(first)
                .and_then(|(dir, last)| rustix::fs::linkat(&dir, last, fd, &*temporary, AtFlags::empty()));
            if linked.is_ok() {
                return self.rename(fd, &temporary, name, at, "a file");
            }
            // A file system without hard links: a second copy is the next best.
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            rustix::fs::openat(fd, &*temporary, flags, Mode::from_raw_mode(0o600)).map_err(|e| node_error(at, e))?;
        let written = self.fill(file, made, at).and_then(|made| self.finish(&made, &file.meta, at));
        if let Err(e) = written {
            // Best effort: the error says what matters.
            let _ = rustix::fs::unlinkat(fd, &*temporary, AtFlags::empty());
            return Err(e);
        }
        if let Some(id) = file.link {
            self.links.insert(id, at.to_vec());
        }
        self.rename(fd, &temporary, name, at, "a file")
    }

    fn fill(&self, file: &memobuild_tree::File, fd: OwnedFd, at: &[Vec<u8>]) -> Result<OwnedFd, OutputError> {
        let mut out = File::from(fd);
        if file.size > 0 {
            let mut content = self.store.content(&file.content)?.reader();
            io::copy(&mut content, &mut out)
                .and_then(|_| out.flush())
                .map_err(|source| OutputError::Node { path: joined(at), source })?;
        }
        Ok(out.into())
    }

    fn symlink(&mut self, link: &Symlink, fd: BorrowedFd<'_>, name: &[u8], at: &[Vec<u8>]) -> Result<(), OutputError> {
        let temporary = self.temporary();
        rustix::fs::symlinkat(&*link.target, fd, &*temporary).map_err(|e| node_error(at, e))?;
        let times = self.times(&link.meta);
        rustix::fs::utimensat(fd, &*temporary, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| node_error(at, e))?;
        self.rename(fd, &temporary, name, at, "a symbolic link")
    }

    fn special(
        &mut self,
        special: &Special,
        fd: BorrowedFd<'_>,
        name: &[u8],
        at: &[Vec<u8>],
    ) -> Result<(), OutputError> {
        if special.kind != SpecialKind::Fifo {
            self.warnings.push(format!("{}: devices are left out of a local output", display(&joined(at))));
            return Ok(());
        }
        let temporary = self.temporary();
        let mode = Mode::from_raw_mode(special.meta.mode & 0o777);
        rustix::fs::mknodat(fd, &*temporary, FileType::Fifo, mode, 0).map_err(|e| node_error(at, e))?;
        self.rename(fd, &temporary, name, at, "a pipe")
    }

    /// Extended attributes where they are allowed, then mode, then time.
    fn finish(&mut self, fd: &OwnedFd, meta: &Meta, at: &[Vec<u8>]) -> Result<(), OutputError> {
        for (name, value) in meta.xattrs.as_deref().into_iter().flatten() {
            if let Err(e) = rustix::fs::fsetxattr(fd, &**name, value, XattrFlags::empty()) {
                let path = display(&joined(at));
                self.warnings.push(format!("{path}: attribute {} left out: {e}", String::from_utf8_lossy(name)));
            }
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777)).map_err(|e| node_error(at, e))?;
        rustix::fs::futimens(fd, &self.times(meta)).map_err(|e| node_error(at, e))
    }

    fn times(&self, meta: &Meta) -> Timestamps {
        let time = match self.epoch {
            Some(epoch) => Timespec { tv_sec: epoch, tv_nsec: 0 },
            None => Timespec { tv_sec: meta.mtime.secs, tv_nsec: meta.mtime.nanos.into() },
        };
        Timestamps { last_access: time, last_modification: time }
    }

    fn temporary(&mut self) -> String {
        self.count += 1;
        format!(".memobuild-{}-{}", std::process::id(), self.count)
    }

    /// Puts a finished entry in its place. An empty directory makes way; one that holds something is the user's.
    fn rename(
        &self,
        fd: BorrowedFd<'_>,
        from: &str,
        to: &[u8],
        at: &[Vec<u8>],
        what: &'static str,
    ) -> Result<(), OutputError> {
        let mut result = rustix::fs::renameat(fd, from, fd, to);
        if result == Err(Errno::ISDIR) {
            result = match rustix::fs::unlinkat(fd, to, AtFlags::REMOVEDIR) {
                Ok(()) => rustix::fs::renameat(fd, from, fd, to),
                Err(_) => {
                    let _ = rustix::fs::unlinkat(fd, from, AtFlags::empty());
                    let below: PathBuf = at.iter().map(|p| OsStr::from_bytes(p)).collect();
                    return Err(OutputError::InTheWay { path: self.dest.join(below), what });
                }
            };
        }
        // Two names of one file: rename does nothing and leaves both.
        let _ = rustix::fs::unlinkat(fd, from, AtFlags::empty());
        result.map_err(|e| node_error(at, e))
    }

    /// The directory that a path was put in, opened name by name.
    fn parent<'p>(&self, path: &'p [Vec<u8>]) -> Result<(OwnedFd, &'p [u8]), Errno> {
        let (last, above) = path.split_last().ok_or(Errno::INVAL)?;
        let mut dir = rustix::fs::openat(self.root, ".", DIR, Mode::empty())?;
        for part in above {
            dir = rustix::fs::openat(&dir, part.as_slice(), DIR, Mode::empty())?;
        }
        Ok((dir, last))
    }
}

fn joined(at: &[Vec<u8>]) -> Vec<u8> {
    memobuild_tree::path::from_components(at)
}

fn node_error(at: &[Vec<u8>], e: Errno) -> OutputError {
    OutputError::Node { path: joined(at), source: e.into() }
}
