//! Garbage collection: what goes, what stays, and in which order.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use common::{diff, key, large, store};
use memobuild_store::{GcOptions, Ref, Store};
use memobuild_tree::{BundleId, ContentDigest};

fn commit(store: &Store, contents: &[&[u8]]) -> BundleId {
    let writer = store.bundle_writer();
    contents.iter().for_each(|bytes| assert!(writer.add_bytes(bytes).is_ok()));
    writer.finish(&diff(contents)).unwrap()
}

fn bytes_on_disk(path: &Path) -> u64 {
    let meta = fs::symlink_metadata(path).unwrap();
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    fs::read_dir(path).unwrap().map(|e| bytes_on_disk(&e.unwrap().path())).sum()
}

fn all() -> GcOptions {
    GcOptions { all: true, ..GcOptions::default() }
}

/// Sets the last use of a record, in seconds before now.
fn age(store: &Store, name: &str, seconds: u32) {
    let sql = rusqlite::Connection::open(store.dir().join("index.sqlite")).unwrap();
    let changed = sql
        .execute("UPDATE records SET used = unixepoch() - ?1 WHERE key = ?2", (seconds, key(name).as_bytes()))
        .unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn garbage_goes_and_what_records_and_tags_reach_stays() {
    let (dir, store) = store();
    let (big, lost) = (large(1), large(2));
    let kept = commit(&store, &[b"kept", &big]);
    let base = commit(&store, &[b"base file"]);
    let above = commit(&store, &[b"base file", b"above"]);
    let garbage = commit(&store, &[b"garbage", &lost]);
    let blob = store.oci_blob_put(b"layer").unwrap();
    let no_one = store.oci_blob_put(b"nobody's").unwrap();
    store.record_put("s", &key("kept"), b"v", &[Ref::Bundle(kept)]).unwrap();
    store.tag_set("image", b"v", &[Ref::Bundle(above), Ref::Oci(blob)]).unwrap();
    // In use: nothing goes.
    assert_eq!(store.gc(&GcOptions::default()).unwrap().bundles, 0);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let dry = store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    assert!(store.has_bundle(&kept));
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!((report.bundles, report.blobs, report.oci_blobs, report.records), (1, 1, 1, 0));
    assert_eq!((dry.bundles, dry.blobs, dry.oci_blobs), (1, 1, 1));
    assert!(report.freed_bytes >= 200_000, "{report:?}");
    assert!(!store.has_bundle(&garbage) && store.oci_blob_path(&no_one).is_none());
    assert!(!store.has_content(&ContentDigest::of(&lost), lost.len() as u64));
    for id in [kept, base, above] {
        assert!(store.load_bundle(&id).unwrap().is_some());
    }
    assert!(store.oci_blob_path(&blob).is_some() && store.blob_path(&ContentDigest::of(&big)).is_some());
    assert!(store.check().unwrap().is_empty());
    assert_eq!(store.usage().unwrap().total_bytes, bytes_on_disk_of(&store));
    let item = |id: &BundleId| store.usage().unwrap().items.into_iter().find(|i| i.id == id.hex()).unwrap();
    assert!(item(&base).tagged && item(&base).in_use && !item(&kept).tagged && item(&kept).last_used.is_some());
}

/// Directories, locks and leases are not counted.
fn bytes_on_disk_of(store: &Store) -> u64 {
    let tmp = fs::symlink_metadata(store.dir().join("tmp")).unwrap().blocks() * 512;
    let parts = ["bundles", "blobs", "oci", "contexts", "mounts"];
    let files = fs::read_dir(store.dir()).unwrap().flatten().filter(|e| e.file_type().unwrap().is_file());
    tmp + parts.iter().map(|p| bytes_on_disk(&store.dir().join(p))).sum::<u64>()
        + files.map(|e| bytes_on_disk(&e.path())).sum::<u64>()
}

#[test]
fn the_least_recently_used_go_first_until_the_rest_fits() {
    let (dir, store) = store();
    for n in 0..6u8 {
        let id = commit(&store, &[&large(n), &[n]]);
        store.record_put("s", &key(&n.to_string()), b"v", &[Ref::Bundle(id)]).unwrap();
        age(&store, &n.to_string(), 100_000 * u32::from(n + 1));
    }
    // Read now: the oldest becomes the newest.
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.record_get("s", &key("5")).unwrap().is_some());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let total = store.usage().unwrap().total_bytes;
    let limit = total - 300_000;
    let report = store.gc(&GcOptions { max_bytes: Some(limit), ..GcOptions::default() }).unwrap();
    assert_eq!((report.records, report.bundles, report.blobs), (2, 2, 2), "{report:?}");
    assert!(report.left_bytes <= limit && report.left_bytes == store.usage().unwrap().total_bytes);
    let left = store.record_list("s").unwrap();
    assert!(["0", "1", "2", "5"].iter().all(|n| left.contains(&key(n))) && left.len() == 4);
    // By age.
    let keep = GcOptions { keep_duration: Some(Duration::from_secs(250_000)), ..GcOptions::default() };
    assert_eq!(store.gc(&keep).unwrap().records, 1);
    // Everything, but not what is younger than that.
    assert_eq!(store.gc(&GcOptions { all: true, ..keep }).unwrap().records, 0);
    assert_eq!(store.gc(&all()).unwrap().records, 3);
    assert!(store.record_list("s").unwrap().is_empty());
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn contents_that_two_records_share_go_with_the_second() {
    let (dir, store) = store();
    let id = commit(&store, &[&large(1)]);
    for name in ["old", "new"] {
        store.record_put("s", &key(name), b"v", &[Ref::Bundle(id)]).unwrap();
    }
    age(&store, "old", 10_000);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let keep = GcOptions { keep_duration: Some(Duration::from_secs(5_000)), ..GcOptions::default() };
    assert_eq!(store.gc(&keep).unwrap().bundles, 0);
    assert_eq!(store.gc(&all()).unwrap().bundles, 1);
}

#[test]
fn another_handle_sees_what_was_collected() {
    let (dir, store) = store();
    let id = commit(&store, &[b"x"]);
    drop(store);
    let reader = Store::open(dir.path()).unwrap();
    let lease = reader.lease().unwrap();
    assert!(reader.load_bundle(&id).unwrap().is_some());
    let collector = Store::open(dir.path()).unwrap();
    assert_eq!(collector.gc(&all()).unwrap().bundles, 0, "leased");
    drop(lease);
    assert_eq!(collector.gc(&all()).unwrap().bundles, 1);
    assert!(reader.load_bundle(&id).unwrap().is_none());
    assert_eq!(commit(&reader, &[b"x"]), id);
    assert!(reader.load_bundle(&id).unwrap().is_some());
}

#[test]
fn cache_mounts_go_when_nobody_uses_them() {
    let (_dir, store) = store();
    let (busy, lock) = store.cache_mount(&key("busy"), false).unwrap();
    let (idle, idle_lock) = store.cache_mount(&key("idle"), true).unwrap();
    fs::write(idle.join("f"), "x").unwrap();
    drop(idle_lock);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().mounts, 0);
    assert_eq!(store.gc(&all()).unwrap().mounts, 1);
    assert!(busy.exists() && !idle.exists());
    drop(lock);
}
