use proptest::prelude::*;

use super::*;
use crate::{
    codec,
    digest::ContentDigest,
    node::{File, Special, SpecialKind, Symlink},
};

fn meta() -> impl Strategy<Value = Meta> {
    (0u32..4, 0u32..3, -3i64..3, any::<bool>(), 0u8..3).prop_map(|(mode, uid, secs, pinned, xattr)| {
        let mut meta =
            Meta { mode: 0o750 + mode, uid, gid: uid, mtime: Mtime { secs, nanos: 5, pinned }, xattrs: None };
        if xattr == 0 {
            meta.set_xattr(b"user.x", b"v");
        }
        meta
    })
}

fn leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (meta(), "[ab]{0,2}").prop_map(|(meta, text)| Node::File(File {
            meta,
            size: text.len() as u64,
            content: ContentDigest::of(text.as_bytes()),
            link: None,
        })),
        1 => (meta(), "[ab/]{1,3}").prop_map(|(meta, t)| Node::Symlink(Symlink { meta, target: t.as_bytes().into() })),
        1 => (meta(), 0u32..3).prop_map(|(meta, minor)| Node::Special(Special {
            meta,
            kind: SpecialKind::Char,
            rdev: (1, minor),
        })),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    leaf().prop_recursive(4, 40, 4, |inner| {
        (meta(), prop::collection::btree_map("[a-d]", inner, 0..4)).prop_map(|(meta, entries)| {
            let entries = entries.into_iter().map(|(n, node)| (n.as_bytes().into(), node)).collect();
            Node::Dir(Arc::new(Dir::with_entries(meta, entries)))
        })
    })
}

pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    (meta(), prop::collection::btree_map("[a-d]", node(), 0..5)).prop_map(|(meta, entries)| {
        let entries = entries.into_iter().map(|(n, node)| (n.as_bytes().into(), node)).collect();
        Tree::new(Arc::new(Dir::with_entries(meta, entries)))
    })
}

proptest! {
    #[test]
    fn the_difference_leads_from_one_tree_to_the_other(a in tree(), b in tree()) {
        let diff = Diff::between(&a, &b);
        prop_assert_eq!(&diff.apply(&a).unwrap(), &b);
        prop_assert_eq!(diff.is_empty(), a == b);
    }

    #[test]
    fn encodings_round_trip(a in tree(), b in tree()) {
        let diff = Diff::between(&a, &b);
        let bytes = codec::encode(&diff);
        prop_assert_eq!(codec::decode(&bytes).unwrap(), diff);
    }

    #[test]
    fn a_damaged_encoding_is_an_error_or_another_diff_but_no_panic(
        a in tree(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = codec::encode(&Diff { root: DirChange::creating(a.root()) });
        let i = at.index(bytes.len());
        bytes[i] = byte;
        let _ = codec::decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = codec::decode(&bytes);
    }
}

#[test]
fn a_link_into_a_lower_layer_joins_the_two_names() {
    let content = ContentDigest::of(b"x");
    let file = File { meta: default_meta(), size: 1, content, link: None };
    let mut base = Tree::default();
    base.put(b"/bin/a", Node::File(file), &default_meta);
    let mut diff = Diff::default();
    diff.set(b"/bin/b", Change::LinkTo(b"/bin/a".as_slice().into()));
    let tree = diff.apply(&base).unwrap();
    assert_eq!(tree.get(b"/bin/a"), tree.get(b"/bin/b"));
    assert!(matches!(tree.get(b"/bin/b"), Some(Node::File(File { link: Some(_), .. }))));
    diff.set(b"/bin/c", Change::LinkTo(b"/bin/nothing".as_slice().into()));
    assert!(diff.apply(&base).is_err());
}

#[test]
fn opaque_hides_what_was_there_and_keeps_what_is_put() {
    let mut base = Tree::default();
    let pipe = |minor| Node::Special(Special { meta: default_meta(), kind: SpecialKind::Fifo, rdev: (0, minor) });
    base.put(b"/d/old", pipe(0), &default_meta);
    let mut diff = Diff::default();
    diff.set(b"/d/new", Change::Put(pipe(1)));
    diff.root.descend(&[b"d"]).opaque = true;
    let tree = diff.apply(&base).unwrap();
    assert!(tree.get(b"/d/old").is_none() && tree.get(b"/d/new").is_some());
}
