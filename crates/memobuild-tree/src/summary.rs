//! What is true of all files of a directory at once, so that nobody need walk through it to know.

use crate::node::{Dir, Meta, Node};

/// Facts about a directory and all below it. Kept with its digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Whether any file belongs to a group of hard links.
    pub links: bool,
    /// Length in bytes of the largest file.
    pub largest: u64,
    /// Of all that is no directory.
    pub leaves: Marks,
    /// Of all directories, this one included.
    pub dirs: Marks,
}

/// What metadata are seldom without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Whether any has extended attributes.
    pub xattrs: bool,
    /// The highest user or group id.
    pub highest_id: u32,
}

impl Marks {
    /// Those of one node.
    pub fn of(meta: &Meta) -> Self {
        Self { xattrs: meta.xattrs.is_some(), highest_id: meta.uid.max(meta.gid) }
    }

    fn add(&mut self, other: Self) {
        self.xattrs |= other.xattrs;
        self.highest_id = self.highest_id.max(other.highest_id);
    }
}

impl Summary {
    pub(crate) fn of(dir: &Dir) -> Self {
        let mut out = Self { dirs: Marks::of(dir.meta()), ..Self::default() };
        for node in dir.entries().values() {
            match node {
                Node::Dir(dir) => {
                    let below = dir.summary();
                    out.links |= below.links;
                    out.largest = out.largest.max(below.largest);
                    out.leaves.add(below.leaves);
                    out.dirs.add(below.dirs);
                }
                Node::File(file) => {
                    out.links |= file.link.is_some();
                    out.largest = out.largest.max(file.size);
                    out.leaves.add(Marks::of(&file.meta));
                }
                node => out.leaves.add(Marks::of(node.meta())),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContentDigest, File, Mtime, Tree};

    #[test]
    fn a_summary_follows_changes_below() {
        let meta = |mode| Meta::new(mode, Mtime::default());
        let file = |size, change: &dyn Fn(&mut Meta)| {
            let mut meta = meta(0o644);
            change(&mut meta);
            Node::File(File { meta, size, content: ContentDigest::of(b""), link: None })
        };
        let mut tree = Tree::default();
        tree.put(b"/a/b/small", file(5, &|_| {}), &|| meta(0o755));
        assert_eq!(tree.root().summary(), Summary { largest: 5, ..Summary::default() });
        tree.put(b"/a/c/owned", file(9, &|m| m.gid = 7), &|| meta(0o755));
        tree.put(b"/a/b/marked", file(1, &|m| m.set_xattr(b"user.x", b"1")), &|| Meta { uid: 3, ..meta(0o755) });
        let leaves = Marks { xattrs: true, highest_id: 7 };
        assert_eq!(tree.root().summary(), Summary { largest: 9, leaves, ..Summary::default() });
        tree.put(b"/d/e", file(1, &|_| {}), &|| Meta { uid: 3, ..meta(0o755) });
        assert_eq!(tree.root().summary().dirs, Marks { xattrs: false, highest_id: 3 });
        tree.remove(b"/a/c/owned");
        tree.remove(b"/d");
        let leaves = Marks { xattrs: true, highest_id: 0 };
        assert_eq!(tree.root().summary(), Summary { largest: 5, leaves, ..Summary::default() });
    }
}
