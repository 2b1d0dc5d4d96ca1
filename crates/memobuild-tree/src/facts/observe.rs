//! What stands in trees at the paths of a path set.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
};

use super::{Look, PathSet};
use crate::{
    digest::{KeyDigest, LinkId},
    hash::KeyHasher,
    node::{Dir, File, Kind, Meta, Node, SpecialKind},
    tree::Tree,
};

/// What stands at a path, borrowed from the tree.
#[derive(Debug, Clone, Copy)]
enum Found<'t> {
    Absent,
    Dir(&'t Dir),
    /// Anything but a directory.
    Leaf(&'t Node),
}

/// Trees in which facts are looked up: the step's root and what it mounts, in the order of the path sets' trees.
pub struct Observed<'t> {
    trees: Vec<(&'t Tree, OnceCell<HashMap<LinkId, u32>>)>,
}

/// What was found at one path, shortened: enough to say what is another now, never enough to match by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glance {
    /// 0 absent, 1 directory, 2 file, 3 link, 4 pipe, 5 character device, 6 block device.
    pub(super) kind: u8,
    /// Mode, owner, attributes, times set on purpose.
    pub(super) meta: u32,
    /// Content and hard links of a file, target of a link, number of a device; all of a `WHOLE`.
    pub(super) content: u32,
    /// The names of a directory that was listed.
    pub(super) listing: u32,
}

impl Glance {
    /// Whether nothing was there.
    pub fn is_absent(&self) -> bool {
        self.kind == 0
    }
}

impl<'t> Observed<'t> {
    /// Nothing is computed yet.
    pub fn new(trees: impl IntoIterator<Item = &'t Tree>) -> Self {
        Self { trees: trees.into_iter().map(|tree| (tree, OnceCell::new())).collect() }
    }

    /// The key of a result: what the step is, what it looked at, and what it found there. `None` if the path set is
    /// about other trees than these.
    pub fn strong_key(&self, weak: &KeyDigest, set: &PathSet) -> Option<KeyDigest> {
        let mut h = KeyHasher::new("memobuild.step.strong.v2");
        h.value(weak).value(set);
        self.visit(set, &mut |tree, look, found| self.hash(&mut h, tree, look, found))?;
        Some(h.finish())
    }

    /// Tells of each path of the set where something stands that is no directory: the tree's number, the path, the node.
    /// Nothing if the path set is about other trees than these.
    pub fn leaves(&self, set: &PathSet, visit: &mut dyn FnMut(usize, &[u8], &Node)) {
        if set.tree_count() != self.trees.len() {
            return;
        }
        for (index, (paths, (tree, _))) in set.trees().zip(&self.trees).enumerate() {
            let mut walker = Walker::new(tree.root());
            for (path, _) in paths.iter() {
                if let Found::Leaf(node) = walker.find(path) {
                    visit(index, path, node);
                }
            }
        }
    }

    /// What is found at each path of the set, tree after tree.
    pub fn glances(&self, set: &PathSet) -> Option<Vec<Glance>> {
        let mut out = Vec::with_capacity(set.len());
        self.visit(set, &mut |tree, look, found| out.push(self.glance(tree, look, found)))?;
        Some(out)
    }

