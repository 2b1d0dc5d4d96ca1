//! Hears of everything that a step looks at in the trees served to it, and keeps it as looks by path.
//!
//! Each name is looked up once: the kernel remembers what it was told, absent names included. So recording starts with
//! the mount, before the step's command; what set-up looks at counts as well, since the command would not ask again.
//! Where the records might not cover all that was seen, they say so ([`Recorder::complete`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use memobuild_tree::{
    Node,
    facts::{Look, Looks},
};

use crate::step::Looked;

/// Where a look-up happened: the number of the served tree (0 is the step's root) and the server's node number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tree: u32,
    pub(crate) node: u64,
}

/// What is told about a step's look-ups. Called from the server's threads.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    state: Mutex<State>,
    lookups: AtomicU64,
    absent: AtomicU64,
    reads: AtomicU64,
    listings: AtomicU64,
    unsure: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// One for each served tree.
    looks: Vec<Looks>,
    /// The paths by which each node was reached: one for directories, several for files with several names.
    paths: HashMap<u64, Vec<Arc<[u8]>>>,
}

impl State {
    fn add(&mut self, tree: u32, path: &[u8], look: Look) {
        let tree = tree as usize;
        if self.looks.len() <= tree {
            self.looks.resize_with(tree + 1, Looks::default);
        }
        if let Some(looks) = self.looks.get_mut(tree) {
            looks.add(path, look);
        }
    }

    /// Adds a look at all known paths of a node; false if it has none.
    fn mark(&mut self, place: Place, look: Look) -> bool {
        let Some(paths) = self.paths.get(&place.node).cloned() else { return false };
        paths.iter().for_each(|path| self.add(place.tree, path, look));
        true
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A served tree's root was entered.
    pub(crate) fn entered(&self, root: Place) {
        let mut state = self.state();
        state.paths.insert(root.node, vec![b"/".as_slice().into()]);
        state.add(root.tree, b"/", Look::NODE);
    }

    /// A name was looked up in a directory: what stands there, with its number, or nothing.
    pub(crate) fn looked_up(&self, parent: Place, name: &[u8], found: Option<(u64, &Node)>) {
        let counter = if found.is_some() { &self.lookups } else { &self.absent };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let Some(above) = state.paths.get(&parent.node).and_then(|paths| paths.first()) else {
            drop(state);
            return self.unsure();
        };
        let path = match &**above {
            b"/" => [b"/", name].concat(),
            above => [above, b"/", name].concat(),
        };
        state.add(parent.tree, &path, Look::NODE);
        if let Some((number, _)) = found {
            let known = state.paths.entry(number).or_default();
            if !known.iter().any(|p| **p == *path) {
                known.push(path.into());
            }
        }
    }

    /// A file's bytes were read.
    pub(crate) fn read(&self, file: Place) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if !self.state().mark(file, Look::READ) {
            self.unsure();
        }
    }

    /// A directory was listed.
    pub(crate) fn listed(&self, dir: Place) {
        self.listings.fetch_add(1, Ordering::Relaxed);
        if !self.state().mark(dir, Look::LISTED) {
            self.unsure();
        }
    }

    /// Something happened that the records do not cover.
    pub(crate) fn unsure(&self) {
        self.unsure.store(true, Ordering::Relaxed);
    }

    /// Whether the records cover all that the step saw.
    pub(crate) fn complete(&self) -> bool {
        !self.unsure.load(Ordering::Relaxed)
    }

    /// The looks at each of so many trees, taken out of here.
    pub(crate) fn take(&self, trees: usize) -> Vec<Looks> {
        let mut looks = std::mem::take(&mut self.state().looks);
        looks.resize_with(trees, Looks::default);
        looks
    }

    /// How much was looked at.
    pub(crate) fn looked(&self) -> Looked {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Looked {
            found: get(&self.lookups),
            absent: get(&self.absent),
            reads: get(&self.reads),
            listings: get(&self.listings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::{ContentDigest, File, Meta, Mtime};

    fn file() -> Node {
        let meta = Meta::new(0o644, Mtime::default());
        Node::File(File { meta, size: 1, content: ContentDigest::of(b"x"), link: None })
    }

    #[test]
    fn looks_carry_the_path_by_which_a_node_was_reached() {
        let recorder = Recorder::default();
        let at = |node| Place { tree: 1, node };
        recorder.entered(at(2));
        recorder.looked_up(at(2), b"d", Some((3, &Node::Dir(Arc::default()))));
        recorder.looked_up(at(3), b"one", Some((4, &file())));
        recorder.looked_up(at(2), b"two", Some((4, &file())));
        recorder.looked_up(at(3), b"none", None);
        recorder.read(at(4));
        recorder.listed(at(3));
        assert!(recorder.complete());
        let looks = recorder.take(2);
        assert!(looks[0].is_empty());
        let all: Vec<_> = looks[1].iter().map(|(path, look)| (memobuild_tree::path::display(path), look)).collect();
        let read = Look::NODE.with(Look::READ);
        let of = |path: &str, look| (path.to_owned(), look);
        assert_eq!(
            all,
            [
                of("/", Look::NODE),
                of("/d", Look::NODE.with(Look::LISTED)),
                of("/d/none", Look::NODE),
                of("/d/one", read),
                of("/two", read),
            ]
        );
    }

    #[test]
    fn a_node_that_nobody_looked_up_makes_the_records_incomplete() {
        let unknown = Place { tree: 0, node: 9 };
        for tell in
            [|r: &Recorder, p| r.read(p), |r: &Recorder, p| r.listed(p), |r: &Recorder, p| r.looked_up(p, b"x", None)]
        {
            let recorder = Recorder::default();
            tell(&recorder, unknown);
            assert!(!recorder.complete());
        }
    }
}
