//! Hears of everything that a step looks at in the trees served to it, and keeps it as looks by path.
//!
//! Each name is looked up once: the kernel remembers what it was told, absent names included. So recording starts with
//! the mount, before the step's command; what set-up looks at counts as well, since the command would not ask again.
//! Where the records might not cover all that was seen, they say so ([`Recorder::complete`]).
//!
//! While the step runs a look-up is only noted down, which it waits for; paths are made of the notes at the end.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
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
    notes: Mutex<Notes>,
    lookups: AtomicU64,
    absent: AtomicU64,
    reads: AtomicU64,
    listings: AtomicU64,
    unsure: AtomicBool,
}

#[derive(Debug, Default)]
struct Notes {
    /// Roots of trees that were entered.
    roots: Vec<Place>,
    /// Look-ups, in order.
    lookups: Vec<LookUp>,
    /// The names that were looked up, one after another.
    names: Vec<u8>,
    /// Nodes that have a path, by number.
    known: Vec<bool>,
    /// Looks at nodes that were looked up before.
    marks: HashMap<u64, Look>,
}

#[derive(Debug)]
struct LookUp {
    parent: Place,
    /// Where its name ends; it begins where that of the look-up before ends.
    end: usize,
    /// What was found.
    node: Option<u64>,
}

impl Notes {
    fn is_known(&self, node: u64) -> bool {
        usize::try_from(node).is_ok_and(|node| self.known.get(node).copied().unwrap_or_default())
    }

    fn make_known(&mut self, node: u64) {
        let Ok(node) = usize::try_from(node) else { return };
        if self.known.len() <= node {
            self.known.resize(node + 1, false);
        }
        if let Some(known) = self.known.get_mut(node) {
            *known = true;
        }
    }

    /// Adds a look at a node; false if it has no path.
    fn mark(&mut self, node: u64, look: Look) -> bool {
        let mark = self.marks.entry(node).or_default();
        *mark = mark.with(look);
        self.is_known(node)
    }

    /// The looks at each of so many trees.
    fn looks(&self, trees: usize) -> Vec<Looks> {
        let mut all: Vec<Vec<(Box<[u8]>, Look)>> = Vec::new();
        all.resize_with(trees, Vec::new);
        let mut add = |tree: u32, path: &[u8], node: Option<u64>| {
            let mark = node.and_then(|node| self.marks.get(&node)).copied().unwrap_or_default();
            if let Some(looks) = all.get_mut(tree as usize) {
                looks.push((path.into(), Look::NODE.with(mark)));
            }
        };
        // The first path by which a node was reached; all that matters of a directory, which has only one.
        let mut paths: HashMap<u64, Box<[u8]>> = HashMap::new();
        for root in &self.roots {
            add(root.tree, b"/", Some(root.node));
            paths.insert(root.node, b"/".as_slice().into());
        }
        let mut begin = 0;
        for LookUp { parent, end, node } in &self.lookups {
            let name = self.names.get(begin..*end).unwrap_or_default();
            begin = *end;
            let above = paths.get(&parent.node).map(|path| &**path).unwrap_or_default();
            let path = match above {
                b"/" => [b"/", name].concat(),
                above => [above, b"/", name].concat(),
            };
            add(parent.tree, &path, *node);
            if let Some(node) = node {
                paths.entry(*node).or_insert_with(|| path.into());
            }
        }
        all.into_iter().map(Looks::gather).collect()
    }
}

impl Recorder {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A served tree's root was entered.
    pub(crate) fn entered(&self, root: Place) {
        let mut notes = self.notes();
        if !notes.is_known(root.node) {
            notes.make_known(root.node);
            notes.roots.push(root);
        }
    }

    /// A name was looked up in a directory: what stands there, with its number, or nothing.
    pub(crate) fn looked_up(&self, parent: Place, name: &[u8], found: Option<(u64, &Node)>) {
        let counter = if found.is_some() { &self.lookups } else { &self.absent };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut notes = self.notes();
        if !notes.is_known(parent.node) {
            drop(notes);
            return self.unsure();
        }
        notes.names.extend_from_slice(name);
        let end = notes.names.len();
        let node = found.map(|(number, _)| number);
        notes.lookups.push(LookUp { parent, end, node });
        if let Some(node) = node {
            notes.make_known(node);
        }
    }

    /// A file's bytes were read.
    pub(crate) fn read(&self, file: Place) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if !self.notes().mark(file.node, Look::READ) {
            self.unsure();
        }
    }

    /// A directory was listed.
    pub(crate) fn listed(&self, dir: Place) {
        self.listings.fetch_add(1, Ordering::Relaxed);
        if !self.notes().mark(dir.node, Look::LISTED) {
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
        std::mem::take(&mut *self.notes()).looks(trees)
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
    use std::sync::Arc;

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
