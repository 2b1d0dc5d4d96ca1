//! Whole trees on disk for the chroot mode, kept from step to step and changed only where the next tree differs.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memobuild_tree::{ContentDigest, Diff, Tree};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

use super::layers::weight;
use crate::{
    contents::{Contents, ReadAt},
    error::SandboxError,
    launch::ServerHandle,
    served::Composite,
    server::{open_in, remove::remove_at},
};

/// A tree on disk that no step uses.
struct Idle {
    dir: PathBuf,
    holds: Tree,
}

/// All roots of a sandbox.
pub(crate) struct Roots {
    dir: PathBuf,
    idle: Mutex<(Vec<Idle>, u64)>,
    /// Caches are moved into a root, so one step at a time has them.
    caches: Mutex<()>,
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roots").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A root made ready for a step. If it is dropped before [`Root::settle`], its directory is not used again.
pub(crate) struct Root<'a> {
    roots: &'a Roots,
    server: &'a ServerHandle,
    contents: &'a dyn Contents,
    /// Where it lies.
    pub(crate) dir: PathBuf,
    shown: Tree,
    targets: Vec<Vec<u8>>,
    moved: Vec<MovedIn>,
    _caches: Option<MutexGuard<'a, ()>>,
}

/// A directory of this machine that was moved into a root.
struct MovedIn {
    home: PathBuf,
    target: Vec<u8>,
    /// Tells the next sandbox where to move it back to, should this process die.
    note: PathBuf,
}

/// The beginning of the names of such notes: the home path, a zero byte, the place.
const NOTE_PREFIX: &str = "moved-in-";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn below(root: &Path, at: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(at.strip_prefix(b"/").unwrap_or(at)))
}

impl Roots {
    /// Roots will stand below that directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), idle: Mutex::default(), caches: Mutex::default() }
    }

    /// Lays a step's whole root out, in the idle root that differs least from it.
    pub(crate) fn take<'a>(
        &'a self,
        server: &'a ServerHandle,
        composite: Composite,
        targets: Vec<Vec<u8>>,
        contents: &'a dyn Contents,
    ) -> Result<Root<'a>, SandboxError> {
        let Composite { tree, side, hosts } = composite;
        let caches = (!hosts.is_empty()).then(|| lock(&self.caches));
        let (dir, diff) = self.nearest(&tree);
        let with_side = WithSide { contents, side };
        server.lay_out(&dir, false, &diff, &tree, &with_side)?;
        let mut root =
            Root { roots: self, server, contents, dir, shown: tree, targets, moved: Vec::new(), _caches: caches };
        let mut restamp = Vec::new();
        for (number, (home, target)) in hosts.into_iter().enumerate() {
            root.move_in(number, Path::new(OsStr::from_bytes(&home)), &target)?;
            restamp.push(parent_of(&target).to_vec());
        }
        if !restamp.is_empty() {
            let mut diff = Diff::default();
            set_again(&mut diff, &restamp, &root.shown);
            server.lay_out(&root.dir, false, &diff, &root.shown, contents)?;
        }
        Ok(root)
    }

    fn nearest(&self, tree: &Tree) -> (PathBuf, Diff) {
        let mut idle = lock(&self.idle);
        let (roots, next) = &mut *idle;
        let fresh = Diff::between(&Tree::default(), tree);
        let near = roots.iter().enumerate().map(|(n, r)| (n, Diff::between(&r.holds, tree)));
        match near.min_by_key(|(_, diff)| weight(diff)) {
            Some((number, diff)) => (roots.swap_remove(number).dir, diff),
            None => {
                *next += 1;
                (self.dir.join(format!("root-{next}")), fresh)
            }
        }
    }

    /// Moves what a dead process had moved into its roots back to where it belongs. Called before its directory is
    /// removed.
    pub(crate) fn rescue(run: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(run)? {
            let entry = entry?;
            if !entry.file_name().as_bytes().starts_with(NOTE_PREFIX.as_bytes()) {
                continue;
            }
            let note = std::fs::read(entry.path())?;
            let mut parts = note.split(|b| *b == 0);
            let (Some(home), Some(place)) = (parts.next(), parts.next()) else { continue };
            let (home, place) = (Path::new(OsStr::from_bytes(home)), Path::new(OsStr::from_bytes(place)));
            if !home.exists() && place.exists() {
                std::fs::rename(place, home)?;
            }
            std::fs::remove_file(entry.path())?;
        }
        Ok(())
    }
}

fn parent_of(at: &[u8]) -> &[u8] {
    let slash = at.iter().rposition(|b| *b == b'/').unwrap_or_default();
    at.get(..slash).unwrap_or_default()
}

/// Adds to a diff that these directories get their metadata again, as every directory on the way to a change does.
fn set_again(diff: &mut Diff, dirs: &[Vec<u8>], after: &Tree) {
    for dir in dirs.iter().filter(|dir| after.dir(dir).is_some()) {
        diff.root.descend(&memobuild_tree::path::components(dir));
    }
}

