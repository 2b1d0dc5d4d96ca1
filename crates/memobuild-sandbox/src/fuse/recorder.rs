//! Hears of everything that a step looks at in the trees served to it.
//!
//! For now it counts. Facts (which path, seen how, with what value) are made here later: every call that they need is
//! in place, with the node that was looked at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobuild_tree::Node;

use crate::step::Looked;

/// Where a look-up happened: the number of the served tree (0 is the step's root) and the server's node number, from
/// which the path can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tree: u32,
    pub(crate) node: u64,
}

/// What is told about a step's look-ups. Called from the server's threads.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    lookups: AtomicU64,
    absent: AtomicU64,
    reads: AtomicU64,
    listings: AtomicU64,
    unsure: AtomicBool,
}

impl Recorder {
    /// A name was looked up in a directory: what stands there, or nothing.
    pub(crate) fn looked_up(&self, parent: Place, name: &[u8], found: Option<&Node>) {
        let _ = (parent, name);
        let counter = if found.is_some() { &self.lookups } else { &self.absent };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A link's target was read.
    pub(crate) fn followed(&self, link: Place) {
        let _ = link;
    }

    /// A file's bytes were read.
    pub(crate) fn read(&self, file: Place) {
        let _ = file;
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// A directory was listed.
    pub(crate) fn listed(&self, dir: Place) {
        let _ = dir;
        self.listings.fetch_add(1, Ordering::Relaxed);
    }

    /// An extended attribute was asked for.
    pub(crate) fn attribute(&self, node: Place, name: &[u8]) {
        let _ = (node, name);
    }

    /// Something happened that the records do not cover.
    pub(crate) fn unsure(&self) {
        self.unsure.store(true, Ordering::Relaxed);
    }

    /// Whether the records cover all that the step saw.
    pub(crate) fn complete(&self) -> bool {
        !self.unsure.load(Ordering::Relaxed)
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
