//! A tree under change, with the diff that the changes add up to.

use std::sync::Arc;

use memobuild_tree::{
    Change, Diff, Dir, DirChange, Meta, Mtime, Node, ResolveError, Resolved, Tree,
    facts::{Look, Looks},
    path,
};

/// Applies changes to a tree and notes each in a diff, with what it looked at, so that the diff can be applied to other
/// trees as well.
#[derive(Debug)]
pub(crate) struct Editor {
    tree: Tree,
    diff: Diff,
    looks: Looks,
    /// What everything made here gets as its time.
    now: Mtime,
}

/// What an editor gives.
pub(crate) struct Edited {
    /// The tree after the changes.
    pub(crate) tree: Tree,
    /// The changes.
    pub(crate) diff: Diff,
    /// What they depend on.
    pub(crate) looks: Looks,
}

/// Something is in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("mkdir {}: not a directory", path::display(.0))]
    NotADirectory(Vec<u8>),
}

impl Editor {
    pub(crate) fn new(tree: Tree, now: Mtime) -> Self {
        Self { tree, diff: Diff::default(), looks: Looks::default(), now }
    }

    pub(crate) fn finish(self) -> Edited {
        Edited { tree: self.tree, diff: self.diff, looks: self.looks }
    }

    /// What stands at a path without links. The change may depend on its kind alone; on more of it by [`Editor::rely`].
    pub(crate) fn get(&mut self, at: &[u8]) -> Option<Node> {
        self.looks.add(at, Look::KIND);
        self.tree.get(at)
    }

    /// The change depends on all of a node's metadata.
    pub(crate) fn rely(&mut self, at: &[u8]) {
        // A listing holds the directory's time where that counts.
        self.looks.add(at, Look::NODE.with(Look::LISTED));
    }

    /// The directory at a path without links, of which the change may depend on anything.
    pub(crate) fn whole(&mut self, at: &[u8]) -> Option<Arc<Dir>> {
        self.looks.add(at, Look::WHOLE);
        self.tree.dir(at)
    }

    /// Follows links; see [`Tree::resolve`].
    pub(crate) fn resolve(&mut self, at: &[u8]) -> Result<Resolved, ResolveError> {
        let looks = &mut self.looks;
        self.tree.resolve_seen(at, true, Some(&mut |path| looks.add(path, Look::KIND)))
    }

    /// Makes a directory and the parents that lack, following links, and gives its path without links. New ones get
    /// the mode and owner.
    pub(crate) fn mkdir_all(&mut self, at: &[u8], mode: u32, owner: (u32, u32)) -> Result<Vec<u8>, EditError> {
        let found = self.resolve(at)?;
        match &found.node {
            Some(Node::Dir(_)) => return Ok(found.path),
            Some(_) => return Err(EditError::NotADirectory(found.path)),
            None => {}
        }
        let parts = path::components(&found.path);
        let parts: Vec<Vec<u8>> = parts.into_iter().map(<[u8]>::to_vec).collect();
        for depth in 1..=parts.len() {
            let here = path::from_components(parts.get(..depth).unwrap_or_default());
            match self.get(&here) {
                None => {
                    let meta = Meta { mode, uid: owner.0, gid: owner.1, mtime: self.now, xattrs: None };
                    self.put_dir(&here, meta, false);
                }
                Some(Node::Dir(_)) => {}
                Some(_) => return Err(EditError::NotADirectory(here)),
            }
        }
        Ok(found.path)
    }

    /// Puts something that is no directory at a path without links. What stood there is replaced.
    pub(crate) fn put(&mut self, at: &[u8], node: Node) {
        self.diff.set(at, Change::Put(node.clone()));
        self.tree.put(at, node, &Meta::default);
    }

