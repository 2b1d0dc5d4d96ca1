//! The context scan: what it sees, and that the stat cache never changes what it says.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    path::Path,
    time::{Duration, SystemTime},
};

use common::store;
use memobuild_store::{
    Store, StoreError,
    scan::{Everything, FilterState, Scan, ScanFilter, ScanOptions, Verdict, scan, scan_with},
};
use memobuild_tree::{ContentDigest, Node, SpecialKind};
use proptest::prelude::*;

/// Makes all files old enough for their times to be trusted.
fn settle() {
    std::thread::sleep(Duration::from_millis(70));
}

fn cached(root: &Path, store: &Store) -> Scan {
    scan(root, &Everything, Some((store, "test"))).unwrap()
}

fn content(scan: &Scan, path: &str) -> Option<ContentDigest> {
    match scan.tree.get(path.as_bytes()) {
        Some(Node::File(file)) => Some(file.content),
        _ => None,
    }
}

#[test]
fn every_kind_of_file_is_seen_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("sub/file"), "text").unwrap();
    fs::set_permissions(root.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"bad\xff name")), "x").unwrap();
    std::os::unix::fs::symlink("/nowhere/../x", root.join("link")).unwrap();
    fs::hard_link(root.join("sub/file"), root.join("twin")).unwrap();
    fs::hard_link(root.join("sub/file"), dir.path().join("sub/twin")).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let scan = scan(root, &Everything, None).unwrap();
    let names: Vec<Vec<u8>> = scan.tree.walk().map(|e| e.path).collect();
    let expected: [&[u8]; 9] = [
        b"/bad\xff name",
        b"/link",
        b"/pipe",
        b"/socket",
        b"/sub",
        b"/sub/empty",
        b"/sub/file",
        b"/sub/twin",
        b"/twin",
    ];
    assert_eq!(names, expected);
    let Some(Node::File(file)) = scan.tree.get(b"/sub/file") else { panic!() };
    let Some(Node::File(twin)) = scan.tree.get(b"/twin") else { panic!() };
    assert_eq!((file.meta.mode, file.meta.uid, file.meta.gid, file.size), (0o4751, 0, 0, 4));
    assert!(!file.meta.mtime.pinned && file.meta.mtime.secs > 1_600_000_000);
    assert!(file.link.is_some() && file.link == twin.link);
    assert_eq!(file.content, ContentDigest::of(b"text"));
    let Some(Node::Symlink(link)) = scan.tree.get(b"/link") else { panic!() };
    assert_eq!((&*link.target, link.meta.mode), (&b"/nowhere/../x"[..], 0o777));
    assert!(matches!(scan.tree.get(b"/pipe"), Some(Node::Special(s)) if s.kind == SpecialKind::Fifo));
    assert_eq!((scan.stats.files, scan.stats.hashed, scan.stats.excluded, scan.stats.dirs), (5, 4, 0, 3));
    // A socket is an empty file, to be read as one.
    assert_eq!(content(&scan, "/socket"), Some(ContentDigest::of(b"")));
    let mut read = Vec::new();
    let mut socket = scan.source.open(b"/socket", &ContentDigest::of(b"")).unwrap();
    assert_eq!(std::io::Read::read_to_end(&mut socket, &mut read).unwrap(), 0);
}

#[test]
fn a_file_with_one_name_in_the_scan_is_in_no_link_group() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ctx")).unwrap();
    fs::write(dir.path().join("ctx/a"), "x").unwrap();
    fs::hard_link(dir.path().join("ctx/a"), dir.path().join("outside")).unwrap();
    let scan = scan(&dir.path().join("ctx"), &Everything, None).unwrap();
    assert!(matches!(scan.tree.get(b"/a"), Some(Node::File(file)) if file.link.is_none()));
}

