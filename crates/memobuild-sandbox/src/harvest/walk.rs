//! Walks the upper directory of a finished step and sends what it finds.
//!
//! Runs after the step's processes are gone, in its namespaces, through descriptors opened before its root changed.
//! Large files are hashed here and moved, never copied.

use std::{
    collections::HashSet,
    ffi::{CStr, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
};

use super::message::{FoundContent, FoundMeta, Item};
use crate::{
    channel,
    server::{During, Failure, notify::Owners},
    spec::{Event, MAX_MESSAGE, Spec},
    step::Outcome,
    wire::Wire,
};

/// Attributes in which overlayfs keeps its own books when mounted with `userxattr`.
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";
/// Says that nothing shows through a directory.
pub(crate) const OPAQUE: &CStr = c"user.overlay.opaque";
/// overlayfs' other way to write a whiteout: an empty file with this attribute (Linux 6.7).
const WHITEOUT: &CStr = c"user.overlay.whiteout";
/// Where the served tree and the supervisor write owners that cannot be mapped: `uid:gid`.
pub(crate) const OWNER_XATTR: &[u8] = b"user.memobuild.owner";

/// A batch is sent when it grows beyond this.
const BATCH: usize = 64 * 1024;

/// Directories that the walk needs.
pub(crate) struct Places {
    /// The step's own directory.
    dir: OwnedFd,
    /// The upper directory.
    pub(super) upper: OwnedFd,
    single: bool,
    id_limit: u32,
    /// Whether the upper directory is an overlay's, to be thrown away: then whiteouts are whiteouts and large files are
    /// moved. Otherwise it is the root itself, which stays, and large files are copied.
    overlay: bool,
}

impl Places {
    /// Opens them, while their paths still mean something.
    pub(crate) fn open(spec: &Spec) -> Result<Self, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(OsStr::from_bytes(&spec.room.dir), flags, Mode::empty())
            .during(|| "opening the step's directory".into())?;
        let upper = match &spec.chroot {
            None => rustix::fs::openat(&dir, "upper", flags, Mode::empty()),
            Some(root) => rustix::fs::open(OsStr::from_bytes(root), flags, Mode::empty()),
        }
        .during(|| "opening what the step writes to".into())?;
        Ok(Self { dir, upper, single: spec.room.shape.single, id_limit: spec.id_limit, overlay: spec.chroot.is_none() })
    }
}

/// Walks and sends everything. The last message is for the caller to send.
pub(crate) fn harvest(places: &Places, owners: &Owners, socket: BorrowedFd<'_>) -> Result<(), Failure> {
    Walker::new(places, owners, socket).run()
}

/// Sends what it is shown of a directory.
pub(crate) struct Walker<'a> {
    pub(super) places: &'a Places,
    owners: &'a Owners,
    socket: BorrowedFd<'a>,
    batch: Vec<u8>,
    /// Inodes with several names that were sent.
    seen: HashSet<u64>,
    /// Number of files moved so far: names them.
    moved: u64,
    /// Names of the directories walked into, for messages.
    pub(super) path: Vec<Vec<u8>>,
}

/// A directory being walked.
struct Level {
    fd: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(places: &'a Places, owners: &'a Owners, socket: BorrowedFd<'a>) -> Self {
        Self { places, owners, socket, batch: Vec::new(), seen: HashSet::new(), moved: 0, path: Vec::new() }
    }

    fn bytes_at(&self, name: &[u8]) -> Vec<u8> {
        let parts = self.path.iter().map(Vec::as_slice).chain([name]);
        parts.flat_map(|part| [b"/".as_slice(), part]).flatten().copied().collect()
    }

    pub(super) fn at(&self, name: &[u8]) -> String {
        let mut text = String::from("/");
        for part in &self.path {
            text.push_str(&String::from_utf8_lossy(part));
            text.push('/');
        }
        text.push_str(&String::from_utf8_lossy(name));
        text
    }

