//! The parallel walk. One task is a directory, or a part of a large one; tasks are taken last in, first out, so that
//! few directories are open at a time. Every call is relative to an open directory, and no link is followed.

use std::{
    ffi::OsStr,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use memobuild_tree::{ContentDigest, File, Meta, Mtime, Node, Special, SpecialKind, Symlink};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fstat, major, minor, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    FilterState, ScanFilter, ScanOptions, ScanStats, Verdict,
    cache::{Cache, Cursor, Known},
    hash::{Fingerprint, Granularity, hash},
    kept::{Kept, Room},
};
use crate::error::{Result, StoreError};

/// Larger directories are split into parts of this many names.
const PART: usize = 512;
/// More threads than this only get in each other's way.
const MAX_THREADS: usize = 8;

/// A file for the next stat cache.
pub(super) struct FileSeen {
    pub(super) name: Arc<[u8]>,
    pub(super) known: Known,
}

/// A name of a file that has several.
pub(super) struct LinkSeen {
    pub(super) file: (u64, u64),
    pub(super) dir: usize,
    pub(super) name: Arc<[u8]>,
    pub(super) content: ContentDigest,
}

/// One directory as it was found.
#[derive(Default)]
pub(super) struct WalkedDir {
    /// Relative to the root, without a leading slash.
    pub(super) path: Vec<u8>,
    pub(super) meta: Meta,
    /// Whether the filter includes the directory itself.
    pub(super) included: bool,
    pub(super) entries: Vec<(Arc<[u8]>, Node)>,
    pub(super) subdirs: Vec<(Arc<[u8]>, usize)>,
    pub(super) files: Vec<FileSeen>,
}

pub(super) struct Walked {
    pub(super) dirs: Vec<WalkedDir>,
    pub(super) links: Vec<LinkSeen>,
    pub(super) stats: ScanStats,
    /// Files for the cache.
    pub(super) seen: u64,
    pub(super) root: Arc<OwnedFd>,
    pub(super) kept: Kept,
}

type Name = (Arc<[u8]>, FileType);

enum Task {
    Dir { parent: Arc<OwnedFd>, name: Arc<[u8]>, number: usize, state: FilterState, block: Option<u32> },
    Part { here: Here, names: Vec<Name> },
}

/// A directory being read.
#[derive(Clone)]
struct Here {
    fd: Arc<OwnedFd>,
    number: usize,
    path: Arc<[u8]>,
    state: FilterState,
    block: Option<u32>,
}

#[derive(Default)]
struct Shared {
    tasks: Vec<Task>,
    /// Tasks taken and not finished.
    active: usize,
    dirs: Vec<WalkedDir>,
    links: Vec<LinkSeen>,
    stats: ScanStats,
    seen: u64,
    error: Option<StoreError>,
    kept: Kept,
}

struct Walk<'a> {
    root: &'a Path,
    filter: &'a dyn ScanFilter,
    all: bool,
    cache: &'a Cache,
    owner: Option<(u32, u32)>,
    granularity: Granularity,
    shared: Mutex<Shared>,
    wake: Condvar,
    room: Room,
}

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub(super) fn walk(root: &Path, filter: &dyn ScanFilter, cache: &Cache, options: &ScanOptions) -> Result<Walked> {
    let fd = openat(CWD, root, DIR_FLAGS, Mode::empty()).map_err(StoreError::sys("open", root))?;
    let stat = fstat(&fd).map_err(StoreError::sys("inspect", root))?;
    let granularity = Granularity::of(fd.as_fd(), &stat);
    let root_fd = Arc::new(fd);
    let walk = Walk {
        root,
        filter,
        all: filter.includes_all(),
        cache,
        owner: options.owner,
        granularity,
        shared: Mutex::default(),
        wake: Condvar::new(),
        room: Room::default(),
    };
    let meta = walk.meta(&stat);
    walk.lock().dirs.push(WalkedDir { meta, included: true, ..WalkedDir::default() });
    let here = Here { fd: root_fd.clone(), number: 0, path: Arc::from(&b""[..]), state: None, block: cache.root() };
    let mut worker = Worker::default();
    walk.lock().stats.dirs += 1;
    walk.read_dir(here, &mut worker)?;
    walk.merge(&mut worker);
    let threads = if options.threads > 0 { options.threads } else { processors().min(MAX_THREADS) };
    let helpers = if walk.lock().tasks.is_empty() { 0 } else { threads - 1 };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|| walk.work(Worker::default()));
        }
        walk.work(worker);
    });
    let Shared { dirs, links, stats, seen, error, kept, .. } =
        walk.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    match error {
        Some(error) => Err(error),
        None => Ok(Walked { dirs, links, stats, seen, root: root_fd, kept }),
    }
}

fn processors() -> usize {
    // One system call; std's way reads the control group's files as well.
    rustix::thread::sched_getaffinity(None).map_or(2, |set| set.count().max(1) as usize)
}

/// What one thread keeps for itself.
struct Worker {
    buffer: Vec<u8>,
    entries: Vec<MaybeUninit<u8>>,
    path: Vec<u8>,
    found: Found,
    kept: Kept,
}

