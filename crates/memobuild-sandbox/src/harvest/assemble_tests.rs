use std::{path::Path, sync::Mutex};

use memobuild_tree::TreeDigest;

use super::*;
use crate::contents::ReadAt;

#[derive(Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

impl Contents for Kept {
    fn open(&self, _digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn native(&self, _digest: &ContentDigest, _size: u64) -> Option<PathBuf> {
        None
    }

    fn native_above(&self) -> u64 {
        u64::MAX
    }

    fn blobs_dir(&self) -> Option<&Path> {
        None
    }

    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(ContentDigest::of(bytes))
    }

    fn put_large(&self, _tmp: &Path, _digest: ContentDigest, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

const START: Time = (100, 500);
const END: Time = (200, 0);

fn found(mode: u32, mtime: Time) -> FoundMeta {
    FoundMeta { mode, owner: (0, 0), mtime, xattrs: Vec::new(), owner_known: true }
}

fn open(name: &str, meta: FoundMeta, opaque: bool) -> Item {
    Item::Open { name: name.as_bytes().into(), meta, opaque }
}

fn file(name: &str, text: &str, mtime: Time) -> Item {
    linked(name, mtime, 0, FoundContent::Inline { bytes: text.as_bytes().into() })
}

fn linked(name: &str, mtime: Time, inode: u64, content: FoundContent) -> Item {
    Item::File { name: name.as_bytes().into(), meta: found(0o644, mtime), inode, linked: inode != 0, content }
}

fn base() -> Tree {
    let meta = |mode| Meta::new(mode, Mtime::pinned(50, 0));
    let mut tree = Tree::default();
    tree.root_mut().set_meta(meta(0o755));
    let node = |text: &str, mtime| {
        let meta = Meta::new(0o644, mtime);
        Node::File(File { meta, size: text.len() as u64, content: ContentDigest::of(text.as_bytes()), link: None })
    };
    tree.put(b"/d/old", node("old", Mtime::ambient(60, 7)), &|| meta(0o755));
    tree.put(b"/d/set", node("set", Mtime::pinned(70, 0)), &|| meta(0o755));
    tree
}

fn root(mtime: Time) -> Item {
    open("", found(0o755, mtime), false)
}

fn assemble(before: &Tree, shown: &Tree, items: Vec<Item>) -> (Result<Assembled, SandboxError>, usize) {
    let kept = Kept::default();
    let trees = [shown.clone()];
    let mut assembler =
        Assembler::new(&kept, Clock::new((START, END), &trees), PathBuf::from("/nowhere"), before, shown, (9, 9));
    let mut stream = Vec::new();
    for item in items {
        crate::wire::put_bytes(&mut stream, &item.to_bytes());
    }
    // Messages are cut anywhere.
    for piece in stream.chunks(7) {
        if let Err(e) = assembler.feed(piece) {
            return (Err(e), 0);
        }
    }
    let result = assembler.finish();
    let stored = kept.0.lock().unwrap().len();
    (result, stored)
}

fn diff(items: Vec<Item>) -> (Diff, usize) {
    let (assembled, stored) = assemble(&base(), &base(), items);
    (assembled.unwrap().diff, stored)
}

fn mtime(diff: &Diff, at: &[u8]) -> Mtime {
    diff.apply(&base()).unwrap().get(at).unwrap().meta().mtime
}

#[test]
fn what_was_copied_up_and_left_alone_is_no_change() {
    let items = vec![
        root((50, 0)),
        open("d", found(0o755, (50, 0)), false),
        file("old", "old", (60, 7)),
        file("set", "set", (70, 0)),
        Item::Close {},
        Item::Close {},
    ];
    assert_eq!(diff(items), (Diff::default(), 0));
}

#[test]
fn times_are_judged_by_the_step_and_by_what_it_saw() {
    let items = vec![
        root((150, 0)),
        file("now", "1", (150, 3)),
        file("whole-second-of-the-start", "2", (100, 0)),
        file("moved", "old", (60, 7)),
        file("moved-and-cut", "old", (60, 0)),
        file("given", "3", (30, 0)),
        file("future", "4", (201, 0)),
        Item::Close {},
    ];
    let (diff, _) = diff(items);
    for at in ["/now", "/whole-second-of-the-start", "/moved", "/moved-and-cut"] {
        assert!(!mtime(&diff, at.as_bytes()).pinned, "{at}");
    }
    for at in ["/given", "/future"] {
        assert!(mtime(&diff, at.as_bytes()).pinned, "{at}");
    }
}

#[test]
fn a_changed_mode_keeps_time_and_its_meaning() {
    let mut meta = found(0o600, (70, 0));
    let item = |name: &str, meta: &FoundMeta| {
        let content = FoundContent::Inline { bytes: name.as_bytes().into() };
        Item::File { name: name.as_bytes().into(), meta: meta.clone(), inode: 0, linked: false, content }
    };
    let set = item("set", &meta);
    meta.mtime = (60, 7);
    let old = item("old", &meta);
    let items = vec![root((50, 0)), open("d", found(0o755, (50, 0)), false), old, set, Item::Close {}, Item::Close {}];
    let (diff, _) = diff(items);
    assert_eq!(mtime(&diff, b"/d/set"), Mtime::pinned(70, 0));
    assert_eq!(mtime(&diff, b"/d/old"), Mtime::ambient(60, 7));
    assert_eq!(diff.root.meta, None);
}

#[test]
fn a_directory_touched_and_left_as_it_was_is_told_apart() {
    let items = vec![root((50, 0)), open("d", found(0o755, (150, 0)), false), Item::Close {}, Item::Close {}];
    let (assembled, _) = assemble(&base(), &base(), items);
    let assembled = assembled.unwrap();
    assert!(assembled.diff.is_empty());
    assert_eq!(assembled.touched, [b"/d".to_vec()]);
}

#[test]
fn opaque_directories_forget_and_whiteouts_of_nothing_are_nothing() {
    let items = vec![
        root((150, 0)),
        open("d", found(0o755, (150, 0)), true),
        file("old", "old", (60, 7)),
        Item::Whiteout { name: b"set".as_slice().into() },
        Item::Close {},
        Item::Whiteout { name: b"never".as_slice().into() },
        Item::Close {},
    ];
    let (diff, stored) = diff(items);
    let after = diff.apply(&base()).unwrap();
    assert_eq!(after.dir(b"/d").unwrap().entries().len(), 1);
    // Below an opaque directory nothing is as it was, so the file is put.
    assert_eq!(stored, 1);
    assert_eq!(diff.root.entries.len(), 1);
}

#[test]
fn stubs_are_part_only_of_what_was_written_in_them() {
    let mut shown = base();
    let stub = || Meta::new(0o755, Mtime::ambient(90, 0));
    shown.put(b"/stub/empty", Node::Dir(Arc::new(Dir::new(stub()))), &stub);
    shown.put(b"/full/point", Node::Dir(Arc::new(Dir::new(stub()))), &stub);
    let items = vec![
        root((50, 0)),
        open("full", found(0o755, (150, 0)), false),
        file("f", "f", (150, 0)),
        Item::Close {},
        open("stub", found(0o700, (90, 0)), false),
        open("empty", found(0o755, (150, 0)), false),
        Item::Close {},
        Item::Close {},
        Item::Whiteout { name: b"gone-stub".as_slice().into() },
        Item::Close {},
    ];
    let (assembled, _) = assemble(&base(), &shown, items);
    let after = assembled.unwrap().diff.apply(&base()).unwrap();
    assert!(after.get(b"/stub").is_none());
    assert_eq!(after.dir(b"/full").unwrap().entries().len(), 1);
    assert!(!after.get(b"/full").unwrap().meta().mtime.pinned);
}

#[test]
fn names_of_one_file_share_an_id_that_depends_on_nothing_else() {
    let items = |inode| {
        vec![
            root((150, 0)),
            linked("a", (150, 0), inode, FoundContent::Inline { bytes: b"x".as_slice().into() }),
            linked("b", (150, 0), inode, FoundContent::Same { inode }),
            linked("lone", (150, 0), inode + 1, FoundContent::Inline { bytes: b"y".as_slice().into() }),
            Item::Close {},
        ]
    };
    let identity = |inode| -> TreeDigest { diff(items(inode)).0.apply(&base()).unwrap().identity() };
    assert_eq!(identity(5), identity(7));
    let after = diff(items(5)).0.apply(&base()).unwrap();
    let link = |at: &[u8]| match after.get(at) {
        Some(Node::File(file)) => file.link,
        other => panic!("{other:?}"),
    };
    assert!(link(b"/a").is_some() && link(b"/a") == link(b"/b"));
    assert_eq!(link(b"/lone"), None);
}

#[test]
fn owners_that_are_not_known_stay_what_they_were() {
    let mut before = base();
    let link = Node::Symlink(Symlink {
        meta: Meta { uid: 7, gid: 8, ..Meta::new(0o777, Mtime::default()) },
        target: b"x".as_slice().into(),
    });
    before.put(b"/l", link, &Meta::default);
    let meta = FoundMeta { owner_known: false, ..found(0o777, (150, 0)) };
    let item =
        |name: &str| Item::Symlink { name: name.as_bytes().into(), meta: meta.clone(), target: b"y".as_slice().into() };
    let (assembled, _) = assemble(&before, &before, vec![root((50, 0)), item("l"), item("new"), Item::Close {}]);
    let after = assembled.unwrap().diff.apply(&before).unwrap();
    let owner = |at: &[u8]| (after.get(at).unwrap().meta().uid, after.get(at).unwrap().meta().gid);
    assert_eq!((owner(b"/l"), owner(b"/new")), ((7, 8), (9, 9)));
}

#[test]
fn a_stream_that_ends_early_or_closes_too_much_is_refused() {
    let refused = |items| assemble(&base(), &base(), items).0.is_err();
    assert!(refused(vec![root((50, 0))]));
    assert!(refused(vec![Item::Close {}]));
    assert!(refused(vec![root((50, 0)), linked("b", (150, 0), 3, FoundContent::Same { inode: 3 }), Item::Close {}]));
}
