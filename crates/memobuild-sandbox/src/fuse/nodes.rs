//! The table of nodes that the kernel knows: numbers, attributes, owners as the step sees them.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{FileAttr, FileType, INodeNo};
use memobuild_tree::{LinkId, Meta, Node, SpecialKind, Tree};

use super::{
    recorder::Place,
    sides::{Division, Side},
};

/// A tree to serve.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// The tree.
    pub(crate) tree: Tree,
    /// Whether it is the lower side of an overlay that reads large blobs natively.
    pub(crate) native: bool,
    /// How it is divided, if it is served on both sides. Others are served whole on the rich one.
    pub(crate) division: Option<Division>,
}

/// How owners look inside of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerView {
    /// As they are, up to ids below the limit; what lies above cannot be mapped and shows as root's.
    Below(u32),
    /// Everything is root's.
    Root,
}

impl OwnerView {
    /// What the step sees, and whether that is the truth.
    pub(crate) fn show(self, uid: u32, gid: u32) -> ((u32, u32), bool) {
        let shown = match self {
            Self::Below(limit) => {
                let show = |id| if id < limit { id } else { 0 };
                (show(uid), show(gid))
            }
            Self::Root => (0, 0),
        };
        (shown, shown == (uid, gid))
    }
}

/// A node that the kernel has a number for.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) node: Node,
    pub(super) tree: u32,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) number: u64,
    /// Whether it was looked up under this name.
    pub(super) looked_up: bool,
}

/// The names of a directory that have numbers. Asked for each name that a step looks at or lists.
pub(super) type Children = HashMap<Arc<[u8]>, Child, foldhash::fast::RandomState>;

/// All nodes known so far. Numbers start at 1, the root above all exported trees.
#[derive(Debug)]
pub(super) struct Nodes {
    exports: Vec<Export>,
    owners: OwnerView,
    known: Vec<Known>,
    /// Of each directory the children that have numbers.
    children: HashMap<u64, Children, foldhash::fast::RandomState>,
    by_link: HashMap<(u32, LinkId), u64>,
    link_counts: Vec<OnceLock<HashMap<LinkId, u32>>>,
    started: SystemTime,
}

const ROOT: u64 = 1;

