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
mod paths;

pub use apply::cover;
pub use compare::{Broken, BrokenHow, compare};
pub use observe::{Glance, Observed};
pub use paths::{PathSet, Paths};

use std::collections::BTreeMap;

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

    /// Looks in any order, the same path any number of times.
    pub fn gather(mut all: Vec<(Box<[u8]>, Look)>) -> Self {
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|(path, look), (first, known)| {
            let same = path == first;
            if same {
                *known = known.with(*look);
            }
            same
        });
        Self(all.into_iter().collect())
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
