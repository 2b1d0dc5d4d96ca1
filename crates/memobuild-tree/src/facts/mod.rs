//! Facts: what a step was seen to depend on.
//!
//! A fact is a path, how it was looked at ([`Look`]), and what was found there. Paths and looks alone are a [`PathSet`];
//! the values of a path set in given trees make a *strong key* ([`Observed::strong_key`]): a result recorded under it
//! holds for every tree that gives the same key. Values are told from the trees in memory, never from files.
//!
//! | look | what is found there | who looks so |
//! |---|---|---|
//! | `NODE` | absent; or all of the node but for mtimes of writing: of a file its content, mode, owner, attributes, hard links; of a directory mode, owner, attributes | a step, by any look-up |
//! | `LISTED` | sorted names and kinds of a directory, and its mtime where that was set on purpose | a step |
//! | `KIND` | absent or kind; of a link its target | memobuild itself, on its way to a destination |
//! | `OWNED` | kind, mode, owner; of a link its target | a step under `stat=kind`, for files that it did not read |
//! | `WHOLE` | identity of all that is there and below | memobuild itself, unpacking an archive over it |
//!
//! `READ` marks files whose bytes were read: for explanations, never for matching.

mod apply;
mod codec;
mod compare;
mod observe;

pub use apply::cover;
pub use compare::{Broken, BrokenHow, compare};
pub use observe::{Glance, Observed};

use std::collections::BTreeMap;

use crate::{
    digest::PathSetDigest,
    hash::{ContentHash, KeyHasher},
};

/// How a path was looked at: a set of the kinds in the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Look(u8);

impl Look {
    /// The node itself.
    pub const NODE: Self = Self(1);
    /// The names in a directory.
    pub const LISTED: Self = Self(2);
    /// The kind of what is there.
    pub const KIND: Self = Self(4);
    /// Kind, mode and owner.
    pub const OWNED: Self = Self(8);
    /// Everything there and below.
    pub const WHOLE: Self = Self(16);
    /// The bytes of a file: no fact of its own, `NODE` holds the content.
    pub const READ: Self = Self(128);

    /// Whether all kinds of `other` are in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This without the kinds of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What counts in matching, without what a stronger look holds already.
    fn fact(self) -> Self {
        let mut look = self.without(Self::READ);
        if look.has(Self::WHOLE) {
            return Self::WHOLE;
        }
        if look.has(Self::NODE) {
            look = look.without(Self::OWNED);
        }
        if look.has(Self::NODE) || look.has(Self::OWNED) {
            look = look.without(Self::KIND);
        }
        look
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Looks gathered at one tree, by absolute clean path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looks(BTreeMap<Box<[u8]>, Look>);

impl Looks {
    /// Adds a look.
    pub fn add(&mut self, path: &[u8], look: Look) {
        match self.0.get_mut(path) {
            Some(known) => *known = known.with(look),
            None => {
                self.0.insert(path.into(), look);
            }
        }
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(path, look)| self.add(path, look));
    }

    /// How a path was looked at.
    pub fn get(&self, path: &[u8]) -> Look {
        self.0.get(path).copied().unwrap_or_default()
    }

    /// All paths in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Look)> {
        self.0.iter().map(|(path, look)| (&**path, *look))
    }

    /// Keeps the looks for which this says so.
    pub fn retain(&mut self, keep: impl Fn(&[u8], &mut Look) -> bool) {
        self.0.retain(|path, look| keep(path, look));
    }

    /// How many paths.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which paths of which trees are looked at, and how: without what was found there. The first tree is the step's root,
/// the others are what it mounts, in order.
///
/// Invariant: paths rise strictly, and looks hold nothing that does not count in matching.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathSet {
    trees: Vec<Vec<(Box<[u8]>, Look)>>,
}

impl PathSet {
    /// The path set of these looks.
    pub fn of(looks: &[Looks]) -> Self {
        let one = |looks: &Looks| {
            let facts = looks.iter().map(|(path, look)| (path.into(), look.fact()));
            facts.filter(|(_, look)| !look.is_empty()).collect()
        };
        Self { trees: looks.iter().map(one).collect() }
    }

    /// Of each tree the paths in byte order.
    pub fn trees(&self) -> impl Iterator<Item = &[(Box<[u8]>, Look)]> {
        self.trees.iter().map(Vec::as_slice)
    }

    /// How many paths in all.
    pub fn len(&self) -> usize {
        self.trees.iter().map(Vec::len).sum()
    }

    /// Whether nothing is looked at: what has no facts holds for any tree.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of this path set.
    pub fn digest(&self) -> PathSetDigest {
        let mut h = KeyHasher::new("memobuild.path-set.v1");
        h.value(self);
        PathSetDigest::from_bytes(h.finish_bytes())
    }
}

impl ContentHash for PathSet {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(self.trees.len() as u64);
        for tree in &self.trees {
            h.u64(tree.len() as u64);
            for (path, look) in tree {
                h.bytes(path).u64(u64::from(look.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_set_holds_no_more_than_counts() {
        let mut looks = Looks::default();
        looks.add(b"/b", Look::KIND);
        looks.add(b"/b", Look::NODE.with(Look::READ));
        looks.add(b"/a", Look::LISTED);
        looks.add(b"/c", Look::READ);
        looks.add(b"/d", Look::WHOLE.with(Look::LISTED));
        let set = PathSet::of(&[looks]);
        let all: Vec<_> = set.trees().flatten().map(|(p, l)| (&**p, *l)).collect();
        assert_eq!(all, [(&b"/a"[..], Look::LISTED), (b"/b", Look::NODE), (b"/d", Look::WHOLE)]);
    }

    #[test]
    fn looks_of_another_tree_are_another_set() {
        let mut looks = Looks::default();
        looks.add(b"/b", Look::NODE);
        let none = Looks::default();
        let (a, b) = (PathSet::of(&[looks.clone(), none.clone()]), PathSet::of(&[none, looks]));
        assert_ne!(a.digest(), b.digest());
    }
}