    fn run(mut self) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(&self.places.upper, ".", flags, Mode::empty()).during(|| self.at(b""))?;
        let stat = rustix::fs::fstat(&top).during(|| self.at(b""))?;
        // Every level of depth holds a descriptor.
        let _ = crate::sys::raise_open_files();
        rustix::process::fchdir(&self.places.upper).during(|| self.at(b""))?;
        let meta = self.meta(b".", &stat)?;
        self.push(&Item::Open { name: b"".as_slice().into(), meta, opaque: false })?;
        // Depth costs memory for names and one descriptor each; the kernel's limit on open files is far above any
        // real tree, and beyond it the walk fails rather than lies.
        let mut levels = vec![self.level(top)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                self.path.pop();
                self.push(&Item::Close {})?;
                continue;
            };
            rustix::process::fchdir(&level.fd).during(|| self.at(&name))?;
            if let Some(fd) = self.visit(&name)? {
                self.path.push(name);
                levels.push(self.level(fd)?);
            }
        }
        self.flush()
    }

    fn level(&self, fd: OwnedFd) -> Result<Level, Failure> {
        let mut names = Vec::new();
        let mut dir = Dir::read_from(fd.as_fd()).during(|| self.at(b""))?;
        while let Some(entry) = dir.read() {
            let entry = entry.during(|| self.at(b""))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(Level { fd, names: names.into_iter() })
    }

    /// Sends one entry of the current directory; gives the directory to go into, if it is one.
    pub(super) fn visit(&mut self, name: &[u8]) -> Result<Option<OwnedFd>, Failure> {
        let os = OsStr::from_bytes(name);
        let stat = rustix::fs::statat(rustix::fs::CWD, os, AtFlags::SYMLINK_NOFOLLOW).during(|| self.at(name))?;
        let boxed: Box<[u8]> = name.into();
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                // A directory that its owner may not read is made readable: it will be thrown away.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(rustix::fs::CWD, os, flags, Mode::empty()).during(|| self.at(name))?;
                let meta = self.meta(name, &stat)?;
                let opaque = self.xattr(name, OPAQUE)?.is_some_and(|v| v == b"y");
                self.push(&Item::Open { name: boxed, meta, opaque })?;
                return Ok(Some(fd));
            }
            FileType::CharacterDevice if self.places.overlay && (major, minor) == (0, 0) => {
                self.push(&Item::Whiteout { name: boxed })?
            }
            FileType::RegularFile
                if self.places.overlay && stat.st_size == 0 && self.xattr(name, WHITEOUT)?.is_some() =>
            {
                self.push(&Item::Whiteout { name: boxed })?;
            }
            FileType::RegularFile => {
                let meta = self.meta(name, &stat)?;
                let inode = stat.st_ino;
                let linked = stat.st_nlink > 1;
                let content = if linked && !self.seen.insert(inode) {
                    FoundContent::Same { inode }
                } else {
                    self.content(name, &stat)?
                };
                self.push(&Item::File { name: boxed, meta, inode, linked, content })?;
            }
            FileType::Symlink => {
                let meta = self.meta(name, &stat)?;
                let target = rustix::fs::readlinkat(rustix::fs::CWD, os, Vec::new()).during(|| self.at(name))?;
                self.push(&Item::Symlink { name: boxed, meta, target: target.into_bytes().into() })?;
            }
            FileType::Socket => {
                // Images hold no sockets; one that stands for a device which could not be made is that device.
                if let Some((kind, (major, minor))) = self.owners.device(stat.st_ino) {
                    let meta = self.meta(name, &stat)?;
                    self.push(&Item::Special { name: boxed, meta, kind, major, minor })?;
                }
            }
            kind => {
                let meta = self.meta(name, &stat)?;
                let kind = match kind {
                    FileType::Fifo => 0,
                    FileType::CharacterDevice => 1,
                    _ => 2,
                };
                let (major, minor) = if kind == 0 { (0, 0) } else { (major, minor) };
                self.push(&Item::Special { name: boxed, meta, kind, major, minor })?;
            }
        }
        Ok(None)
    }

    pub(super) fn meta(&self, name: &[u8], stat: &Stat) -> Result<FoundMeta, Failure> {
        let mut owner = (stat.st_uid, stat.st_gid);
        let mut owner_known = !self.places.single;
        let mut xattrs = Vec::new();
        for attribute in self.xattr_names(name)? {
            let bytes = attribute.to_bytes();
            let wanted = bytes.starts_with(b"user.") || bytes == b"security.capability";
            if !wanted || bytes.starts_with(OVERLAY_PREFIX) {
                continue;
            }
            let Some(value) = self.xattr(name, &attribute)? else { continue };
            if bytes == OWNER_XATTR {
                if let Some(known) = parse_owner(&value) {
                    owner = self.true_owner(owner, known);
                    owner_known = true;
                }
                continue;
            }
            let value = if bytes == b"security.capability" { without_root_id(value) } else { value };
            xattrs.push((bytes.into(), value.into()));
        }
        if let Some(known) = self.owners.owner(stat.st_ino, &self.bytes_at(name)).filter(|_| !is_dir(stat)) {
            owner = self.true_owner(owner, known);
            owner_known = true;
        }
        xattrs.sort();
        Ok(FoundMeta {
            mode: stat.st_mode & 0o7777,
            owner,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            xattrs,
            owner_known,
        })
    }

    /// Combines the owner that a file has here with the one that its attribute tells. With ranges of ids the attribute
    /// stands for ids beyond them only, which show as 0 until the step sets another.
    fn true_owner(&self, here: (u32, u32), told: (u32, u32)) -> (u32, u32) {
        if self.places.single {
            return told;
        }
        let limit = self.places.id_limit;
        let choose = |here, told| if here == 0 && told >= limit { told } else { here };
        (choose(here.0, told.0), choose(here.1, told.1))
    }

    fn xattr_names(&self, name: &[u8]) -> Result<Vec<std::ffi::CString>, Failure> {
        let mut list = vec![0u8; 4096];
        loop {
            match rustix::fs::llistxattr(OsStr::from_bytes(name), list.as_mut_slice()) {
                Ok(length) => {
                    let names = list.get(..length).unwrap_or_default().split(|b| *b == 0);
                    return Ok(names
                        .filter(|n| !n.is_empty())
                        .filter_map(|n| std::ffi::CString::new(n).ok())
                        .collect());
                }
                Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 4, 0),
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(e) => return Err(e).during(|| format!("attributes of {}", self.at(name))),
            }
        }
    }

    fn xattr(&self, name: &[u8], attribute: &CStr) -> Result<Option<Vec<u8>>, Failure> {
        let mut value = vec![0u8; 1024];
        loop {
            match rustix::fs::lgetxattr(OsStr::from_bytes(name), attribute, value.as_mut_slice()) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if value.len() < 1 << 20 => value.resize(value.len() * 8, 0),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => return Ok(None),
                Err(e) => return Err(e).during(|| format!("attributes of {}", self.at(name))),
            }
        }
    }

    fn content(&mut self, name: &[u8], stat: &Stat) -> Result<FoundContent, Failure> {
        let what = || format!("reading {}", String::from_utf8_lossy(name));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(rustix::fs::CWD, OsStr::from_bytes(name), flags, Mode::empty()).during(what)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        if size <= Outcome::SMALL_FILE {
            let mut bytes = vec![0; size as usize];
            let mut done = 0;
            while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *rest)).during(what)? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).during(what),
                    n => done += n,
                }
            }
            return Ok(FoundContent::Inline { bytes: bytes.into() });
        }
        self.moved += 1;
        let to = format!("moved.{}", self.moved);
        let copy = if self.places.overlay {
            None
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(&self.places.dir, to.as_str(), flags, Mode::from_raw_mode(0o444));
            Some(copy.during(what)?)
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            let piece = match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buffer)).during(what)? {
                0 => break,
                n => buffer.get(..n).unwrap_or_default(),
            };
            total += piece.len() as u64;
            hasher.update(piece);
            if let Some(copy) = &copy {
                write_sparsely(copy, piece).during(what)?;
            }
        }
        if total != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).during(what);
        }
        match copy {
            Some(copy) => rustix::fs::ftruncate(&copy, size).during(what)?,
            None => {
                // Owned by the namespace's root, which is the user outside, and readable: so that the store can adopt
                // it.
                rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT)).during(what)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444)).during(what)?;
                strip(&file).during(what)?;
                let from = OsStr::from_bytes(name);
                rustix::fs::renameat(rustix::fs::CWD, from, &self.places.dir, to.as_str()).during(what)?;
            }
        }
        let digest = hasher.finalize();
        Ok(FoundContent::Moved { name: to.into_bytes().into(), size, digest: digest.as_bytes().as_slice().into() })
    }

    pub(super) fn push(&mut self, item: &Item) -> Result<(), Failure> {
        crate::wire::put_bytes(&mut self.batch, &item.to_bytes());
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        for piece in batch.chunks(MAX_MESSAGE - 64) {
            channel::send(self.socket, &Event::Harvest { bytes: piece.into() }, &[])
                .during(|| "sending what was found".into())?;
        }
        Ok(())
    }
}