    /// Makes a directory at a path without links, or gives the one that is there new metadata. With `replacing`
    /// whatever stood there is gone.
    pub(crate) fn put_dir(&mut self, at: &[u8], meta: Meta, replacing: bool) {
        let parts = path::components(at);
        let change = self.diff.root.descend(&parts);
        change.meta = Some(meta.clone());
        change.opaque |= replacing;
        if parts.is_empty() {
            self.tree.root_mut().set_meta(meta);
            return;
        }
        match self.tree.get(at) {
            Some(node @ Node::Dir(_)) if !replacing => {
                let mut node = node;
                *node.meta_mut() = meta;
                self.tree.put(at, node, &Meta::default);
            }
            _ => self.tree.put(at, Node::Dir(Arc::new(Dir::new(meta))), &Meta::default),
        }
    }

    /// Puts a whole directory where nothing stands.
    pub(crate) fn put_new_tree(&mut self, at: &[u8], dir: &Arc<Dir>) {
        self.diff.set(at, Change::Dir(DirChange::creating(dir)));
        self.tree.put(at, Node::Dir(dir.clone()), &Meta::default);
    }

    /// Applies a diff at a directory that exists, at a path without links. Directories that the diff only passes
    /// through and that lack are made, as root's, and are changes of their own from then on. To be called only after
    /// [`Editor::whole`] at that directory.
    pub(crate) fn merge(&mut self, at: &[u8], diff: Diff) -> Result<(), memobuild_tree::ApplyError> {
        let mut whole = Diff::default();
        *whole.root.descend(&path::components(at)) = diff.root;
        make_ways(&mut whole.root, Some(self.tree.root()), self.now);
        self.tree = whole.apply(&self.tree)?;
        overlay(&mut self.diff.root, whole.root);
        Ok(())
    }
}

/// Gives metadata to the directories that have none in the change and that do not stand below.
fn make_ways(change: &mut DirChange, below: Option<&Dir>, now: Mtime) {
    let below = below.filter(|_| !change.opaque);
    for (name, change) in &mut change.entries {
        let Change::Dir(dir) = change else { continue };
        let below = below.and_then(|d| d.get(name)).and_then(Node::as_dir);
        if below.is_none() && dir.meta.is_none() {
            dir.meta = Some(Meta::new(0o755, now));
        }
        make_ways(dir, below.map(|d| &**d), now);
    }
}

/// The changes of `over` on top of those of `under`.
fn overlay(under: &mut DirChange, over: DirChange) {
    if over.opaque {
        *under = over;
        return;
    }
    if over.meta.is_some() {
        under.meta = over.meta;
    }
    for (name, change) in over.entries {
        match (under.entries.get_mut(&name), change) {
            (Some(Change::Dir(below)), Change::Dir(above)) => overlay(below, above),
            (Some(below), Change::Dir(mut above)) => {
                // What stood below was replaced by something that is no directory.
                above.opaque = true;
                *below = Change::Dir(above);
            }
            (_, change) => {
                under.entries.insert(name, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::Symlink;

    #[test]
    fn merging_makes_the_ways_that_lack_and_leaves_the_others() {
        let now = Mtime::pinned(7, 0);
        let old = || Meta::new(0o700, Mtime::default());
        let mut base = Tree::default();
        base.put(b"/x/there", Node::Dir(Arc::new(Dir::new(old()))), &old);
        let leaf = Node::Symlink(Symlink { meta: old(), target: b"t".as_slice().into() });
        let mut diff = Diff::default();
        diff.set(b"/there/a", Change::Put(leaf.clone()));
        diff.set(b"/new/deep/b", Change::Put(leaf));
        let mut editor = Editor::new(base.clone(), now);
        editor.merge(b"/x", diff).unwrap();
        let Edited { tree, diff, .. } = editor.finish();
        for (at, mode) in [(&b"/x/there"[..], 0o700), (b"/x/new", 0o755), (b"/x/new/deep", 0o755)] {
            assert_eq!(tree.get(at).unwrap().meta().mode, mode);
        }
        let mut made = Vec::new();
        diff.walk(&mut |at, change| {
            if matches!(change, Change::Dir(dir) if dir.meta.is_some()) {
                made.push(at.to_vec());
            }
        });
        assert_eq!(made, [b"/x/new".to_vec(), b"/x/new/deep".to_vec()]);
        assert_eq!(diff.apply(&base).unwrap(), tree);
    }
}
