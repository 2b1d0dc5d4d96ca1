use proptest::prelude::*;

use super::*;
use crate::{
    ContentDigest, Mtime,
    facts::Looks,
    node::{Special, Symlink},
};

fn meta() -> Meta {
    Meta::new(0o755, Mtime::default())
}

fn file(text: &str) -> File {
    File { meta: meta(), size: text.len() as u64, content: ContentDigest::of(text.as_bytes()), link: None }
}

fn link(target: &str) -> Node {
    Node::Symlink(Symlink { meta: meta(), target: target.as_bytes().into() })
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    for (path, text) in [("/a/one", "1"), ("/a/two", "2"), ("/a-b", "3"), ("/a/sub/deep", "4")] {
        tree.put(path.as_bytes(), Node::File(file(text)), &meta);
    }
    tree.put(b"/l", link("a/one"), &meta);
    tree
}

fn key(tree: &Tree, looked: &[(&str, Look)]) -> KeyDigest {
    let mut looks = Looks::default();
    looked.iter().for_each(|(path, look)| looks.add(path.as_bytes(), *look));
    let weak = KeyHasher::new("test").finish();
    Observed::new([tree]).strong_key(&weak, &PathSet::of(&[looks])).unwrap()
}

/// Whether an edit breaks the facts of these looks.
fn breaks(looked: &[(&str, Look)], edit: impl FnOnce(&mut Tree)) -> bool {
    let before = tree();
    let mut after = before.clone();
    edit(&mut after);
    let (old, new) = (key(&before, looked), key(&after, looked));
    let mut looks = Looks::default();
    looked.iter().for_each(|(path, look)| looks.add(path.as_bytes(), *look));
    let set = PathSet::of(&[looks]);
    let glances = |tree| Observed::new([tree]).glances(&set).unwrap();
    // What explains must tell a difference where, and only where, what matches does.
    assert_eq!(old != new, glances(&before) != glances(&after));
    old != new
}

fn put(path: &'static str, node: Node) -> impl FnOnce(&mut Tree) {
    move |tree: &mut Tree| tree.put(path.as_bytes(), node, &meta)
}

#[test]
fn a_node_holds_content_mode_owner_and_times_set_on_purpose() {
    let looks = [("/a/one", Look::NODE)];
    let with = |change: &dyn Fn(&mut File)| {
        let mut file = file("1");
        change(&mut file);
        breaks(&looks, put("/a/one", Node::File(file)))
    };
    assert!(!with(&|_| ()));
    assert!(with(&|f| f.content = ContentDigest::of(b"x")));
    assert!(with(&|f| f.meta.mode = 0o700));
    assert!(with(&|f| f.meta.uid = 1));
    assert!(with(&|f| f.meta.gid = 1));
    assert!(with(&|f| f.meta.set_xattr(b"user.x", b"y")));
    assert!(with(&|f| f.meta.mtime = Mtime::pinned(5, 0)));
    assert!(!with(&|f| f.meta.mtime = Mtime::ambient(5, 0)));
    assert!(breaks(&looks, |tree| tree.remove(b"/a/one")));
    assert!(breaks(&looks, put("/a/one", link("two"))));
}

#[test]
fn absence_breaks_when_something_appears_even_through_a_parent() {
    let looks = [("/a/none", Look::NODE), ("/x/y/z", Look::NODE)];
    assert!(breaks(&looks, put("/a/none", Node::File(file("")))));
    assert!(breaks(&looks, put("/x/y/z", Node::File(file("")))));
    assert!(!breaks(&looks, put("/x/other", Node::File(file("")))));
}

#[test]
fn a_directory_is_its_mode_and_owner_and_neither_time_nor_names() {
    let looks = [("/a", Look::NODE)];
    assert!(!breaks(&looks, put("/a/new", Node::File(file("")))));
    let change = |edit: fn(&mut Meta)| {
        breaks(&looks, move |tree| {
            let mut node = tree.get(b"/a").unwrap();
            edit(node.meta_mut());
            tree.put(b"/a", node, &meta);
        })
    };
    assert!(change(|m| m.mode = 0o700));
    assert!(change(|m| m.uid = 3));
    assert!(!change(|m| m.mtime = Mtime::pinned(9, 9)));
}

