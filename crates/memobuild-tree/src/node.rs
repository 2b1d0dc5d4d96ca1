//! What stands in a tree: directories, files, links and special files, with their metadata.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::{
    digest::{ContentDigest, FullDigest, LinkId, TreeDigest},
    hash::{ContentHash, KeyHasher},
    summary::Summary,
};

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
    /// Whether it was set on purpose (`touch -d`, `tar x`, `cp -p`): then it is content and counts in identity.
    /// Otherwise it is only the time of writing.
    pub pinned: bool,
}

impl Mtime {
    /// A time that is content.
    pub const fn pinned(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos, pinned: true }
    }

    /// A time that only says when something was written.
    pub const fn ambient(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos, pinned: false }
    }
}

/// Extended attributes by full name (`user.x`, `security.capability`). Shared, since most sets are alike.
pub type Xattrs = Arc<BTreeMap<Box<[u8]>, Box<[u8]>>>;

/// Metadata that every kind of node has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, 0o7777 at most; links have 0o777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes; `None` where there are none (never an empty map).
    pub xattrs: Option<Xattrs>,
}

impl Meta {
    /// Metadata owned by 0:0 with no extended attributes.
    pub fn new(mode: u32, mtime: Mtime) -> Self {
        Self { mode, mtime, ..Self::default() }
    }

    /// Puts an attribute in.
    pub fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        let map = self.xattrs.get_or_insert_with(Xattrs::default);
        Arc::make_mut(map).insert(name.into(), value.into());
    }

    /// Equal but for mtimes that are not content: the equality that identity digests mean.
    pub fn same_identity(&self, other: &Self) -> bool {
        let pinned = |m: &Mtime| m.pinned.then_some((m.secs, m.nanos));
        (self.mode, self.uid, self.gid, pinned(&self.mtime), &self.xattrs)
            == (other.mode, other.uid, other.gid, pinned(&other.mtime), &other.xattrs)
    }

    pub(crate) fn hash(&self, h: &mut KeyHasher, full: bool) {
        h.u64(u64::from(self.mode)).u64(u64::from(self.uid)).u64(u64::from(self.gid));
        if full || self.mtime.pinned {
            h.u64(1 + u64::from(self.mtime.pinned)).value(&self.mtime.secs).value(&self.mtime.nanos);
        } else {
            h.u64(0);
        }
        self.hash_xattrs(h);
    }

    /// Without any time.
    pub(crate) fn hash_untimed(&self, h: &mut KeyHasher) {
        h.u64(u64::from(self.mode)).u64(u64::from(self.uid)).u64(u64::from(self.gid));
        self.hash_xattrs(h);
    }

    fn hash_xattrs(&self, h: &mut KeyHasher) {
        let xattrs = self.xattrs.as_deref();
        h.u64(xattrs.map_or(0, |x| x.len() as u64));
        for (name, value) in xattrs.into_iter().flatten() {
            h.bytes(name).bytes(value);
        }
    }
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Metadata.
    pub meta: Meta,
    /// Length in bytes.
    pub size: u64,
    /// What it holds.
    pub content: ContentDigest,
    /// Set when several paths are this one file.
    pub link: Option<LinkId>,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symlink {
    /// Metadata; the mode is 0o777.
    pub meta: Meta,
    /// Where it points, as written.
    pub target: Box<[u8]>,
}

/// What kind of special file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// A device or named pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    /// Metadata.
    pub meta: Meta,
    /// Its kind.
    pub kind: SpecialKind,
    /// Device number, major and minor; zeros for a pipe.
    pub rdev: (u32, u32),
}

/// A directory: metadata and children by name, in byte order.
#[derive(Debug, Default)]
pub struct Dir {
    meta: Meta,
    entries: BTreeMap<Arc<[u8]>, Node>,
    digests: OnceLock<Digests>,
}

/// What a directory knows of all below it, computed once.
#[derive(Debug, Clone, Copy)]
struct Digests {
    identity: TreeDigest,
    full: FullDigest,
    /// Whether any file below has several names.
    summary: Summary,
}

impl Clone for Dir {
    /// A clone is made in order to be changed, so it starts without the memoised digests.
    fn clone(&self) -> Self {
        Self { meta: self.meta.clone(), entries: self.entries.clone(), digests: OnceLock::new() }
    }
}

impl PartialEq for Dir {
    fn eq(&self, other: &Self) -> bool {
        self.full_digest() == other.full_digest()
    }
}

impl Eq for Dir {}

/// Anything that a name in a tree can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Dir(Arc<Dir>),
    /// A regular file.
    File(File),
    /// A symbolic link.
    Symlink(Symlink),
    /// A device or pipe.
    Special(Special),
}

/// The kind of a node, as a directory listing tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device or pipe.
    Special(SpecialKind),
}

