//! A whole root file system in memory, shared cheaply, edited by copying only the directories on the way.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    digest::{FullDigest, TreeDigest},
    node::{Dir, Meta, Mtime, Node},
    path,
};

/// Links followed in one look-up before it is called a loop (as Linux's and containerd's `RootPath` bound it).
const MAX_LINKS: usize = 255;

/// A root directory and all below it. Cloning is one reference count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: Arc<Dir>,
}

impl Default for Tree {
    /// An empty root with mode 0755.
    fn default() -> Self {
        Self { root: Arc::new(Dir::new(Meta::new(0o755, Mtime::default()))) }
    }
}

/// A path that could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// More links than any honest path has.
    #[error("too many levels of symbolic links: {}", path::display(.0))]
    TooManyLinks(Vec<u8>),
    /// Something on the way is neither directory nor link.
    #[error("not a directory: {}", path::display(.0))]
    NotADirectory(Vec<u8>),
}

/// Where a path leads once its links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links (but for a last one that was not to be followed), absolute and clean.
    pub path: Vec<u8>,
    /// What stands there; `None` if nothing does.
    pub node: Option<Node>,
}

/// One step of [`Tree::walk`].
#[derive(Debug)]
pub struct Entry<'a> {
    /// Absolute path; the root is `/`.
    pub path: Vec<u8>,
    /// What stands there.
    pub node: &'a Node,
}

/// Is told paths.
pub type Seen<'a> = &'a mut dyn FnMut(&[u8]);

impl Tree {
    /// The tree whose root is this directory.
    pub fn new(root: Arc<Dir>) -> Self {
        Self { root }
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// The root directory, to change it.
    pub fn root_mut(&mut self) -> &mut Dir {
        Arc::make_mut(&mut self.root)
    }

    /// What cache keys use.
    pub fn identity(&self) -> TreeDigest {
        self.root.identity()
    }

    /// Everything, mtimes included.
    pub fn full_digest(&self) -> FullDigest {
        self.root.full_digest()
    }

    /// What stands at a path, following no link; the path is cleaned lexically.
    pub fn get(&self, at: &[u8]) -> Option<Node> {
        let parts = path::components(at);
        let Some((last, parents)) = parts.split_last() else {
            return Some(Node::Dir(self.root.clone()));
        };
        let mut dir = &self.root;
        for part in parents {
            dir = dir.get(part)?.as_dir()?;
        }
        dir.get(last).cloned()
    }

    /// The directory at a path, following no link.
    pub fn dir(&self, at: &[u8]) -> Option<Arc<Dir>> {
        self.get(at)?.as_dir().cloned()
    }

    /// Follows links within the root, as a process would that has it for its root: `..` above the root stays there.
    /// Components that do not exist are taken as they are. With `follow_last` a link at the end is followed too.
    pub fn resolve(&self, at: &[u8], follow_last: bool) -> Result<Resolved, ResolveError> {
        self.resolve_seen(at, follow_last, None)
    }

    /// As [`Tree::resolve`]; tells each path that is looked at on the way, whether something stands there or not.
    pub fn resolve_seen(
        &self,
        at: &[u8],
        follow_last: bool,
        mut seen: Option<Seen<'_>>,
    ) -> Result<Resolved, ResolveError> {
        let mut todo: VecDeque<Vec<u8>> = at.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        // The directories walked into so far, with their names; the root is not in it.
        let mut walked: Vec<(Vec<u8>, Option<Node>)> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    walked.pop();
                    continue;
                }
                _ => {}
            }
            let node = match walked.last() {
                None => self.root.get(&part).cloned(),
                Some((_, Some(Node::Dir(dir)))) => dir.get(&part).cloned(),
                Some((_, None)) => None,
                Some((_, Some(_))) => {
                    let names: Vec<_> = walked.iter().map(|(name, _)| name).collect();
                    return Err(ResolveError::NotADirectory(path::from_components(&names)));
                }
            };
            if let Some(seen) = &mut seen {
                let mut names: Vec<&[u8]> = walked.iter().map(|(name, _)| name.as_slice()).collect();
                names.push(&part);
                seen(&path::from_components(&names));
            }
            let last = todo.iter().all(|p| p.is_empty() || p == b".");
            match node {
                Some(Node::Symlink(link)) if !last || follow_last => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ResolveError::TooManyLinks(path::clean(at)));
                    }
                    if link.target.first() == Some(&b'/') {
                        walked.clear();
                    }
                    for part in link.target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                node => walked.push((part, node)),
            }
        }
        let names: Vec<_> = walked.iter().map(|(name, _)| name).collect();
        let path = path::from_components(&names);
        let node = match walked.pop() {
            None => Some(Node::Dir(self.root.clone())),
            Some((_, node)) => node,
        };
        Ok(Resolved { path, node })
    }

    /// Puts a node at a path, whose parents must be directories; those that lack are made with `make_parent`.
    /// A parent that is no directory is replaced. Putting something that is no directory at `/` does nothing.
    pub fn put(&mut self, at: &[u8], node: Node, make_parent: &dyn Fn() -> Meta) {
        let parts = path::components(at);
        let Some((last, parents)) = parts.split_last() else {
            if let Node::Dir(dir) = node {
                self.root = dir;
            }
            return;
        };
        let mut dir = Arc::make_mut(&mut self.root);
        for part in parents {
            let child = dir.entries_mut().entry((*part).into());
            let child = child.or_insert_with(|| Node::Dir(Arc::new(Dir::new(make_parent()))));
            if child.as_dir().is_none() {
                *child = Node::Dir(Arc::new(Dir::new(make_parent())));
            }
            let Node::Dir(next) = child else { return };
            dir = Arc::make_mut(next);
        }
        dir.entries_mut().insert((*last).into(), node);
    }

    /// Takes away what stands at a path, with all below it. Nothing happens if nothing stands there.
    pub fn remove(&mut self, at: &[u8]) {
        let parts = path::components(at);
        let Some((last, parents)) = parts.split_last() else { return };
        if self.get(at).is_none() {
            return;
        }
        let mut dir = Arc::make_mut(&mut self.root);
        for part in parents {
            let Some(Node::Dir(next)) = dir.entries_mut().get_mut(*part) else { return };
            dir = Arc::make_mut(next);
        }
        dir.entries_mut().remove(*last);
    }

    /// Every node below the root (the root itself left out), parents before children, siblings in byte order.
    pub fn walk(&self) -> Walk<'_> {
        Walk { stack: vec![(Vec::new(), self.root.entries().iter())] }
    }
}

