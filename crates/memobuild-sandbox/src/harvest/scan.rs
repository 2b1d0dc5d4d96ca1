//! Finds what a step changed in a root without an overlay, by comparing each entry's inode, size, times, mode and owner
//! with what they were.
//!
//! A change time cannot be set by a program, so nothing is missed as long as the clock of the file system has moved on
//! between the first look and the step's start: [`Before::look`] waits for that.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::Duration,
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::{
    message::Item,
    walk::{Places, Walker},
};
use crate::{
    server::{During, Failure},
    spec::Spec,
};

/// All that tells a changed entry from an unchanged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    mode: u32,
    owner: (u32, u32),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
        }
    }
}

type Children = BTreeMap<Vec<u8>, Seen>;

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// For directories.
    children: Option<Children>,
}

/// How a root looked before a step.
pub(crate) struct Before {
    root: Seen,
    skip: HashSet<Vec<u8>>,
}

fn open_dir(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut entries = Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

fn child(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

impl Before {
    /// Looks at everything, and waits until a change from now on shows.
    pub(crate) fn look(places: &Places, spec: &Spec) -> Result<Self, Failure> {
        let _ = crate::sys::raise_open_files();
        let what = || "looking at the root".to_owned();
        let skip = spec.skip.iter().map(|path| path.to_vec()).collect();
        let stat = rustix::fs::fstat(&places.upper).during(what)?;
        let mut latest = (stat.st_ctime, stat.st_ctime_nsec as u32);
        let top = open_dir(&places.upper, b".").during(what)?;
        let children = look(&top, &mut Vec::new(), &skip, &mut latest).during(what)?;
        let root = Seen { stamp: Stamp::of(&stat), children: Some(children) };
        // The file system's clock is the coarse one, which moves a few hundred times a second.
        loop {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
            if (now.tv_sec, now.tv_nsec as u32) > latest {
                return Ok(Self { root, skip });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn look(
    dir: &OwnedFd,
    path: &mut Vec<u8>,
    skip: &HashSet<Vec<u8>>,
    latest: &mut (i64, u32),
) -> rustix::io::Result<Children> {
    let mut children = Children::new();
    for name in names(dir)? {
        let here = child(path, &name);
        if skip.contains(&here) {
            continue;
        }
        let stat = rustix::fs::statat(dir, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)?;
        *latest = (*latest).max((stat.st_ctime, stat.st_ctime_nsec as u32));
        let below = if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let fd = open_dir(dir, &name)?;
            let length = path.len();
            path.clone_from(&here);
            let below = look(&fd, path, skip, latest)?;
            path.truncate(length);
            Some(below)
        } else {
            None
        };
        children.insert(name, Seen { stamp: Stamp::of(&stat), children: below });
    }
    Ok(children)
}

/// Compares and sends every difference.
pub(crate) struct Scan<'a> {
    walker: Walker<'a>,
    before: &'a Before,
    /// Directories gone into whose opening was not sent yet.
    waiting: Vec<Item>,
    /// How many were sent.
    sent: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(walker: Walker<'a>, before: &'a Before) -> Self {
        Self { walker, before, waiting: Vec::new(), sent: 0 }
    }

    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let top = open_dir(&self.walker.places.upper, b".").during(|| "scanning the root".into())?;
        rustix::process::fchdir(&top).during(|| "scanning the root".into())?;
        let stat = rustix::fs::fstat(&top).during(|| "scanning the root".into())?;
        let meta = self.walker.meta(b".", &stat)?;
        self.waiting.push(Item::Open { name: b"".as_slice().into(), meta, opaque: false });
        // The root is always told, so that an unchanged one is known to be unchanged.
        self.open_all()?;
        let before = self.before;
        self.dir(&top, &mut Vec::new(), before.root.children.as_ref())?;
        self.walker.push(&Item::Close {})?;
        self.walker.flush()
    }

    fn open_all(&mut self) -> Result<(), Failure> {
        for item in std::mem::take(&mut self.waiting) {
            self.walker.push(&item)?;
            self.sent += 1;
        }
        Ok(())
    }

    fn dir(&mut self, dir: &OwnedFd, path: &mut Vec<u8>, before: Option<&Children>) -> Result<(), Failure> {
        let names = names(dir).during(|| format!("scanning {}", String::from_utf8_lossy(path)))?;
        for name in before.into_iter().flat_map(BTreeMap::keys) {
            if names.binary_search(name).is_err() {
                self.open_all()?;
                self.walker.push(&Item::Whiteout { name: name.as_slice().into() })?;
            }
        }
        for name in names {
            let here = child(path, &name);
            if self.before.skip.contains(&here) {
                continue;
            }
            rustix::process::fchdir(dir).during(|| self.walker.at(&name))?;
            let stat = rustix::fs::statat(rustix::fs::CWD, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)
                .during(|| self.walker.at(&name))?;
            let old = before.and_then(|b| b.get(&name));
            let unchanged = old.is_some_and(|old| old.stamp == Stamp::of(&stat));
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                if !unchanged {
                    self.open_all()?;
                    // A socket is nothing; what stood there before it is gone.
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket && old.is_some() {
                        self.walker.push(&Item::Whiteout { name: name.as_slice().into() })?;
                    }
                    self.walker.visit(&name)?;
                }
                continue;
            }
            let same = old.filter(|old| old.stamp.inode == stat.st_ino && old.children.is_some());
            let meta = self.walker.meta(&name, &stat)?;
            self.waiting.push(Item::Open { name: name.as_slice().into(), meta, opaque: same.is_none() });
            if !unchanged {
                self.open_all()?;
            }
            let fd = open_dir(dir, &name).during(|| self.walker.at(&name))?;
            let (length, sent) = (path.len(), self.sent);
            path.clone_from(&here);
            self.walker.path.push(name);
            self.dir(&fd, path, same.and_then(|s| s.children.as_ref()))?;
            self.walker.path.pop();
            path.truncate(length);
            if self.waiting.is_empty() && (self.sent > sent || !unchanged) {
                self.walker.push(&Item::Close {})?;
            } else {
                self.waiting.pop();
            }
        }
        Ok(())
    }
}
