//! A step's root is served by two mounts. For every regular file that it finds, overlayfs asks a lower side for extended
//! attributes, one question for each, as if there could be some; only a mount that once answered "I have no such thing"
//! (ENOSYS to GETXATTR) is never asked again. So the files without any attribute, nearly all, are served by a mount of
//! that kind, and a second one below it has the few others: those with attributes of their own, those with an attribute
//! that names their true owner, and large files, which overlayfs reads from the store once it has asked where.
//!
//! Directories that lead to such files are on both sides and merge; their metadata come from the plain side. Where a
//! directory itself needs attributes, all is served by the rich side alone. So are the trees of bind mounts, which no
//! overlay asks for anything.

use std::path::Path;

use memobuild_tree::{Dir, Marks, Node};

use super::nodes::OwnerView;
use crate::contents::Contents;

/// One of the two mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Has no extended attributes.
    Plain,
    /// Has them.
    Rich,
}

impl Side {
    /// Where it is mounted in the step's tmpfs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Rich => "rich",
        }
    }
}

/// How a step's root is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serving<'a> {
    /// On which sides; the upper one first.
    pub(crate) sides: &'static [Side],
    /// How it is divided between two.
    pub(crate) division: Division,
    /// Where overlayfs reads large files from, if it can.
    pub(crate) data: Option<&'a Path>,
}

impl<'a> Serving<'a> {
    /// For a root.
    pub(crate) fn of(root: &Dir, owners: OwnerView, data: Option<&'a Path>, contents: &dyn Contents) -> Self {
        let small = data.map_or(u64::MAX, |_| contents.native_above().max(NATIVE));
        let division = Division { small, owners };
        let sides = division.sides(root);
        Self { sides, division, data: data.filter(|_| sides.contains(&Side::Rich)) }
    }
}

/// Files of at most so many bytes come through FUSE although the store has them by a path of their own: every directory
/// that leads to a file of the rich side is asked for names on both.
const NATIVE: u64 = 1 << 20;

/// How a root is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    /// Files of at most so many bytes are never read from the store.
    pub(crate) small: u64,
    /// How owners look.
    pub(crate) owners: OwnerView,
}

impl Division {
    fn needs(&self, marks: Marks) -> bool {
        marks.xattrs || !self.owners.show(marks.highest_id, marks.highest_id).1
    }

    /// The sides on which a root is served; the upper one first.
    pub(crate) fn sides(&self, root: &Dir) -> &'static [Side] {
        if self.needs(root.summary().dirs) {
            &[Side::Rich]
        } else if self.is_rich_below(root) {
            &[Side::Plain, Side::Rich]
        } else {
            &[Side::Plain]
        }
    }

    /// Whether anything in a directory or below it is on the rich side.
    fn is_rich_below(&self, dir: &Dir) -> bool {
        let summary = dir.summary();
        summary.largest > self.small || self.needs(summary.leaves)
    }

    /// Whether a node of a root that is on both sides is on the rich one.
    pub(crate) fn is_rich(&self, node: &Node) -> bool {
        match node {
            Node::Dir(dir) => self.is_rich_below(dir),
            Node::File(file) => file.size > self.small || self.needs(Marks::of(&file.meta)),
            node => self.needs(Marks::of(node.meta())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::{ContentDigest, File, Meta, Mtime, Tree};

    fn tree(size: u64, change: impl Fn(&mut Meta), dirs: u32) -> Tree {
        let mut tree = Tree::default();
        let mut meta = Meta::new(0o644, Mtime::default());
        change(&mut meta);
        let file = File { meta, size, content: ContentDigest::of(b""), link: None };
        tree.put(b"/d/f", Node::File(file), &|| Meta { gid: dirs, ..Meta::new(0o755, Mtime::default()) });
        tree
    }

    #[test]
    fn what_needs_attributes_is_on_the_rich_side() {
        let both: &[Side] = &[Side::Plain, Side::Rich];
        let all = Division { small: 100, owners: OwnerView::Below(u32::MAX) };
        let one = Division { owners: OwnerView::Root, ..all };
        assert_eq!(all.sides(tree(100, |_| {}, 5).root()), [Side::Plain]);
        assert_eq!(all.sides(tree(101, |_| {}, 5).root()), both);
        assert_eq!(all.sides(tree(1, |m| m.set_xattr(b"user.x", b""), 5).root()), both);
        assert_eq!(all.sides(tree(1, |m| m.uid = 5, 5).root()), [Side::Plain]);
        assert_eq!(one.sides(tree(1, |m| m.uid = 5, 0).root()), both);
        assert_eq!(one.sides(tree(1, |_| {}, 5).root()), [Side::Rich]);
    }
}
