//! The server's answers.
//!
//! What makes FUSE a good lower side for overlayfs: OPEN and OPENDIR are answered ENOSYS (the kernel then keeps the page
//! cache and asks for uncached pages only), everything lives for ever in the kernel's caches, absent names included.
//! Any failure here (content that cannot be read, a name out of range) stops the step: a program may take EIO for "not
//! there" and go on.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use fuser::{
    Config, Errno, FileHandle, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, Session, SessionACL, WriteFlags,
};
use memobuild_tree::{ContentDigest, File, Node};
use rustix::event::{EventfdFlags, eventfd};

use super::{
    awake::{Alarm, Awake},
    eager::Eagerness,
    nodes::{Export, Known, Nodes, OwnerView},
    recorder::Recorder,
    sides::Side,
};
use crate::{
    contents::{Contents, ReadAt},
    harvest::walk::OWNER_XATTR,
};

/// Trees don't change while they are served.
const FOREVER: Duration = Duration::from_secs(1_000_000_000);

/// Threads that answer. One would do but for reads that wait for a disk or a network.
const THREADS: usize = 2;

/// Contents kept open between reads.
const OPEN_CONTENTS: usize = 64;

/// Longest attribute value that is served, as the kernel's limit (XATTR_SIZE_MAX).
const MAX_XATTR: usize = 65536;

/// What the serving threads and the thread that runs the step share.
struct Shared {
    nodes: Mutex<Nodes>,
    eagerness: Mutex<Eagerness>,
    open: Mutex<HashMap<ContentDigest, Arc<dyn ReadAt>>>,
    contents: Arc<dyn Contents>,
    recorder: Arc<Recorder>,
    failure: Mutex<Option<String>>,
    ended: AtomicBool,
    /// Readable once something failed or the session ended.
    alarm: OwnedFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn raise(&self) {
        // A full counter means that it is readable already.
        let _ = rustix::io::write(&self.alarm, &1u64.to_ne_bytes());
    }

    /// Notes the first failure and stops the step.
    fn fail(&self, why: String) -> Errno {
        lock(&self.failure).get_or_insert(why);
        self.recorder.unsure();
        self.raise();
        Errno::EIO
    }

    /// For what a read-only file system is never asked.
    fn refuse(&self) -> Errno {
        self.recorder.unsure();
        Errno::EROFS
    }

    fn known(&self, number: INodeNo) -> Result<Known, Errno> {
        let known = lock(&self.nodes).get(number.0).cloned();
        known.ok_or_else(|| self.fail(format!("the kernel asked for node {number:?}, which was never given out")))
    }

    fn reader(&self, digest: &ContentDigest) -> Result<Arc<dyn ReadAt>, Errno> {
        if let Some(reader) = lock(&self.open).get(digest) {
            return Ok(reader.clone());
        }
        let reader = self.contents.open(digest).map_err(|e| self.fail(format!("opening content {digest}: {e}")))?;
        let mut open = lock(&self.open);
        if open.len() >= OPEN_CONTENTS {
            open.clear();
        }
        open.insert(*digest, reader.clone());
        Ok(reader)
    }

    fn read(&self, file: &File, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let wanted = file.size.saturating_sub(offset).min(u64::from(size)) as usize;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let reader = self.reader(&file.content)?;
        let mut buffer = vec![0; wanted];
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match reader.read_at(rest, offset + done as u64) {
                Ok(0) => return Err(self.fail(format!("content {} is shorter than {}", file.content, file.size))),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail(format!("reading content {}: {e}", file.content))),
            }
        }
        Ok(buffer)
    }

    /// The value of an attribute as the step's overlay sees it.
    fn xattr(&self, known: &Known, name: &[u8]) -> Option<Vec<u8>> {
        if let Some(own) = name.strip_prefix(b"user.overlay.") {
            // An image's own must not steer this overlay.
            let (b"metacopy" | b"redirect", Node::File(file)) = (own, &known.node) else { return None };
            if !lock(&self.nodes).native(known.tree) {
                return None;
            }
            let path = self.contents.native(&file.content, file.size)?;
            let redirect = [b"/", path.as_os_str().as_bytes()].concat();
            return Some(if own == b"metacopy" { Vec::new() } else { redirect });
        }
        let meta = known.node.meta();
        if name == OWNER_XATTR {
            let (_, true_owner) = lock(&self.nodes).shown_owner(meta);
            return (!true_owner).then(|| format!("{}:{}", meta.uid, meta.gid).into_bytes());
        }
        let value = meta.xattrs.as_ref()?.get(name)?;
        (value.len() <= MAX_XATTR).then(|| value.to_vec())
    }

    fn xattr_names(&self, known: &Known) -> Vec<u8> {
        let mut list = Vec::new();
        let meta = known.node.meta();
        for name in meta.xattrs.iter().flat_map(|x| x.keys()) {
            if !name.starts_with(b"user.overlay.") && &**name != OWNER_XATTR {
                list.extend_from_slice(name);
                list.push(0);
            }
        }
        if !matches!(known.node, Node::Symlink(_)) && !lock(&self.nodes).shown_owner(meta).1 {
            list.extend_from_slice(OWNER_XATTR);
            list.push(0);
        }
        list
    }
}