/// What one task found.
#[derive(Default)]
struct Found {
    number: usize,
    entries: Vec<(Arc<[u8]>, Node)>,
    files: Vec<FileSeen>,
    links: Vec<LinkSeen>,
    tasks: Vec<(Arc<[u8]>, Task, bool)>,
    parts: Vec<Task>,
    stats: ScanStats,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            buffer: vec![0; 128 * 1024],
            entries: vec![MaybeUninit::uninit(); 32 * 1024],
            path: Vec::new(),
            found: Found::default(),
            kept: Kept::default(),
        }
    }
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes tasks until none is left and none is being worked on.
    fn work(&self, mut worker: Worker) {
        let mut shared = self.lock();
        loop {
            if shared.error.is_some() {
                break;
            }
            let Some(task) = shared.tasks.pop() else {
                if shared.active == 0 {
                    break;
                }
                shared = self.wake.wait(shared).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            shared.active += 1;
            drop(shared);
            let result = self.run(task, &mut worker);
            self.merge(&mut worker);
            shared = self.lock();
            shared.active -= 1;
            if let Err(error) = result {
                shared.error.get_or_insert(error);
            }
            if shared.tasks.len() > 1 || shared.active == 0 || shared.error.is_some() {
                self.wake.notify_all();
            }
        }
        shared.kept.add(worker.kept);
        drop(shared);
        self.wake.notify_all();
    }

    /// Hands over what a task found. Numbers rise from parents to children.
    fn merge(&self, worker: &mut Worker) {
        let found = std::mem::take(&mut worker.found);
        let mut shared = self.lock();
        let shared = &mut *shared;
        let parent = shared.dirs.get(found.number).map(|dir| dir.path.clone()).unwrap_or_default();
        let mut subdirs = Vec::with_capacity(found.tasks.len());
        for (name, mut task, included) in found.tasks {
            let number = shared.dirs.len();
            let path = join(&parent, &name);
            shared.dirs.push(WalkedDir { path, included, ..WalkedDir::default() });
            if let Task::Dir { number: slot, .. } = &mut task {
                *slot = number;
            }
            subdirs.push((name, number));
            shared.tasks.push(task);
        }
        shared.tasks.extend(found.parts);
        shared.links.extend(found.links);
        shared.seen += found.files.len() as u64;
        shared.stats.add(&found.stats);
        if let Some(dir) = shared.dirs.get_mut(found.number) {
            dir.entries.extend(found.entries);
            dir.subdirs.extend(subdirs);
            dir.files.extend(found.files);
        }
    }

    fn run(&self, task: Task, worker: &mut Worker) -> Result<()> {
        match task {
            Task::Part { here, names } => self.names(&here, names, worker),
            Task::Dir { parent, name, number, state, block } => {
                let path: Arc<[u8]> = match self.lock().dirs.get(number) {
                    Some(dir) => dir.path.as_slice().into(),
                    None => return Ok(()),
                };
                worker.found.number = number;
                let fd = match openat(&parent, &*name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) => {
                        // Gone since it was listed: without entries and not included, it is left out.
                        if let Some(dir) = self.lock().dirs.get_mut(number) {
                            dir.included = false;
                        }
                        return Ok(());
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => {
                        return Err(StoreError::ChangedWhileRead { path: self.full(&path) });
                    }
                    Err(e) => return Err(StoreError::sys("open", self.full(&path))(e)),
                };
                let stat = fstat(&fd).map_err(|e| StoreError::sys("inspect", self.full(&path))(e))?;
                let meta = self.meta(&stat);
                if let Some(dir) = self.lock().dirs.get_mut(number) {
                    dir.meta = meta;
                }
                worker.found.stats.dirs += 1;
                self.read_dir(Here { fd: Arc::new(fd), number, path, state, block }, worker)
            }
        }
    }

    /// Lists a directory, and looks at its names, or leaves that to further tasks if they are many.
    fn read_dir(&self, here: Here, worker: &mut Worker) -> Result<()> {
        let mut names: Vec<Name> = Vec::new();
        let mut entries = RawDir::new(&here.fd, &mut worker.entries);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| StoreError::sys("list", self.full(&here.path))(e))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((Arc::from(name), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if names.len() <= 2 * PART {
            return self.names(&here, names, worker);
        }
        worker.found.number = here.number;
        for names in names.chunks(PART) {
            worker.found.parts.push(Task::Part { here: here.clone(), names: names.to_vec() });
        }
        Ok(())
    }

    fn names(&self, here: &Here, names: Vec<Name>, worker: &mut Worker) -> Result<()> {
        worker.found.number = here.number;
        let mut cursor = self.cache.cursor(here.block);
        for (name, kind) in names {
            self.name(here, name, kind, &mut cursor, worker)?;
        }
        Ok(())
    }

    fn name(
        &self,
        here: &Here,
        name: Arc<[u8]>,
        mut kind: FileType,
        cursor: &mut Cursor<'_>,
        worker: &mut Worker,
    ) -> Result<()> {
        let full = || self.full(&join(&here.path, &name));
        let mut stat = None;
        if kind == FileType::Unknown {
            let Some(found) = self.stat(here, &name)? else { return Ok(()) };
            kind = FileType::from_raw_mode(found.st_mode);
            stat = Some(found);
        }
        let is_dir = kind == FileType::Directory;
        let (verdict, state) = if self.all {
            (Verdict::Include, None)
        } else {
            worker.path.clear();
            worker.path.extend_from_slice(&here.path);
            if !here.path.is_empty() {
                worker.path.push(b'/');
            }
            worker.path.extend_from_slice(&name);
            self.filter.verdict(&worker.path, is_dir, &here.state)
        };
        let found = &mut worker.found;
        if verdict == Verdict::Exclude || (!is_dir && verdict != Verdict::Include) {
            found.stats.excluded += 1;
            return Ok(());
        }
        if is_dir {
            let block = match cursor.find(&name) {
                Some(Known::Dir(block)) => Some(block),
                _ => None,
            };
            let task = Task::Dir { parent: here.fd.clone(), name: name.clone(), number: 0, state, block };
            found.tasks.push((name, task, verdict == Verdict::Include));
            return Ok(());
        }
        let stat = match stat {
            Some(stat) => stat,
            None => match self.stat(here, &name)? {
                Some(stat) => stat,
                None => return Ok(()),
            },
        };
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match self.file(here, &name, stat, cursor, worker)? {
                Some(file) => Node::File(file),
                None => return Ok(()),
            },
            FileType::Symlink => match readlinkat(&here.fd, &*name, Vec::new()) {
                Ok(target) => {
                    let meta = Meta { mode: 0o777, ..self.meta(&stat) };
                    Node::Symlink(Symlink { meta, target: target.to_bytes().into() })
                }
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                Err(e) => return Err(StoreError::sys("read", full())(e)),
            },
            FileType::Fifo => self.special(&stat, SpecialKind::Fifo),
            FileType::CharacterDevice => self.special(&stat, SpecialKind::Char),
            FileType::BlockDevice => self.special(&stat, SpecialKind::Block),
            // BuildKit's transfer of a context takes the type away and finds nothing to read.
            FileType::Socket => {
                worker.found.stats.files += 1;
                Node::File(File { meta: self.meta(&stat), size: 0, content: ContentDigest::of(b""), link: None })
            }
            // Became a directory since it was listed.
            _ => return Err(StoreError::ChangedWhileRead { path: full() }),
        };
        worker.found.entries.push((name, node));
        Ok(())
    }

    /// Metadata of a name; `None` if it is gone.
    fn stat(&self, here: &Here, name: &[u8]) -> Result<Option<Stat>> {
        match statat(&here.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(StoreError::sys("inspect", self.full(&join(&here.path, name)))(e)),
        }
    }

    fn file(
        &self,
        here: &Here,
        name: &Arc<[u8]>,
        mut stat: Stat,
        cursor: &mut Cursor<'_>,
        worker: &mut Worker,
    ) -> Result<Option<File>> {
        let mut seen = Fingerprint::of(&stat);
        let (content, racy) = match cursor.find(name) {
            Some(Known::File { seen: before, digest, racy: false }) if before == seen => (digest, false),
            _ => {
                let full = || self.full(&join(&here.path, name));
                let hashed = hash(here.fd.as_fd(), name, stat, self.granularity, &mut worker.buffer, &full)?;
                let Some(hashed) = hashed else { return Ok(None) };
                if let Some(bytes) = hashed.held.and_then(|held| worker.buffer.get(..held)) {
                    worker.kept.keep(&hashed.digest, bytes, &self.room);
                }
                stat = hashed.stat;
                seen = Fingerprint::of(&stat);
                worker.found.stats.hashed += 1;
                worker.found.stats.hashed_bytes += seen.size;
                (hashed.digest, hashed.racy)
            }
        };
        let found = &mut worker.found;
        found.stats.files += 1;
        found.stats.bytes += seen.size;
        if stat.st_nlink > 1 {
            let file = (seen.device, seen.inode);
            found.links.push(LinkSeen { file, dir: here.number, name: name.clone(), content });
        }
        let known = Known::File { seen, digest: content, racy };
        found.files.push(FileSeen { name: name.clone(), known });
        Ok(Some(File { meta: self.meta(&stat), size: seen.size, content, link: None }))
    }

    fn special(&self, stat: &Stat, kind: SpecialKind) -> Node {
        let rdev = if kind == SpecialKind::Fifo { (0, 0) } else { (major(stat.st_rdev), minor(stat.st_rdev)) };
        Node::Special(Special { meta: self.meta(stat), kind, rdev })
    }

    fn meta(&self, stat: &Stat) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let mtime = Mtime::ambient(stat.st_mtime, stat.st_mtime_nsec as u32);
        Meta { mode: stat.st_mode & 0o7777, uid, gid, mtime, xattrs: None }
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
