//! Trees of past builds, put together again from their records: tables of contents only, no file's bytes.

use std::{cell::RefCell, collections::HashMap};

use memobuild_oci::{image::stored_diff, layer::apply_layer};
use memobuild_store::Store;
use memobuild_tree::{BundleId, Node, Tree, path};

use crate::history::BuildRecord;

/// The trees of one build's steps.
pub(super) struct Trees<'a> {
    store: &'a Store,
    record: &'a BuildRecord,
    /// By the step's number; `None`: it can't be put together any more.
    known: RefCell<HashMap<usize, Option<Tree>>>,
}

impl<'a> Trees<'a> {
    /// Some may be at hand already.
    pub(super) fn new(store: &'a Store, record: &'a BuildRecord, given: &HashMap<usize, Tree>) -> Self {
        let known = given.iter().map(|(number, tree)| (*number, Some(tree.clone()))).collect();
        Self { store, record, known: RefCell::new(known) }
    }

    /// The build.
    pub(super) fn record(&self) -> &'a BuildRecord {
        self.record
    }

    /// The tree that a step yielded. `None` if something of it has been pruned, or was never kept.
    pub(super) fn of(&self, number: usize) -> Option<Tree> {
        // Down to the first that is known, then up again.
        let mut todo = Vec::new();
        let mut at = number;
        let mut tree = loop {
            if let Some(known) = self.known.borrow().get(&at) {
                break known.clone();
            }
            todo.push(at);
            match self.record.step(at)?.parent {
                Some(parent) => at = parent,
                None => break Some(Tree::default()),
            }
        };
        while let Some(at) = todo.pop() {
            tree = tree.and_then(|below| self.after(at, &below));
            self.known.borrow_mut().insert(at, tree.clone());
        }
        tree
    }

    /// The tree after a step. One whose identity is not the recorded one is not what it was.
    fn after(&self, number: usize, below: &Tree) -> Option<Tree> {
        let step = self.record.step(number)?;
        let mut tree = below.clone();
        for layer in &step.layers {
            let own = layer.bundle.and_then(|bundle| self.store.load_bundle(&bundle).ok()?);
            let diff = own.or_else(|| stored_diff(self.store, &layer.diff_id).ok()?)?;
            tree = apply_layer(&tree, &diff).ok()?;
        }
        if let Some(bundle) = &step.bundle {
            tree = self.store.load_bundle(bundle).ok()??.apply(&tree).ok()?;
        }
        (step.identity == Some(tree.identity())).then_some(tree)
    }
}

/// The files that a bundle puts, by path.
pub(super) fn puts(store: &Store, bundle: &BundleId) -> Option<HashMap<Vec<u8>, Node>> {
    Some(puts_of(&*store.load_bundle(bundle).ok()??))
}

/// The files that a change puts, by path.
pub(super) fn puts_of(diff: &memobuild_tree::Diff) -> HashMap<Vec<u8>, Node> {
    let mut out = HashMap::new();
    diff.walk(&mut |path, change| {
        if let memobuild_tree::Change::Put(node) = change {
            out.insert(path.to_vec(), node.clone());
        }
    });
    out
}

/// What became of a path between two builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Became {
    /// It is another.
    Changed,
    /// It was not there.
    New,
    /// It is not there any more.
    Gone,
}

/// What differs between two trees, apart from times of writing: files, links, and directories that are there on one
/// side only, with a slash behind their names.
pub(super) fn differing(old: &Tree, new: &Tree) -> Vec<(Vec<u8>, Became)> {
    let mut out = Vec::new();
    let mut todo = vec![(b"/".to_vec(), old.root().clone(), new.root().clone())];
    while let Some((at, old, new)) = todo.pop() {
        if old.identity() == new.identity() {
            continue;
        }
        let mut say = |name: &[u8], node: &Node, became| {
            let mut path = path::join(&at, name);
            if node.as_dir().is_some() {
                path.push(b'/');
            }
            out.push((path, became));
        };
        for (name, was) in old.entries() {
            match (was, new.get(name)) {
                (_, None) => say(name, was, Became::Gone),
                (Node::Dir(a), Some(Node::Dir(b))) => {
                    if !a.meta().same_identity(b.meta()) {
                        say(name, was, Became::Changed);
                    }
                    todo.push((path::join(&at, name), a.clone(), b.clone()));
                }
                (a, Some(b)) if a.identity() == b.identity() => {}
                (_, Some(b)) => say(name, b, Became::Changed),
            }
        }
        for (name, is) in new.entries().iter().filter(|(name, _)| old.get(name).is_none()) {
            say(name, is, Became::New);
        }
    }
    out.sort();
    out
}
