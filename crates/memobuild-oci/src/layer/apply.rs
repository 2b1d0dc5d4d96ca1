//! Applies a layer over the tree of the layers below it.

use std::{collections::BTreeMap, sync::Arc};

use memobuild_tree::{ApplyError, Change, Diff, DirChange, Kind, Node, Tree, path};

/// [`Diff::apply`] by the rule that layers of other builders need: a directory that is only on the way (it has no
/// entry of its own in the layer) and meets a symbolic link below leads where the link leads, within the root. So
/// `lib/x` lands in `/usr/lib/x` on a base where `/lib` is a link, as it does when containerd extracts it.
pub fn apply_layer(tree: &Tree, diff: &Diff) -> Result<Tree, ApplyError> {
    match settle(tree, diff) {
        Some(diff) => diff.apply(tree),
        None => diff.apply(tree),
    }
}

/// The diff with its ways rewritten; `None` where no link is met, which is nearly always.
fn settle(tree: &Tree, diff: &Diff) -> Option<Diff> {
    let mut moves = Vec::new();
    find(tree, &diff.root, tree.root(), &mut Vec::new(), &mut moves);
    if moves.is_empty() {
        return None;
    }
    let mut out = diff.clone();
    for (from, to) in moves {
        if let Some(Change::Dir(moved)) = take(&mut out.root, &path::components(&from)) {
            merge(out.root.descend(&path::components(&to)), moved);
        }
    }
    Some(out)
}

fn find(
    tree: &Tree,
    change: &DirChange,
    below: &memobuild_tree::Dir,
    at: &mut Vec<u8>,
    moves: &mut Vec<(Vec<u8>, Vec<u8>)>,
) {
    if change.opaque {
        return;
    }
    for (name, sub) in &change.entries {
        let Change::Dir(sub) = sub else { continue };
        let length = at.len();
        at.push(b'/');
        at.extend_from_slice(name);
        match below.get(name) {
            Some(Node::Dir(dir)) => find(tree, sub, dir, at, moves),
            Some(node) if node.kind() == Kind::Symlink && sub.meta.is_none() && !sub.opaque => {
                let target = tree.resolve(at, true).ok();
                if let Some(target) = target.filter(|t| !matches!(&t.node, Some(node) if node.kind() != Kind::Dir)) {
                    moves.push((at.clone(), target.path));
                }
            }
            _ => {}
        }
        at.truncate(length);
    }
}

fn take(root: &mut DirChange, parts: &[&[u8]]) -> Option<Change> {
    let (last, above) = parts.split_last()?;
    let mut dir = root;
    for part in above {
        let Change::Dir(next) = dir.entries.get_mut(*part)? else { return None };
        dir = next;
    }
    dir.entries.remove(*last)
}

/// What the layer says at the real place counts more than what came there through a link.
fn merge(into: &mut DirChange, from: DirChange) {
    let from: BTreeMap<Arc<[u8]>, Change> = from.entries;
    for (name, change) in from {
        match (into.entries.get_mut(&name), change) {
            (Some(Change::Dir(into)), Change::Dir(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, change) => {
                into.entries.insert(name, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::{Meta, Mtime, Symlink};

    fn link(target: &str) -> Node {
        Node::Symlink(Symlink { meta: Meta::new(0o777, Mtime::default()), target: target.as_bytes().into() })
    }

    #[test]
    fn ways_follow_links_of_lower_layers_and_directories_replace_them() {
        let meta = || Meta::new(0o755, Mtime::default());
        let mut base = Tree::default();
        base.put(b"/usr/lib/old", link("x"), &meta);
        base.put(b"/lib", link("usr/lib"), &meta);
        base.put(b"/lib64", link("usr/lib"), &meta);
        let mut diff = Diff::default();
        diff.set(b"/lib/new", Change::Put(link("y")));
        diff.set(b"/lib64", Change::Dir(DirChange::with_meta(meta())));
        let tree = apply_layer(&base, &diff).unwrap();
        assert_eq!(tree.get(b"/lib").map(|n| n.kind()), Some(Kind::Symlink));
        assert!(tree.get(b"/usr/lib/new").is_some() && tree.get(b"/usr/lib/old").is_some());
        assert_eq!(tree.get(b"/lib64").map(|n| n.kind()), Some(Kind::Dir));
    }
}