type Children<'a> = std::collections::btree_map::Iter<'a, Arc<[u8]>, Node>;

/// The iterator of [`Tree::walk`].
pub struct Walk<'a> {
    stack: Vec<(Vec<u8>, Children<'a>)>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let (prefix, children) = self.stack.last_mut()?;
            let Some((name, node)) = children.next() else {
                self.stack.pop();
                continue;
            };
            let path = [prefix.as_slice(), b"/", name].concat();
            if let Node::Dir(dir) = node {
                self.stack.push((path.clone(), dir.entries().iter()));
            }
            return Some(Entry { path, node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Symlink;

    fn meta() -> Meta {
        Meta::new(0o755, Mtime::default())
    }

    fn link(target: &str) -> Node {
        Node::Symlink(Symlink { meta: meta(), target: target.as_bytes().into() })
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.put(b"/a/b/c", Node::Dir(Arc::new(Dir::new(meta()))), &meta);
        tree.put(b"/l", link("a/b"), &meta);
        tree.put(b"/a/up", link("../../../a"), &meta);
        tree.put(b"/loop", link("/loop"), &meta);
        tree.put(b"/dangling", link("nowhere/x"), &meta);
        tree
    }

    fn resolved(at: &str, follow: bool) -> String {
        tree().resolve(at.as_bytes(), follow).map_or_else(|e| e.to_string(), |r| path::display(&r.path))
    }

    #[test]
    fn links_are_followed_within_the_root() {
        assert_eq!(resolved("/l/c", true), "/a/b/c");
        assert_eq!(resolved("/l", false), "/l");
        assert_eq!(resolved("l/", true), "/a/b");
        assert_eq!(resolved("/a/up/b/../../../..", true), "/");
        assert_eq!(resolved("/dangling/y", true), "/nowhere/x/y");
        assert_eq!(resolved("/loop", true), "too many levels of symbolic links: /loop");
    }

    #[test]
    fn dot_dot_goes_up_from_where_a_link_led() {
        assert_eq!(resolved("/l/..", true), "/a");
    }

    #[test]
    fn edits_leave_the_shared_original_alone() {
        let before = tree();
        let mut after = before.clone();
        after.remove(b"/a/b/c");
        assert!(before.get(b"/a/b/c").is_some());
        assert!(after.get(b"/a/b/c").is_none());
        assert_ne!(before.identity(), after.identity());
        after.put(b"/a/b/c", Node::Dir(Arc::new(Dir::new(meta()))), &meta);
        assert_eq!(before.identity(), after.identity());
    }

    #[test]
    fn a_walk_names_parents_first() {
        let tree = tree();
        let paths: Vec<_> = tree.walk().map(|e| path::display(&e.path)).collect();
        assert_eq!(paths, ["/a", "/a/b", "/a/b/c", "/a/up", "/dangling", "/l", "/loop"]);
    }
}