    fn visit(&self, set: &PathSet, visit: &mut dyn FnMut(usize, Look, Found<'t>)) -> Option<()> {
        if set.tree_count() != self.trees.len() {
            return None;
        }
        for (index, (paths, (tree, _))) in set.trees().zip(&self.trees).enumerate() {
            let mut walker = Walker::new(tree.root());
            for (path, look) in paths.iter() {
                visit(index, look, walker.find(path));
            }
        }
        Some(())
    }

    fn hash(&self, h: &mut KeyHasher, tree: usize, look: Look, found: Found<'t>) {
        // Each look that counts, in a fixed order; the set itself says which they are.
        if look.has(Look::WHOLE) {
            match found {
                Found::Absent => h.u64(0),
                Found::Dir(dir) => h.u64(1).value(&dir.identity()),
                Found::Leaf(node) => h.u64(2).value(&node.identity()).u64(self.names(tree, node)),
            };
        }
        if look.has(Look::NODE) {
            hash_kind(h, found);
            hash_meta(h, found);
            self.hash_content(h, tree, found);
        }
        if look.has(Look::OWNED) {
            hash_kind(h, found);
            if let Some(meta) = meta_of(found) {
                h.u64(u64::from(meta.mode)).u64(u64::from(meta.uid)).u64(u64::from(meta.gid));
            }
            hash_target(h, found);
        }
        if look.has(Look::KIND) {
            hash_kind(h, found);
            hash_target(h, found);
        }
        if look.has(Look::LISTED) {
            hash_listing(h, found);
        }
    }

    fn hash_content(&self, h: &mut KeyHasher, tree: usize, found: Found<'t>) {
        match found {
            Found::Leaf(node @ Node::File(File { size, content, link, .. })) => {
                h.u64(*size).value(content).value(link).u64(self.names(tree, node));
            }
            Found::Leaf(Node::Special(special)) => {
                h.u64(u64::from(special.rdev.0)).u64(u64::from(special.rdev.1));
            }
            found => hash_target(h, found),
        }
    }

    fn glance(&self, tree: usize, look: Look, found: Found<'t>) -> Glance {
        let short = |feed: &dyn Fn(&mut KeyHasher)| {
            let mut h = KeyHasher::new("memobuild.glance.v1");
            feed(&mut h);
            let bytes = h.finish_bytes();
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let mut glance = Glance { kind: kind_of(found), meta: 0, content: 0, listing: 0 };
        if look.has(Look::WHOLE) {
            glance.content = short(&|h| self.hash(h, tree, Look::WHOLE, found));
        }
        if look.has(Look::NODE) {
            glance.meta = short(&|h| hash_meta(h, found));
            glance.content = short(&|h| self.hash_content(h, tree, found));
        }
        if look.has(Look::OWNED) || look.has(Look::KIND) {
            glance.meta = short(&|h| self.hash(h, tree, look.without(Look::LISTED), found));
        }
        if look.has(Look::LISTED) {
            glance.listing = short(&|h| hash_listing(h, found));
        }
        glance
    }

    /// How many names a file has; 1 for whatever is in no group.
    fn names(&self, tree: usize, node: &Node) -> u64 {
        let Node::File(File { link: Some(link), .. }) = node else { return 1 };
        let Some((tree, census)) = self.trees.get(tree) else { return 1 };
        let census = census.get_or_init(|| {
            let mut counts = HashMap::new();
            count_links(tree.root(), &mut counts);
            counts
        });
        census.get(link).copied().map_or(1, u64::from)
    }
}

/// Counts the names of all files of groups, walking only where there are any.
pub(crate) fn count_links(dir: &Dir, counts: &mut HashMap<LinkId, u32>) {
    if !dir.summary().links {
        return;
    }
    for node in dir.entries().values() {
        match node {
            Node::Dir(dir) => count_links(dir, counts),
            Node::File(File { link: Some(link), .. }) => *counts.entry(*link).or_insert(0) += 1,
            _ => {}
        }
    }
}

fn kind_of(found: Found<'_>) -> u8 {
    match found {
        Found::Absent => 0,
        Found::Dir(_) => 1,
        Found::Leaf(node) => match node.kind() {
            Kind::Dir => 1,
            Kind::File => 2,
            Kind::Symlink => 3,
            Kind::Special(SpecialKind::Fifo) => 4,
            Kind::Special(SpecialKind::Char) => 5,
            Kind::Special(SpecialKind::Block) => 6,
        },
    }
}

fn hash_kind(h: &mut KeyHasher, found: Found<'_>) {
    h.u64(u64::from(kind_of(found)));
}

fn meta_of(found: Found<'_>) -> Option<&Meta> {
    match found {
        Found::Absent => None,
        Found::Dir(dir) => Some(dir.meta()),
        Found::Leaf(node) => Some(node.meta()),
    }
}

/// All that counts of the metadata; of directories no time, since every new name changes it.
fn hash_meta(h: &mut KeyHasher, found: Found<'_>) {
    match found {
        Found::Absent => {}
        Found::Dir(dir) => dir.meta().hash_untimed(h),
        Found::Leaf(node) => node.meta().hash(h, false),
    }
}

fn hash_target(h: &mut KeyHasher, found: Found<'_>) {
    if let Found::Leaf(Node::Symlink(link)) = found {
        h.bytes(&link.target);
    }
}

fn hash_listing(h: &mut KeyHasher, found: Found<'_>) {
    let Found::Dir(dir) = found else {
        h.u64(0);
        return;
    };
    h.u64(1);
    let entries: &BTreeMap<_, _> = dir.entries();
    h.u64(entries.len() as u64);
    for (name, node) in entries {
        let leaf = match node {
            Node::Dir(dir) => Found::Dir(dir),
            node => Found::Leaf(node),
        };
        h.bytes(name).u64(u64::from(kind_of(leaf)));
    }
    // `cp -a` and `tar` list a directory and pass its time on.
    let time = dir.meta().mtime;
    match time.pinned {
        true => h.u64(1).value(&time.secs).value(&time.nanos),
        false => h.u64(0),
    };
}

/// Finds paths that come in byte order, going on from the one before.
struct Walker<'t> {
    /// Directories on the way to the last path, with the length of the path up to each; the root first.
    stack: Vec<(usize, Option<&'t Dir>)>,
    last: Vec<u8>,
}

impl<'t> Walker<'t> {
    fn new(root: &'t Dir) -> Self {
        Self { stack: vec![(0, Some(root))], last: Vec::new() }
    }

    fn find(&mut self, path: &[u8]) -> Found<'t> {
        // As far as both paths share whole components.
        let same = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        let whole = |end: usize| end <= same && matches!(path.get(end), None | Some(b'/'));
        while self.stack.len() > 1 && self.stack.last().is_some_and(|(end, _)| !whole(*end)) {
            self.stack.pop();
        }
        self.last.clear();
        self.last.extend_from_slice(path);
        let (mut end, mut dir) = self.stack.last().copied().unwrap_or((0, None));
        let mut found = dir.map_or(Found::Absent, Found::Dir);
        while let Some(rest) = path.get(end + 1..).filter(|rest| !rest.is_empty()) {
            let name = rest.split(|b| *b == b'/').next().unwrap_or(rest);
            end += 1 + name.len();
            found = match dir.and_then(|d| d.get(name)) {
                None => Found::Absent,
                Some(Node::Dir(dir)) => Found::Dir(dir),
                Some(node) => Found::Leaf(node),
            };
            dir = match found {
                Found::Dir(dir) => Some(dir),
                _ => None,
            };
            self.stack.push((end, dir));
            if dir.is_none() && path.len() > end {
                return Found::Absent;
            }
        }
        found
    }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