/// Appends to a file; a piece of zeros becomes a hole.
fn write_sparsely(to: &OwnedFd, mut piece: &[u8]) -> rustix::io::Result<()> {
    if piece.iter().all(|b| *b == 0) {
        return rustix::fs::seek(to, rustix::fs::SeekFrom::Current(piece.len() as i64)).map(drop);
    }
    while !piece.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(to, piece))?;
        piece = piece.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

/// A moved file is a blob of the store: it keeps no attributes of the step.
fn strip(file: &OwnedFd) -> rustix::io::Result<()> {
    let mut list = vec![0u8; 65536];
    let length = match rustix::fs::flistxattr(file, list.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in list.get(..length).unwrap_or_default().split(|b| *b == 0) {
        if name.starts_with(b"user.") || name == b"security.capability" {
            rustix::fs::fremovexattr(file, OsStr::from_bytes(name))?;
        }
    }
    Ok(())
}

/// `uid:gid`.
pub(crate) fn parse_owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Capabilities set in a user namespace carry its root's id (version 3, 24 bytes); images hold version 2, 20 bytes
/// (linux/capability.h).
fn without_root_id(value: Vec<u8>) -> Vec<u8> {
    const VERSION_MASK: u32 = 0xff00_0000;
    const VERSION_2: u32 = 0x0200_0000;
    const VERSION_3: u32 = 0x0300_0000;
    let Some(head) = value.first_chunk::<4>() else { return value };
    let magic = u32::from_le_bytes(*head);
    if magic & VERSION_MASK != VERSION_3 || value.len() != 24 {
        return value;
    }
    let mut out = (magic & !VERSION_MASK | VERSION_2).to_le_bytes().to_vec();
    out.extend_from_slice(value.get(4..20).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_3_capabilities_become_version_2() {
        let v3 = [[1, 0, 0, 3].as_slice(), &[7; 16], &[9; 4]].concat();
        assert_eq!(without_root_id(v3), [[1, 0, 0, 2].as_slice(), &[7; 16]].concat());
        let v2 = [[1, 0, 0, 2].as_slice(), &[7; 16]].concat();
        assert_eq!(without_root_id(v2.clone()), v2);
    }

    #[test]
    fn owners_are_read_back() {
        assert_eq!(parse_owner(b"7:3000000000"), Some((7, 3_000_000_000)));
        assert_eq!(parse_owner(b"7"), None);
    }
}