#[test]
fn a_listing_is_names_and_kinds() {
    let looks = [("/a", Look::LISTED)];
    assert!(breaks(&looks, put("/a/new", Node::File(file("")))));
    assert!(breaks(&looks, |tree| tree.remove(b"/a/two")));
    assert!(breaks(&looks, put("/a/two", link("x"))));
    assert!(!breaks(&looks, put("/a/two", Node::File(file("other")))));
    assert!(!breaks(&looks, put("/a/sub/more", Node::File(file("")))));
    assert!(breaks(&looks, |tree| {
        let mut node = tree.get(b"/a").unwrap();
        node.meta_mut().mtime = Mtime::pinned(1, 1);
        tree.put(b"/a", node, &meta);
    }));
}

#[test]
fn kinds_and_owners_leave_content_out() {
    for (look, mode_counts) in [(Look::KIND, false), (Look::OWNED, true)] {
        let looks = [("/a/one", look), ("/l", look)];
        assert!(!breaks(&looks, put("/a/one", Node::File(file("else")))));
        let private = Node::File(File { meta: Meta { mode: 0o600, ..meta() }, ..file("1") });
        assert_eq!(breaks(&looks, put("/a/one", private)), mode_counts);
        assert!(breaks(&looks, |tree| tree.remove(b"/a/one")));
        assert!(breaks(&looks, put("/l", link("a/two"))));
    }
}

#[test]
fn the_whole_is_all_that_is_below() {
    let looks = [("/a", Look::WHOLE)];
    assert!(breaks(&looks, put("/a/sub/deep", Node::File(file("5")))));
    assert!(!breaks(&looks, put("/a-b", Node::File(file("5")))));
    assert!(breaks(&looks, |tree| tree.remove(b"/a")));
}

#[test]
fn a_further_name_of_a_file_is_seen_by_its_count() {
    let id = crate::LinkId::of(&mut [b"/h1".to_vec(), b"/h2".to_vec()], ContentDigest::of(b"h"));
    let linked = || Node::File(File { link: Some(id), ..file("h") });
    let mut before = tree();
    before.put(b"/h1", linked(), &meta);
    before.put(b"/h2", linked(), &meta);
    let mut after = before.clone();
    after.remove(b"/h2");
    let looks = [("/h1", Look::NODE)];
    assert_ne!(key(&before, &looks), key(&after, &looks));
}

#[test]
fn devices_differ_by_number() {
    let device = |minor| Node::Special(Special { meta: meta(), kind: SpecialKind::Char, rdev: (1, minor) });
    let mut before = tree();
    before.put(b"/n", device(3), &meta);
    let mut after = before.clone();
    after.put(b"/n", device(5), &meta);
    assert_ne!(key(&before, &[("/n", Look::NODE)]), key(&after, &[("/n", Look::NODE)]));
}

#[test]
fn other_trees_than_the_set_is_about_give_no_key() {
    let weak = KeyHasher::new("test").finish();
    let set = PathSet::of(&[Looks::default(), Looks::default()]);
    assert_eq!(Observed::new([&tree()]).strong_key(&weak, &set), None);
}

proptest! {
    /// Going on from the path before finds the same as starting at the root each time.
    #[test]
    fn walking_in_order_finds_what_looking_up_finds(
        names in prop::collection::vec("[ab-]{1,2}(/[ab-]{1,2}){0,3}", 1..12),
        asked in prop::collection::vec("[ab-]{1,2}(/[ab-]{1,2}){0,4}", 1..24),
    ) {
        let mut tree = Tree::default();
        for name in &names {
            tree.put(format!("/{name}").as_bytes(), Node::File(file(name)), &meta);
        }
        let asked: std::collections::BTreeSet<Vec<u8>> =
            asked.iter().map(|a| format!("/{a}").into_bytes()).chain([b"/".to_vec()]).collect();
        let mut walker = Walker::new(tree.root());
        for path in &asked {
            let found = match walker.find(path) {
                Found::Absent => None,
                Found::Dir(dir) => Some(dir.identity()),
                Found::Leaf(node) => Some(node.identity()),
            };
            let plain = tree.get(path).map(|node| match &node {
                Node::Dir(dir) => dir.identity(),
                node => node.identity(),
            });
            prop_assert_eq!(found, plain, "{}", crate::path::display(path));
        }
    }
}
