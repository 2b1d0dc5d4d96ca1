//! Records, tags, image blobs and locks; and a damaged index.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::FileExt,
};

use common::{key, store};
use memobuild_store::{Store, StoreError};
use memobuild_tree::Sha256Digest;

#[test]
fn records_are_kept_by_namespace_and_key() {
    let (dir, store) = store();
    assert_eq!(store.record_get("a", &key("k")).unwrap(), None);
    store.record_put("a", &key("k"), b"one", &[]).unwrap();
    store.record_put("a", &key("k"), b"two", &[]).unwrap();
    assert!(!store.record_put_new("a", &key("k"), b"three", &[]).unwrap());
    assert!(store.record_put_new("b", &key("k"), b"other", &[]).unwrap());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.record_get("a", &key("k")).unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(store.record_get("b", &key("k")).unwrap().as_deref(), Some(&b"other"[..]));
    assert_eq!(store.record_list("a").unwrap(), [key("k")]);
    assert!(store.record_delete("a", &key("k")).unwrap());
    assert!(!store.record_delete("a", &key("k")).unwrap());
    assert_eq!(store.record_get("a", &key("k")).unwrap(), None);
}

#[test]
fn tags_are_listed_in_order() {
    let (_dir, store) = store();
    store.tag_set("z:1", b"1", &[]).unwrap();
    store.tag_set("a:2", b"2", &[]).unwrap();
    store.tag_set("z:1", b"3", &[]).unwrap();
    assert_eq!(store.tags().unwrap(), [("a:2".into(), b"2".to_vec()), ("z:1".into(), b"3".to_vec())]);
    assert!(store.tag_remove("a:2").unwrap() && !store.tag_remove("a:2").unwrap());
    assert_eq!(store.tag_get("a:2").unwrap(), None);
    assert_eq!(store.tag_get("z:1").unwrap().as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_row_changed_behind_our_back_is_a_miss() {
    let (dir, store) = store();
    store.record_put("a", &key("k"), b"true value", &[]).unwrap();
    store.tag_set("t", b"true value", &[]).unwrap();
    let sql = rusqlite::Connection::open(dir.path().join("index.sqlite")).unwrap();
    assert_eq!(sql.execute("UPDATE records SET value = X'00'", []).unwrap(), 1);
    assert_eq!(sql.execute("UPDATE tags SET value = X'00'", []).unwrap(), 1);
    assert_eq!(store.check().unwrap().len(), 2);
    assert_eq!(store.record_get("a", &key("k")).unwrap(), None);
    assert_eq!(store.tag_get("t").unwrap(), None);
    assert!(store.tags().unwrap().is_empty());
}

/// Overwrites pages of the closed database with rubbish, at its head and in its middle.
#[test]
fn a_damaged_index_is_set_aside() {
    for (at, len) in [(0, 100), (0, 16), (4096, 8192), (100, 4000)] {
        let (dir, store) = store();
        for n in 0..200 {
            store.record_put("a", &key(&n.to_string()), &[1; 300], &[]).unwrap();
        }
        drop(store);
        let path = dir.path().join("index.sqlite");
        // All of it into the main file, so that the log does not repair it.
        rusqlite::Connection::open(&path)
            .unwrap()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&vec![0xA5; len], at).unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..200 {
            store.record_get("a", &key(&n.to_string())).unwrap();
        }
        store.record_put("a", &key("new"), b"value", &[]).unwrap();
        assert_eq!(store.record_get("a", &key("new")).unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(store.warnings().len(), 1, "at {at}");
        assert!(store.warnings()[0].contains("index.corrupt-"));
        assert!(store.check().unwrap().is_empty());
        let again = Store::open(dir.path()).unwrap();
        assert!(again.record_get("a", &key("new")).unwrap().is_some() && again.warnings().is_empty());
    }
}

#[test]
fn tags_outlive_damage_to_other_tables() {
    let (dir, store) = store();
    store.tag_set("mine", b"image", &[]).unwrap();
    let sql = rusqlite::Connection::open(dir.path().join("index.sqlite")).unwrap();
    sql.execute("DROP TABLE records", []).unwrap();
    store.record_put("a", &key("k"), b"v", &[]).unwrap();
    assert_eq!(store.tag_get("mine").unwrap().as_deref(), Some(&b"image"[..]));
    assert!(store.warnings()[0].contains("1 tags were kept"));
}

#[test]
fn an_image_blob_must_have_its_digest() {
    let (_dir, store) = store();
    let digest = store.oci_blob_put(b"manifest").unwrap();
    assert_eq!(digest, Sha256Digest::of(b"manifest"));
    assert_eq!(fs::read(store.oci_blob_path(&digest).unwrap()).unwrap(), b"manifest");
    let mut writer = store.oci_blob_writer().unwrap();
    writer.write_all(b"other bytes").unwrap();
    let error = writer.finish(Some(Sha256Digest::of(b"expected"))).unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { size: 11, .. }), "{error}");
    assert_eq!(store.oci_blob_path(&Sha256Digest::of(b"other bytes")), None);
    assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_download_goes_on_where_it_ended() {
    let (_dir, store) = store();
    let digest = Sha256Digest::of(b"hello world");
    let mut partial = store.partial(&digest).unwrap().unwrap();
    partial.write_all(b"hello").unwrap();
    drop(partial);
    let mut partial = store.partial(&digest).unwrap().unwrap();
    assert_eq!(partial.offset(), 5);
    assert_eq!(store.oci_blob_path(&digest), None);
    // Another who wants it waits, and then finds it.
    let other = std::thread::spawn({
        let store = store.clone();
        move || store.partial(&digest).unwrap().is_none()
    });
    partial.write_all(b" world").unwrap();
    assert_eq!(partial.finish().unwrap(), 11);
    assert!(other.join().unwrap());
    assert_eq!(fs::read(store.oci_blob_path(&digest).unwrap()).unwrap(), b"hello world");
    assert_eq!(fs::read_dir(store.dir().join("oci/partial")).unwrap().count(), 0);
}

#[test]
fn a_download_of_wrong_bytes_starts_again() {
    let (_dir, store) = store();
    let digest = Sha256Digest::of(b"right");
    let mut partial = store.partial(&digest).unwrap().unwrap();
    partial.write_all(b"wrong").unwrap();
    assert!(matches!(partial.finish(), Err(StoreError::DigestMismatch { .. })));
    let mut partial = store.partial(&digest).unwrap().unwrap();
    assert_eq!(partial.offset(), 0);
    partial.write_all(b"wro").unwrap();
    partial.restart().unwrap();
    partial.write_all(b"right").unwrap();
    partial.finish().unwrap();
    let mut text = String::new();
    fs::File::open(store.oci_blob_path(&digest).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "right");
}

#[test]
fn locks_exclude_and_are_shared() {
    let (_dir, store) = store();
    let shared = store.lock("mount", false).unwrap();
    let second = store.try_lock("mount", false).unwrap();
    assert!(second.is_some() && store.try_lock("mount", true).unwrap().is_none());
    assert!(store.try_lock("another", true).unwrap().is_some());
    drop((shared, second));
    let lock = store.try_lock("mount", true).unwrap().unwrap();
    assert!(store.try_lock("mount", false).unwrap().is_none());
    drop(lock);
    let (path, _lock) = store.cache_mount(&key("m"), true).unwrap();
    fs::write(path.join("kept"), "x").unwrap();
    drop(_lock);
    assert!(store.cache_mount(&key("m"), false).unwrap().0.join("kept").exists());
}