impl Node {
    /// The metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Dir(dir) => dir.meta(),
            Self::File(file) => &file.meta,
            Self::Symlink(link) => &link.meta,
            Self::Special(special) => &special.meta,
        }
    }

    /// The metadata, to change it. A shared directory is cloned first.
    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Dir(dir) => {
                let dir = Arc::make_mut(dir);
                // With a reference count of one make_mut does not clone, so the old digests would stay.
                dir.digests = OnceLock::new();
                &mut dir.meta
            }
            Self::File(file) => &mut file.meta,
            Self::Symlink(link) => &mut link.meta,
            Self::Special(special) => &mut special.meta,
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Dir(_) => Kind::Dir,
            Self::File(_) => Kind::File,
            Self::Symlink(_) => Kind::Symlink,
            Self::Special(special) => Kind::Special(special.kind),
        }
    }

    /// The directory, if it is one.
    pub fn as_dir(&self) -> Option<&Arc<Dir>> {
        match self {
            Self::Dir(dir) => Some(dir),
            _ => None,
        }
    }

    /// The identity digest of this node alone, as if it were a tree: for keys of COPY sources that are single files.
    pub fn identity(&self) -> TreeDigest {
        let mut h = KeyHasher::new("memobuild.node.identity.v1");
        self.hash(&mut h, false);
        TreeDigest::from_bytes(h.finish_bytes())
    }

    fn hash(&self, h: &mut KeyHasher, full: bool) {
        match self {
            Self::Dir(dir) => {
                h.u64(0);
                if full {
                    h.value(&dir.full_digest())
                } else {
                    h.value(&dir.identity())
                };
            }
            Self::File(file) => {
                h.u64(1);
                file.meta.hash(h, full);
                h.u64(file.size).value(&file.content).value(&file.link);
            }
            Self::Symlink(link) => {
                h.u64(2);
                link.meta.hash(h, full);
                h.bytes(&link.target);
            }
            Self::Special(special) => {
                h.u64(3 + special.kind as u64);
                special.meta.hash(h, full);
                h.u64(u64::from(special.rdev.0)).u64(u64::from(special.rdev.1));
            }
        }
    }
}

impl Dir {
    /// An empty directory.
    pub fn new(meta: Meta) -> Self {
        Self { meta, ..Self::default() }
    }

    /// A directory with these children.
    pub fn with_entries(meta: Meta, entries: BTreeMap<Arc<[u8]>, Node>) -> Self {
        Self { meta, entries, digests: OnceLock::new() }
    }

    /// The metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The child of that name.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        self.entries.get(name)
    }

    /// The children in byte order of their names.
    pub fn entries(&self) -> &BTreeMap<Arc<[u8]>, Node> {
        &self.entries
    }

    /// The children, to change them; forgets the digests.
    pub fn entries_mut(&mut self) -> &mut BTreeMap<Arc<[u8]>, Node> {
        self.digests = OnceLock::new();
        &mut self.entries
    }

    /// The metadata, to change it; forgets the digests.
    pub fn set_meta(&mut self, meta: Meta) {
        self.digests = OnceLock::new();
        self.meta = meta;
    }

    /// What keys use: names, kinds, metadata, contents; mtimes only where pinned.
    pub fn identity(&self) -> TreeDigest {
        self.digests().identity
    }

    /// Everything, mtimes included.
    pub fn full_digest(&self) -> FullDigest {
        self.digests().full
    }

    /// What is true of all that is in it and below.
    pub fn summary(&self) -> Summary {
        self.digests().summary
    }

    fn digests(&self) -> Digests {
        *self.digests.get_or_init(|| {
            let digest = |domain: &str, full: bool| {
                let mut h = KeyHasher::new(domain);
                self.meta.hash(&mut h, full);
                h.u64(self.entries.len() as u64);
                for (name, node) in &self.entries {
                    h.bytes(name);
                    node.hash(&mut h, full);
                }
                h.finish_bytes()
            };
            Digests {
                identity: TreeDigest::from_bytes(digest("memobuild.dir.identity.v1", false)),
                full: FullDigest::from_bytes(digest("memobuild.dir.full.v1", true)),
                summary: Summary::of(self),
            }
        })
    }
}

impl ContentHash for LinkIdSource<'_> {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(self.paths.len() as u64);
        for path in self.paths {
            h.bytes(path);
        }
        h.value(&self.content);
    }
}

struct LinkIdSource<'a> {
    paths: &'a [Vec<u8>],
    content: ContentDigest,
}

impl LinkId {
    /// The id of the group of these paths (sorted here) that all are one file of that content.
    pub fn of(paths: &mut [Vec<u8>], content: ContentDigest) -> Self {
        paths.sort();
        let mut h = KeyHasher::new("memobuild.link-group.v1");
        h.value(&LinkIdSource { paths, content });
        Self::from_bytes(h.finish_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mtime: Mtime) -> Node {
        Node::File(File {
            meta: Meta::new(0o644, mtime),
            size: text.len() as u64,
            content: ContentDigest::of(text.as_bytes()),
            link: None,
        })
    }

    fn dir(nodes: Vec<(&str, Node)>) -> Dir {
        let entries = nodes.into_iter().map(|(n, node)| (n.as_bytes().into(), node)).collect();
        Dir::with_entries(Meta::new(0o755, Mtime::default()), entries)
    }

    #[test]
    fn ambient_times_are_no_part_of_identity_but_of_the_whole() {
        let a = dir(vec![("f", file("x", Mtime::ambient(1, 0)))]);
        let b = dir(vec![("f", file("x", Mtime::ambient(2, 0)))]);
        assert_eq!(a.identity(), b.identity());
        assert_ne!(a.full_digest(), b.full_digest());
    }

    #[test]
    fn pinned_times_are_content() {
        let a = dir(vec![("f", file("x", Mtime::pinned(1, 0)))]);
        let b = dir(vec![("f", file("x", Mtime::pinned(2, 0)))]);
        assert_ne!(a.identity(), b.identity());
    }

    #[test]
    fn changing_through_a_sole_reference_forgets_the_digest() {
        let mut node = Node::Dir(Arc::new(dir(vec![])));
        let before = node.identity();
        node.meta_mut().mode = 0o700;
        assert_ne!(before, node.identity());
        assert_ne!(node.as_dir().map(|d| d.identity()), Some(dir(vec![]).identity()));
    }
}
