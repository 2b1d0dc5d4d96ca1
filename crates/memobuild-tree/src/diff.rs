//! What a step changed: a sparse tree of removals and puts, with the directories on the way.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    digest::ContentDigest,
    node::{Dir, Meta, Mtime, Node},
    path,
    tree::Tree,
};

/// The changes that one step or layer makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// The changes to the root directory.
    pub root: DirChange,
}

/// Changes to one directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirChange {
    /// New metadata. `None`: the directory is only on the way to a change, and stays as it is found (0755, 0:0 where
    /// it is not found).
    pub meta: Option<Meta>,
    /// Whether everything that stood in it before is gone (an opaque whiteout).
    pub opaque: bool,
    /// Changes to its children.
    pub entries: BTreeMap<Arc<[u8]>, Change>,
}

/// A change to one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What stood there is gone (a whiteout).
    Remove,
    /// A file, link or special file stands there now. Never a directory.
    Put(Node),
    /// The name becomes a further link to the file at that absolute path, which this diff does not itself put.
    /// Layers of other builders can hold such links into lower layers.
    LinkTo(Box<[u8]>),
    /// A directory is made or changed. What stood there is replaced if it is no directory.
    Dir(DirChange),
}

/// A diff that does not fit the tree it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A hard link whose target is not there or is not a file.
    #[error("hard link {} points to {}, which is not a file of the image", path::display(.link), path::display(.target))]
    LinkTarget {
        /// The new name.
        link: Vec<u8>,
        /// The target that lacks.
        target: Vec<u8>,
    },
}

impl DirChange {
    /// A directory with its own metadata.
    pub fn with_meta(meta: Meta) -> Self {
        Self { meta: Some(meta), ..Self::default() }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.meta.is_none() && !self.opaque && self.entries.is_empty()
    }

    /// The directory change at a path below, made (with no metadata) where it lacks. A change of another kind there is
    /// replaced.
    pub fn descend(&mut self, parts: &[&[u8]]) -> &mut Self {
        let mut dir = self;
        for part in parts {
            let change = dir.entries.entry((*part).into()).or_insert_with(|| Change::Dir(Self::default()));
            if !matches!(change, Change::Dir(_)) {
                *change = Change::Dir(Self { meta: None, opaque: true, entries: BTreeMap::new() });
            }
            match change {
                Change::Dir(next) => dir = next,
                _ => unreachable!("made a directory just above"),
            }
        }
        dir
    }

    /// The changes that make a whole directory from nothing.
    pub fn creating(dir: &Dir) -> Self {
        let create = |node: &Node| match node {
            Node::Dir(dir) => Change::Dir(Self::creating(dir)),
            node => Change::Put(node.clone()),
        };
        let entries = dir.entries().iter().map(|(name, node)| (name.clone(), create(node))).collect();
        Self { meta: Some(dir.meta().clone()), opaque: false, entries }
    }
}

impl Diff {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Sets the change at an absolute path, making the directory changes on the way. Nothing happens at `/`.
    pub fn set(&mut self, at: &[u8], change: Change) {
        let parts = path::components(at);
        if let Some((last, parents)) = parts.split_last() {
            self.root.descend(parents).entries.insert((*last).into(), change);
        }
    }

    /// The changes that lead from one tree to the other, times included. Shared subtrees cost nothing.
    pub fn between(old: &Tree, new: &Tree) -> Self {
        Self { root: between(old.root(), new.root()).unwrap_or_default() }
    }

    /// The tree after these changes.
    ///
    /// Invariant: `Diff::between(a, b).apply(a) == b`.
    pub fn apply(&self, tree: &Tree) -> Result<Tree, ApplyError> {
        let mut links = Vec::new();
        let root = apply_dir(&self.root, Some(tree.root()), &mut Vec::new(), &mut links);
        let mut out = Tree::new(Arc::new(root));
        for (link, target) in links {
            match out.get(&target) {
                Some(node @ Node::File(_)) => {
                    let node = join_group(&mut out, node, &link, &target);
                    out.put(&link, node, &default_meta);
                }
                _ => return Err(ApplyError::LinkTarget { link, target }),
            }
        }
        Ok(out)
    }