/// The directory that holds a path of a root, links followed within the root only, and the path's last name.
fn parent_in(root: &Path, at: &[u8]) -> io::Result<(OwnedFd, OsString)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty())?;
    let parts = memobuild_tree::path::components(at);
    let (last, parents) = parts.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = open_in(top.as_fd(), &memobuild_tree::path::from_components(parents))?;
    Ok((parent, OsStr::from_bytes(last).to_owned()))
}

/// Removes whatever stands at a path of a root.
fn clear(root: &Path, at: &[u8]) -> Result<(), SandboxError> {
    let failed = |e: io::Error| SandboxError::setup(format!("clearing {}", memobuild_tree::path::display(at)), e);
    let (parent, name) = match parent_in(root, at) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(failed)?,
    };
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => remove_at(parent.as_fd(), name.as_bytes())
            .map_err(|e| SandboxError::setup(e.what, io::Error::from_raw_os_error(e.errno))),
        Err(e) => Err(failed(e.into())),
    }
}

impl Root<'_> {
    fn move_in(&mut self, number: usize, home: &Path, target: &[u8]) -> Result<(), SandboxError> {
        let failed = |what: &str, e: io::Error| SandboxError::setup(format!("{what} {}", home.display()), e);
        let meta = std::fs::metadata(home).map_err(|e| failed("looking at", e))?;
        clear(&self.dir, target)?;
        let (parent, name) = parent_in(&self.dir, target).map_err(|e| failed("finding a place for", e))?;
        if !meta.is_dir() {
            // A socket or file: a second name serves as a mount would.
            let linked = rustix::fs::linkat(CWD, home, &parent, &name, AtFlags::empty());
            return linked.map_err(|e| failed("linking in", e.into()));
        }
        let root = self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let note = self.roots.dir.join(format!("{NOTE_PREFIX}{root}-{number}"));
        let text = [home.as_os_str().as_bytes(), b"\0", below(&self.dir, target).as_os_str().as_bytes()].concat();
        std::fs::write(&note, text).map_err(|e| failed("noting the move of", e))?;
        rustix::fs::renameat(CWD, home, &parent, &name).map_err(|e| failed("moving in", e.into()))?;
        self.moved.push(MovedIn { home: home.to_owned(), target: target.to_owned(), note });
        Ok(())
    }

    fn move_out(&mut self) -> Result<(), SandboxError> {
        let mut result = Ok(());
        for moved in std::mem::take(&mut self.moved) {
            let back = parent_in(&self.dir, &moved.target)
                .and_then(|(parent, name)| Ok(rustix::fs::renameat(&parent, &name, CWD, &moved.home)?));
            let back = match back {
                // The step removed it, which no mount would have let it do: then it is empty.
                Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::create_dir(&moved.home),
                other => other,
            };
            let back = back.and_then(|()| std::fs::remove_file(&moved.note));
            let back = back.map_err(|e| SandboxError::setup(format!("moving {} back", moved.home.display()), e));
            result = result.and(back);
        }
        result
    }

    /// After a step that succeeded: takes what stood for mounts away, puts back what lies under them, and keeps the
    /// root for the next step. `diff` is what the step did, `after` the tree that it made, `touched`
    /// the directories whose time it changed and nothing else.
    pub(crate) fn settle(mut self, diff: &Diff, after: &Tree, touched: &[Vec<u8>]) -> Result<(), SandboxError> {
        self.move_out()?;
        let mut holds = diff.apply(&self.shown).map_err(|e| SandboxError::Helper(e.to_string()))?;
        for target in &self.targets {
            clear(&self.dir, target)?;
            holds.remove(target);
        }
        let mut back = Diff::between(&holds, after);
        // Taking mounts away changes the time of the directories that held them.
        set_again(&mut back, touched, after);
        let parents: Vec<Vec<u8>> = self.targets.iter().map(|target| parent_of(target).to_vec()).collect();
        set_again(&mut back, &parents, after);
        self.server.lay_out(&self.dir, false, &back, after, self.contents)?;
        lock(&self.roots.idle).0.push(Idle { dir: self.dir.clone(), holds: after.clone() });
        Ok(())
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here: the note tells the next sandbox.
        let _ = self.move_out();
    }
}

/// Contents with a few files in memory.
struct WithSide<'a> {
    contents: &'a dyn Contents,
    side: HashMap<ContentDigest, Arc<[u8]>>,
}

struct InMemory(Arc<[u8]>);

impl ReadAt for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.0.get(o..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(length)
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Contents for WithSide<'_> {
    fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
        match self.side.get(digest) {
            Some(bytes) => Ok(Arc::new(InMemory(bytes.clone()))),
            None => self.contents.open(digest),
        }
    }

    fn native(&self, digest: &ContentDigest, size: u64) -> Option<PathBuf> {
        self.contents.native(digest, size)
    }

    fn native_above(&self) -> u64 {
        self.contents.native_above()
    }

    fn blobs_dir(&self) -> Option<&Path> {
        self.contents.blobs_dir()
    }

    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest> {
        self.contents.put_small(bytes)
    }

    fn put_large(&self, tmp: &Path, digest: ContentDigest, size: u64) -> io::Result<()> {
        self.contents.put_large(tmp, digest, size)
    }
}