#[test]
fn only_changed_files_are_read_again() {
    let (_dir, store) = store();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for n in 0..30 {
        fs::create_dir_all(root.join(format!("d{}", n % 3))).unwrap();
        fs::write(root.join(format!("d{}/f{n}", n % 3)), format!("{n}")).unwrap();
    }
    settle();
    let first = cached(root, &store);
    assert_eq!(first.stats.hashed, 30);
    let second = cached(root, &store);
    assert_eq!(second.stats.hashed, 0);
    assert_eq!(first.tree, second.tree);
    fs::write(root.join("d1/f4"), "other").unwrap();
    fs::remove_file(root.join("d0/f0")).unwrap();
    fs::rename(root.join("d2"), root.join("moved")).unwrap();
    settle();
    let third = cached(root, &store);
    assert_eq!(content(&third, "/d1/f4"), Some(ContentDigest::of(b"other")));
    assert!(third.tree.get(b"/d0/f0").is_none() && third.tree.get(b"/d2").is_none());
    // Those below a new name are read again, and the changed one.
    assert_eq!(third.stats.hashed, 11);
    assert_eq!(cached(root, &store).stats.hashed, 0);
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_seen() {
    let (_dir, store) = store();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "one").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::open(&path).unwrap().set_modified(time).unwrap();
    settle();
    cached(dir.path(), &store);
    fs::write(&path, "two").unwrap();
    File::open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(content(&cached(dir.path(), &store), "/f"), Some(ContentDigest::of(b"two")));
}

/// Edits as fast as the machine can: many fall within one tick of the file system's clock, with the same size.
#[test]
fn edits_within_one_tick_are_seen() {
    let (_dir, store) = store();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "0000").unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for n in 1..400 {
        let text = format!("{n:04}");
        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        assert_eq!(content(&cached(dir.path(), &store), "/f"), Some(ContentDigest::of(text.as_bytes())), "edit {n}");
    }
}

#[test]
fn a_damaged_stat_cache_is_no_cache() {
    let (_dir, store) = store();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    settle();
    let first = cached(dir.path(), &store);
    let cache = fs::read_dir(store.dir().join("contexts")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&cache).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&cache, bytes).unwrap();
    let second = cached(dir.path(), &store);
    assert_eq!((second.stats.hashed, &second.tree), (1, &first.tree));
    assert_eq!(cached(dir.path(), &store).stats.hashed, 0);
}

#[test]
fn a_large_flat_directory_is_the_same_from_any_number_of_threads() {
    let (_dir, store) = store();
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        fs::write(dir.path().join(format!("{n:x}")), format!("{n}")).unwrap();
    }
    settle();
    let one = scan_with(dir.path(), &Everything, None, &ScanOptions { threads: 1, ..ScanOptions::default() }).unwrap();
    let many = scan_with(dir.path(), &Everything, None, &ScanOptions { threads: 8, ..ScanOptions::default() }).unwrap();
    assert_eq!(one.tree, many.tree);
    assert_eq!(one.stats, many.stats);
    cached(dir.path(), &store);
    let warm = cached(dir.path(), &store);
    assert_eq!((warm.stats.hashed, warm.stats.files), (0, 3000));
    assert_eq!(warm.tree, one.tree);
}

struct Names;

impl ScanFilter for Names {
    fn verdict(&self, path: &[u8], is_dir: bool, parent: &FilterState) -> (Verdict, FilterState) {
        let depth = parent.as_ref().and_then(|p| p.downcast_ref::<usize>()).map_or(0, |n| n + 1);
        assert_eq!(depth, path.iter().filter(|b| **b == b'/').count(), "the parent's state comes along");
        let name = path.rsplit(|b| *b == b'/').next().unwrap();
        let verdict = match name {
            b"drop" => Verdict::Exclude,
            b"maybe" | b"dead-end" => Verdict::ExcludeButEnter,
            _ => Verdict::Include,
        };
        (verdict, if is_dir { Some(std::sync::Arc::new(depth)) } else { None })
    }
}

