//! What a diff depends on by being applied: without these facts it must not be laid over another tree.

use super::{Look, Looks};
use crate::{
    diff::{Change, Diff, DirChange},
    node::{Dir, Node},
};

/// Completes the looks of a step by what its diff needs, and says whether that is possible: every path that the diff
/// touches must have been looked at, since the recorded change (a new name, a copied-up file with all its metadata) was
/// computed from what stood there. What the diff removes or replaces as a whole is taken as listed, all the way down.
pub fn cover(diff: &Diff, before: &Dir, looks: &mut Looks) -> bool {
    looks.add(b"/", Look::NODE);
    cover_dir(&diff.root, Some(before), &mut Vec::new(), looks)
}

/// `before` is what stood there; `None` where nothing of it shows any more.
fn cover_dir(change: &DirChange, before: Option<&Dir>, at: &mut Vec<u8>, looks: &mut Looks) -> bool {
    if change.opaque
        && let Some(dir) = before
    {
        list_all(dir, at, looks);
    }
    let below = before.filter(|_| !change.opaque);
    for (name, change) in &change.entries {
        let length = at.len();
        at.push(b'/');
        at.extend_from_slice(name);
        let stood = below.and_then(|dir| dir.get(name));
        // Below what is new as a whole nothing else can show through.
        let seen = below.is_none() || looks.get(at).has(Look::NODE);
        let fine = seen
            && match (change, stood) {
                (Change::Dir(sub), Some(Node::Dir(dir))) => cover_dir(sub, Some(dir), at, looks),
                (Change::Dir(sub), _) => cover_dir(sub, None, at, looks),
                (Change::Remove | Change::Put(_), Some(Node::Dir(dir))) => {
                    list_all(dir, at, looks);
                    true
                }
                (Change::Remove | Change::Put(_), _) => true,
                // Made by other builders only; never by a step.
                (Change::LinkTo(_), _) => false,
            };
        at.truncate(length);
        if !fine {
            return false;
        }
    }
    true
}

fn list_all(dir: &Dir, at: &mut Vec<u8>, looks: &mut Looks) {
    looks.add(if at.is_empty() { b"/" } else { at }, Look::LISTED);
    for (name, node) in dir.entries() {
        if let Node::Dir(dir) = node {
            let length = at.len();
            at.push(b'/');
            at.extend_from_slice(name);
            list_all(dir, at, looks);
            at.truncate(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContentDigest, File, Meta, Mtime, Tree};

    fn meta() -> Meta {
        Meta::new(0o755, Mtime::default())
    }

    fn file() -> Node {
        Node::File(File { meta: meta(), size: 0, content: ContentDigest::of(b""), link: None })
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.put(b"/etc/passwd", file(), &meta);
        tree.put(b"/lib/a/b/c", file(), &meta);
        tree
    }

    fn covered(looked: &[&str], edit: impl FnOnce(&mut Tree)) -> Option<Vec<String>> {
        let before = tree();
        let mut after = before.clone();
        edit(&mut after);
        let mut looks = Looks::default();
        looked.iter().for_each(|path| looks.add(path.as_bytes(), Look::NODE));
        let mut diff = Diff::between(&before, &after);
        // What a harvest says of a directory that was removed and made again.
        if let Some(Change::Dir(dir)) = diff.root.entries.get_mut(b"lib".as_slice())
            && looked.contains(&"opaque")
        {
            dir.opaque = true;
        }
        cover(&diff, before.root(), &mut looks).then(|| {
            let listed = looks.iter().filter(|(_, look)| look.has(Look::LISTED));
            listed.map(|(path, _)| crate::path::display(path)).collect()
        })
    }

    #[test]
    fn a_new_name_needs_its_absence_and_its_parents() {
        let new = |tree: &mut Tree| tree.put(b"/etc/new", file(), &meta);
        assert_eq!(covered(&["/etc", "/etc/new"], new), Some(vec![]));
        assert_eq!(covered(&["/etc"], new), None);
        assert_eq!(covered(&["/etc/new"], new), None);
    }

    #[test]
    fn nothing_shows_below_what_is_new() {
        let new = |tree: &mut Tree| tree.put(b"/x/y/z", file(), &meta);
        assert_eq!(covered(&["/x"], new), Some(vec![]));
    }

    #[test]
    fn what_is_removed_counts_as_listed_all_the_way_down() {
        let gone = |tree: &mut Tree| tree.remove(b"/lib/a");
        assert_eq!(covered(&["/lib", "/lib/a"], gone), Some(vec!["/lib/a".into(), "/lib/a/b".into()]));
        let replaced = |tree: &mut Tree| tree.put(b"/lib", file(), &meta);
        assert_eq!(covered(&["/lib"], replaced).map(|l| l.len()), Some(3));
        let remade = |tree: &mut Tree| {
            tree.remove(b"/lib/a");
            tree.put(b"/lib/new", file(), &meta);
        };
        assert_eq!(covered(&["/lib", "opaque"], remade).map(|l| l.len()), Some(3));
    }
}
