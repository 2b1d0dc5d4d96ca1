//! Facts left out on purpose, to see that tests find out: `MEMOBUILD_TEST_DROP_FACT` names the kind. In debug builds
//! only.

use memobuild_plan::model::Step;
use memobuild_tree::{Tree, facts::Looks};

/// Whether this kind is left out.
#[cfg(debug_assertions)]
pub(super) fn drops(kind: &str) -> bool {
    std::env::var("MEMOBUILD_TEST_DROP_FACT").is_ok_and(|dropped| dropped == kind)
}

#[cfg(not(debug_assertions))]
pub(super) fn drops(_kind: &str) -> bool {
    false
}

/// The looks without those of the kind.
#[cfg(debug_assertions)]
pub(super) fn dropped(step: &Step, looks: &[Looks], trees: &[Tree]) -> Vec<Looks> {
    use memobuild_plan::model::Op;
    use memobuild_tree::{Node, facts::Look};

    let Ok(kind) = std::env::var("MEMOBUILD_TEST_DROP_FACT") else { return looks.to_vec() };
    let lands = matches!(step.op, Op::Copy(_) | Op::Mkdir(_));
    let mut out = looks.to_vec();
    for (index, (looks, tree)) in out.iter_mut().zip(trees).enumerate() {
        looks.retain(|path, look| {
            let found = tree.get(path);
            let node = look.has(Look::NODE) || look.has(Look::KIND);
            let drop = match (kind.as_str(), &found) {
                ("absent", None) => node,
                ("file", Some(Node::File(_))) => node,
                ("looked", Some(Node::File(_))) => node && !look.has(Look::READ),
                ("link", Some(Node::Symlink(_))) => node,
                ("special", Some(Node::Special(_))) => node,
                ("dir", Some(Node::Dir(_))) => node,
                ("root", _) => path == b"/",
                ("mount", _) => index > 0,
                ("destination", _) => lands,
                _ => false,
            };
            if drop {
                *look = look.without(Look::NODE).without(Look::KIND).without(Look::WHOLE);
            }
            if kind == "listing" || (kind == "mount" && index > 0) {
                *look = look.without(Look::LISTED);
            }
            true
        });
    }
    out
}

#[cfg(not(debug_assertions))]
pub(super) fn dropped(_step: &Step, looks: &[Looks], _trees: &[Tree]) -> Vec<Looks> {
    looks.to_vec()
}

/// Trees in which a part of what is found at paths is the same everywhere: the kinds that are parts of facts.
#[cfg(debug_assertions)]
pub(super) fn blurred(trees: Vec<Tree>) -> Vec<Tree> {
    use std::sync::Arc;

    use memobuild_tree::{Dir, Meta, Mtime, Node};

    let Ok(kind) = std::env::var("MEMOBUILD_TEST_DROP_FACT") else { return trees };
    let change: fn(&mut Meta) = match kind.as_str() {
        "mode" => |meta| meta.mode = 0o755,
        "owner" => |meta| (meta.uid, meta.gid) = (0, 0),
        "xattr" => |meta| meta.xattrs = None,
        "mtime" => |meta| meta.mtime = Mtime::default(),
        "linkgroup" => |_| {},
        _ => return trees,
    };
    fn blur(dir: &Dir, change: fn(&mut Meta), links: bool) -> Dir {
        let mut meta = dir.meta().clone();
        change(&mut meta);
        let entries = dir.entries().iter().map(|(name, node)| {
            let mut node = node.clone();
            match &mut node {
                Node::Dir(dir) => *dir = Arc::new(blur(dir, change, links)),
                Node::File(file) if !links => file.link = None,
                _ => {}
            }
            if !matches!(node, Node::Dir(_)) {
                change(node.meta_mut());
            }
            (name.clone(), node)
        });
        Dir::with_entries(meta, entries.collect())
    }
    trees.iter().map(|tree| Tree::new(Arc::new(blur(tree.root(), change, kind != "linkgroup")))).collect()
}

#[cfg(not(debug_assertions))]
pub(super) fn blurred(trees: Vec<Tree>) -> Vec<Tree> {
    trees
}