    /// Whether a file with this content is put anywhere.
    pub fn holds(&self, content: &ContentDigest) -> bool {
        let mut found = false;
        self.walk(&mut |_, change| {
            found |= matches!(change, Change::Put(Node::File(file)) if file.content == *content);
        });
        found
    }

    /// Every change below the root, directories before their children, siblings in byte order, with absolute paths.
    pub fn walk(&self, visit: &mut dyn FnMut(&[u8], &Change)) {
        fn go(dir: &DirChange, at: &mut Vec<u8>, visit: &mut dyn FnMut(&[u8], &Change)) {
            for (name, change) in &dir.entries {
                let length = at.len();
                at.push(b'/');
                at.extend_from_slice(name);
                visit(at, change);
                if let Change::Dir(dir) = change {
                    go(dir, at, visit);
                }
                at.truncate(length);
            }
        }
        go(&self.root, &mut Vec::new(), visit);
    }
}

fn default_meta() -> Meta {
    Meta::new(0o755, Mtime::default())
}

/// Makes `link` and `target` one file. A target that is in no group yet founds one.
fn join_group(tree: &mut Tree, mut node: Node, link: &[u8], target: &[u8]) -> Node {
    if let Node::File(file) = &mut node
        && file.link.is_none()
    {
        file.link = Some(crate::LinkId::of(&mut [link.to_vec(), target.to_vec()], file.content));
        tree.put(target, Node::File(file.clone()), &default_meta);
    }
    node
}

fn apply_dir(change: &DirChange, old: Option<&Arc<Dir>>, at: &mut Vec<u8>, links: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Dir {
    let mut dir = match old {
        Some(old) if !change.opaque => Dir::clone(old),
        Some(old) => Dir::new(old.meta().clone()),
        None => Dir::new(default_meta()),
    };
    if let Some(meta) = &change.meta {
        dir.set_meta(meta.clone());
    }
    let before = old.filter(|_| !change.opaque);
    let entries = dir.entries_mut();
    for (name, change) in &change.entries {
        match change {
            Change::Remove => {
                entries.remove(name);
            }
            Change::Put(node) => {
                entries.insert(name.clone(), node.clone());
            }
            Change::LinkTo(target) => {
                links.push((child(at, name), target.to_vec()));
            }
            Change::Dir(sub) => {
                let length = at.len();
                *at = child(at, name);
                let old = before.and_then(|d| d.get(name)).and_then(Node::as_dir);
                let dir = apply_dir(sub, old, at, links);
                at.truncate(length);
                entries.insert(name.clone(), Node::Dir(Arc::new(dir)));
            }
        }
    }
    dir
}

fn child(at: &[u8], name: &[u8]) -> Vec<u8> {
    [at, b"/", name].concat()
}

/// `None` if the directories are equal.
fn between(old: &Arc<Dir>, new: &Arc<Dir>) -> Option<DirChange> {
    if Arc::ptr_eq(old, new) || old.full_digest() == new.full_digest() {
        return None;
    }
    let mut change = DirChange::default();
    if old.meta() != new.meta() {
        change.meta = Some(new.meta().clone());
    }
    for name in old.entries().keys() {
        if new.get(name).is_none() {
            change.entries.insert(name.clone(), Change::Remove);
        }
    }
    for (name, node) in new.entries() {
        let here = match (old.get(name), node) {
            (Some(Node::Dir(a)), Node::Dir(b)) => between(a, b).map(Change::Dir),
            (_, Node::Dir(b)) => Some(Change::Dir(DirChange::creating(b))),
            (Some(a), b) if a == b => None,
            (_, b) => Some(Change::Put(b.clone())),
        };
        if let Some(here) = here {
            change.entries.insert(name.clone(), here);
        }
    }
    Some(change)
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