fn reply_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

/// One mount's answers.
struct Answers {
    shared: Arc<Shared>,
    side: Side,
    awake: Alarm,
}

impl Answers {
    /// Whether what is asked of this mount is on record: of a tree that both sides serve, the plain one is asked first
    /// and for every name.
    fn records(&self, nodes: &Nodes, tree: u32) -> bool {
        self.side == Side::Plain || nodes.division(tree).is_none()
    }
}

impl Filesystem for Answers {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_NO_EXPORT_SUPPORT;
        for flag in wanted.iter() {
            // Older kernels lack some; all work without.
            let _ = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.awake.asked();
        let (shared, name) = (&self.shared, name.as_bytes());
        let mut nodes = lock(&shared.nodes);
        let top = Nodes::is_top(parent.0);
        let child = nodes.child(parent.0, name).map(|child| *child);
        let place = nodes.place(parent.0);
        let known = child.and_then(|child| nodes.get(child.number));
        let here = known.filter(|known| match top {
            true => nodes.has_root(self.side, known.tree),
            false => nodes.is_on(self.side, known.tree, &known.node),
        });
        let found = child.zip(known).map(|(child, known)| (child.number, &known.node));
        let (is_here, leaf_here) = (here.is_some(), here.is_some_and(|known| known.node.as_dir().is_none()));
        if top {
            if let (Some(child), Some(_)) = (child, here) {
                shared.recorder.entered(nodes.place(child.number));
            }
        } else if leaf_here || self.records(&nodes, place.tree) {
            shared.recorder.looked_up(place, name, found);
            if let Some(child) = nodes.child(parent.0, name) {
                child.looked_up = true;
                lock(&shared.eagerness).looked_up(parent.0);
            }
        }
        match child.filter(|_| is_here).map(|child| nodes.attr(child.number)) {
            Some(Some(attr)) => reply.entry(&FOREVER, &attr, Generation(0)),
            // Node 0 with a long life: the kernel remembers that there is nothing.
            None => match nodes.attr(parent.0) {
                Some(attr) => reply.entry(&FOREVER, &fuser::FileAttr { ino: INodeNo(0), ..attr }, Generation(0)),
                None => reply.error(shared.fail(format!("the kernel looked into unknown node {parent:?}"))),
            },
            Some(None) => reply.error(shared.fail(format!("a child of node {parent:?} was lost"))),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match lock(&self.shared.nodes).attr(number.0) {
            Some(attr) => reply.attr(&FOREVER, &attr),
            None => reply.error(self.shared.fail(format!("the kernel asked for unknown node {number:?}"))),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.shared.known(number).map(|k| k.node) {
            Ok(Node::Symlink(link)) => reply.data(&link.target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.awake.asked();
        let bytes = self.shared.known(number).and_then(|known| match &known.node {
            Node::File(file) => {
                self.shared.recorder.read(lock(&self.shared.nodes).place(number.0));
                self.shared.read(file, offset, size)
            }
            _ => Err(Errno::EISDIR),
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let shared = &self.shared;
        let dir = match shared.known(number).map(|k| k.node) {
            Ok(Node::Dir(dir)) => dir,
            Ok(_) => return reply.error(Errno::ENOTDIR),
            Err(e) => return reply.error(e),
        };
        let mut nodes = lock(&shared.nodes);
        let place = nodes.place(number.0);
        let recorded = !Nodes::is_top(number.0) && self.records(&nodes, place.tree);
        let mut eagerness = lock(&shared.eagerness);
        if recorded {
            eagerness.listing(number.0, offset == 0);
        }
        if offset == 0 && recorded {
            shared.recorder.listed(place);
        }
        let Some(own) = nodes.attr(number.0) else {
            return reply.error(shared.fail(format!("node {number:?} was lost")));
        };
        for (index, name) in [b".".as_slice(), b".."].into_iter().enumerate().skip(offset as usize) {
            let name = OsStr::from_bytes(name);
            if reply.add(number, index as u64 + 1, name, &FOREVER, &own, Generation(0)) {
                return reply.ok();
            }
        }
        let mut children = nodes.children(number.0);
        for (index, (name, node)) in dir.entries().iter().enumerate().skip(offset.saturating_sub(2) as usize) {
            if !nodes.is_on(self.side, place.tree, node) {
                continue;
            }
            let child = nodes.list(&mut children, place.tree, name, node);
            let Some(attr) = nodes.attr(child.number) else { continue };
            // What has no life must be looked up before it is used, and then it is recorded.
            let told = child.looked_up || recorded && eagerness.tells();
            let life = if told { FOREVER } else { Duration::ZERO };
            let at = OsStr::from_bytes(name);
            if reply.add(INodeNo(child.number), index as u64 + 3, at, &life, &attr, Generation(0)) {
                break;
            }
            if told && !child.looked_up {
                child.looked_up = true;
                shared.recorder.looked_up(place, name, Some((child.number, node)));
            }
        }
        nodes.keep_children(number.0, children);
        reply.ok();
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.side == Side::Plain {
            return reply.error(Errno::ENOSYS);
        }
        match self.shared.known(number).map(|known| self.shared.xattr(&known, name.as_bytes())) {
            Ok(Some(value)) => reply_xattr(reply, &value, size),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(e) => reply.error(e),
        }
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        match self.shared.known(number).map(|known| self.shared.xattr_names(&known)) {
            Ok(list) => reply_xattr(reply, &list, size),
            Err(e) => reply.error(e),
        }
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    // What copying a file up asks for, and is answered ENOSYS without harm: `ioctl` (flags of directories), `lseek`
    // (holes of files), `access`, `flush`, `poll`. What follows would change the tree: the mount is read-only, so the
    // kernel never asks for it. Should it do so all the same, the records can't be trusted.

    fn setxattr(
        &self,
        _request: &Request,
        _number: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.shared.refuse());
    }

    fn removexattr(&self, _request: &Request, _number: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.shared.refuse());
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.shared.refuse());
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.shared.refuse());
    }

    fn mkdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        reply.error(self.shared.refuse());
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(self.shared.refuse());
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(self.shared.refuse());
    }
}

/// A running server.
pub(crate) struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    _awake: Awake,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What is served and how.
pub(crate) struct Served {
    /// The trees; number N stands in the mount's root under the name N.
    pub(crate) exports: Vec<Export>,
    /// How owners look.
    pub(crate) owners: OwnerView,
}

impl Server {
    /// Serves on FUSE devices that are mounted already, until they are unmounted.
    pub(crate) fn start(
        devices: Vec<(Side, OwnedFd)>,
        served: Served,
        contents: &Arc<dyn Contents>,
        recorder: &Arc<Recorder>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            nodes: Mutex::new(Nodes::new(served.exports, served.owners)),
            eagerness: Mutex::default(),
            open: Mutex::default(),
            contents: contents.clone(),
            recorder: recorder.clone(),
            failure: Mutex::default(),
            ended: AtomicBool::new(false),
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let awake = Awake::start();
        let mut threads = Vec::new();
        for (side, device) in devices {
            let (shared, alarm) = (shared.clone(), awake.alarm());
            threads.push(std::thread::Builder::new().name("memobuild-fuse".into()).spawn(move || {
                let mut config = Config::default();
                config.n_threads = Some(THREADS);
                let answers = Answers { shared: shared.clone(), side, awake: alarm };
                let session = Session::from_fd(answers, device, SessionACL::All, config);
                let result = session.and_then(Session::run);
                shared.ended.store(true, Ordering::SeqCst);
                shared.raise();
                result
            })?);
        }
        Ok(Self { shared, threads, _awake: awake })
    }

    /// Readable when a failure was noted or the server ended.
    pub(crate) fn alarm(&self) -> BorrowedFd<'_> {
        self.shared.alarm.as_fd()
    }

    /// Why the step must stop, if it must: a failure, or the server's end before the step's.
    pub(crate) fn trouble(&self) -> Option<String> {
        let ended =
            || self.shared.ended.load(Ordering::SeqCst).then(|| "the file server ended before the step".to_owned());
        self.failure().or_else(ended)
    }

    /// A failure that was noted so far. Once all processes of a step have ended, none that comes later can matter to it.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.shared.failure).clone()
    }

    /// Waits for the threads, once the mounts are gone.
    pub(crate) fn join(self) -> Result<(), String> {
        let results: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        if let Some(why) = lock(&self.shared.failure).take() {
            return Err(why);
        }
        for result in results {
            match result {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(e.to_string()),
                Err(_) => return Err("a file server thread panicked".to_owned()),
            }
        }
        Ok(())
    }
}