impl Nodes {
    pub(super) fn new(exports: Vec<Export>, owners: OwnerView) -> Self {
        let root = Known { node: Node::Dir(Tree::default().root().clone()), tree: u32::MAX };
        let link_counts = exports.iter().map(|_| OnceLock::new()).collect();
        Self {
            exports,
            owners,
            known: vec![root],
            children: HashMap::default(),
            by_link: HashMap::new(),
            link_counts,
            started: SystemTime::now(),
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Known> {
        self.known.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(super) fn place(&self, number: u64) -> Place {
        Place { tree: self.get(number).map_or(u32::MAX, |k| k.tree), node: number }
    }

    /// Whether this is the directory above all exported trees.
    pub(super) fn is_top(number: u64) -> bool {
        number == ROOT
    }

    pub(super) fn native(&self, tree: u32) -> bool {
        self.exports.get(tree as usize).is_some_and(|e| e.native)
    }

    /// A child; `None` if there is none. Children of the top are the exported trees, by number.
    pub(super) fn child(&mut self, parent: u64, name: &[u8]) -> Option<&mut Child> {
        // Found twice, since what is returned in one branch would stay borrowed in the other.
        if !self.children.get(&parent).is_some_and(|children| children.contains_key(name)) {
            let (name, node, tree) = if parent == ROOT {
                let tree: u32 = std::str::from_utf8(name).ok()?.parse().ok()?;
                let export = self.exports.get(tree as usize)?;
                (name.into(), Node::Dir(export.tree.root().clone()), tree)
            } else {
                let parent = self.get(parent)?;
                let (name, node) = parent.node.as_dir()?.entries().get_key_value(name)?;
                (name.clone(), node.clone(), parent.tree)
            };
            let number = self.number(node, tree);
            self.children.entry(parent).or_default().insert(name, Child { number, looked_up: false });
        }
        self.children.get_mut(&parent)?.get_mut(name)
    }

    /// The children of a directory, taken out to be listed: see [`Nodes::list`].
    pub(super) fn children(&mut self, parent: u64) -> Children {
        self.children.remove(&parent).unwrap_or_default()
    }

    /// Puts them back.
    pub(super) fn keep_children(&mut self, parent: u64, children: Children) {
        self.children.insert(parent, children);
    }

    /// An entry of a directory of a tree whose children were taken out.
    pub(super) fn list<'a>(
        &mut self,
        children: &'a mut Children,
        tree: u32,
        name: &Arc<[u8]>,
        node: &Node,
    ) -> &'a mut Child {
        let number = || Child { number: self.number(node.clone(), tree), looked_up: false };
        children.entry(name.clone()).or_insert_with(number)
    }

    /// A number for a node; names of one file share theirs.
    fn number(&mut self, node: Node, tree: u32) -> u64 {
        let link = match &node {
            Node::File(file) => file.link.map(|link| (tree, link)),
            _ => None,
        };
        if let Some(number) = link.and_then(|link| self.by_link.get(&link)) {
            return *number;
        }
        self.known.push(Known { node, tree });
        let number = self.known.len() as u64;
        if let Some(link) = link {
            self.by_link.insert(link, number);
        }
        number
    }

    /// Whether a tree's root is to be found on a side.
    pub(super) fn has_root(&self, side: Side, tree: u32) -> bool {
        side == Side::Rich || self.division(tree).is_some()
    }

    /// Whether a node below a tree's root is to be found on a side.
    pub(super) fn is_on(&self, side: Side, tree: u32, node: &Node) -> bool {
        match (self.division(tree), side) {
            (None, side) => side == Side::Rich,
            (Some(division), Side::Rich) => division.is_rich(node),
            (Some(division), Side::Plain) => node.as_dir().is_some() || !division.is_rich(node),
        }
    }

    /// How a tree is divided, if it is.
    pub(super) fn division(&self, tree: u32) -> Option<Division> {
        self.exports.get(tree as usize)?.division
    }

    /// How many names a file has in its tree. Counted once, when the first file of a group is looked at.
    fn names(&self, tree: u32, link: LinkId) -> u32 {
        let (Some(cell), Some(export)) = (self.link_counts.get(tree as usize), self.exports.get(tree as usize)) else {
            return 1;
        };
        let counts = cell.get_or_init(|| {
            let mut counts = HashMap::new();
            for entry in export.tree.walk() {
                if let Node::File(memobuild_tree::File { link: Some(link), .. }) = entry.node {
                    *counts.entry(*link).or_insert(0) += 1;
                }
            }
            counts
        });
        counts.get(&link).copied().unwrap_or(1)
    }

    pub(super) fn shown_owner(&self, meta: &Meta) -> ((u32, u32), bool) {
        self.owners.show(meta.uid, meta.gid)
    }

    pub(super) fn attr(&self, number: u64) -> Option<FileAttr> {
        let known = self.get(number)?;
        let meta = known.node.meta();
        let ((uid, gid), _) = self.shown_owner(meta);
        let (kind, size, nlink, rdev) = match &known.node {
            Node::Dir(_) => (FileType::Directory, 4096, 2, 0),
            Node::File(file) => {
                let names = file.link.map_or(1, |link| self.names(known.tree, link));
                (FileType::RegularFile, file.size, names, 0)
            }
            Node::Symlink(link) => (FileType::Symlink, link.target.len() as u64, 1, 0),
            Node::Special(special) => {
                let kind = match special.kind {
                    SpecialKind::Fifo => FileType::NamedPipe,
                    SpecialKind::Char => FileType::CharDevice,
                    SpecialKind::Block => FileType::BlockDevice,
                };
                (kind, 0, 1, encode_device(special.rdev))
            }
        };
        let time = if Self::is_top(number) { self.started } else { system_time(meta) };
        Some(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: (meta.mode & 0o7777) as u16,
            nlink,
            uid,
            gid,
            rdev,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn system_time(meta: &Meta) -> SystemTime {
    let seconds = Duration::from_secs(meta.mtime.secs.unsigned_abs());
    let whole = if meta.mtime.secs < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(meta.mtime.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// FUSE's 32-bit device numbers (the kernel's `new_encode_dev`).
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_that_cannot_be_mapped_show_as_root() {
        assert_eq!(OwnerView::Root.show(7, 8), ((0, 0), false));
        assert_eq!(OwnerView::Below(65536).show(7, 8), ((7, 8), true));
        assert_eq!(OwnerView::Below(65536).show(7, 65536), ((7, 0), false));
        assert_eq!(OwnerView::Below(u32::MAX).show(3_000_000_000, 1), ((3_000_000_000, 1), true));
    }

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(encode_device((8, 1)), 0x801);
        assert_eq!(encode_device((259, 0x12345)), 0x45 | 259 << 8 | 0x12300 << 12);
    }
}