#[test]
fn the_filter_decides_and_directories_on_the_way_to_nothing_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in ["drop/never", "maybe/a/kept", "dead-end/drop/x", "b/drop", "b/c/kept"] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "x").unwrap();
    }
    fs::set_permissions(root.join("drop"), fs::Permissions::from_mode(0o000)).unwrap();
    let scan = scan(root, &Names, None).unwrap();
    let names: Vec<String> = scan.tree.walk().map(|e| String::from_utf8(e.path).unwrap()).collect();
    assert_eq!(names, ["/b", "/b/c", "/b/c/kept", "/maybe", "/maybe/a", "/maybe/a/kept"]);
    fs::set_permissions(root.join("drop"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_source_gives_only_what_the_scan_saw() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "before").unwrap();
    let scan = scan(dir.path(), &Everything, None).unwrap();
    let digest = content(&scan, "/d/f").unwrap();
    let mut text = String::new();
    scan.source.open(b"/d/f", &digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "before");
    fs::write(dir.path().join("d/f"), "behind").unwrap();
    let error = scan.source.open(b"d/f", &digest).unwrap().read_to_string(&mut text).unwrap_err();
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<StoreError>());
    assert!(matches!(inner, Some(StoreError::ChangedWhileRead { path }) if path.ends_with("d/f")));
    fs::remove_file(dir.path().join("d/f")).unwrap();
    assert!(matches!(scan.source.open(b"d/f", &digest), Err(StoreError::ChangedWhileRead { .. })));
}

#[test]
fn a_context_that_is_not_there_is_a_clear_error() {
    let error = scan(Path::new("/nonexistent/ctx"), &Everything, None).unwrap_err();
    assert_eq!(error.to_string(), "could not open /nonexistent/ctx");
}

#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u8),
    Remove(u8),
    Rename(u8, u8),
    Touch(u8),
    Swap(u8, u8),
    Link(u8, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let n = || 0u8..12;
    prop_oneof![
        4 => (n(), 0u8..4).prop_map(|(a, b)| Edit::Write(a, b)),
        1 => n().prop_map(Edit::Remove),
        1 => (n(), n()).prop_map(|(a, b)| Edit::Rename(a, b)),
        1 => n().prop_map(Edit::Touch),
        1 => (n(), n()).prop_map(|(a, b)| Edit::Swap(a, b)),
        1 => (n(), n()).prop_map(|(a, b)| Edit::Link(a, b)),
    ]
}

fn run(root: &Path, edit: &Edit) {
    let path = |n: &u8| root.join(format!("d{}/e{}", n % 2, n % 3)).join(format!("f{n}"));
    let swap = root.join("swap");
    // Edits of files that are not there fail, which is as good.
    let _ = match edit {
        Edit::Write(n, text) => fs::write(path(n), [b'0' + text]),
        Edit::Remove(n) => fs::remove_file(path(n)),
        Edit::Rename(a, b) => fs::rename(path(a), path(b)),
        Edit::Touch(n) => File::open(path(n)).and_then(|f| f.set_modified(SystemTime::UNIX_EPOCH)),
        Edit::Swap(a, b) => fs::rename(path(a), &swap)
            .and_then(|()| fs::rename(path(b), path(a)))
            .and_then(|()| fs::rename(&swap, path(b))),
        Edit::Link(a, b) => fs::hard_link(path(a), path(b)),
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_stat_cache_never_changes_the_outcome(rounds in prop::collection::vec(prop::collection::vec(edit(), 0..6), 1..12)) {
        let (_dir, store) = store();
        let dir = tempfile::tempdir().unwrap();
        for n in 0..6 {
            fs::create_dir_all(dir.path().join(format!("d{}/e{}", n % 2, n % 3))).unwrap();
        }
        for edits in rounds {
            edits.iter().for_each(|edit| run(dir.path(), edit));
            let with = cached(dir.path(), &store);
            let without = scan(dir.path(), &Everything, None).unwrap();
            prop_assert_eq!(with.tree, without.tree);
        }
    }
}
