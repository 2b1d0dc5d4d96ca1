//! Bundles and contents: what goes in comes out, once, and damage is found.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use common::{diff, large, store};
use memobuild_store::{Store, StoreError};
use memobuild_tree::{BundleId, ContentDigest};

fn commit(store: &Store, contents: &[&[u8]]) -> BundleId {
    let writer = store.bundle_writer();
    for bytes in contents {
        writer.add_bytes(bytes).unwrap();
    }
    writer.finish(&diff(contents)).unwrap()
}

fn bundle_path(store: &Store, id: &BundleId) -> PathBuf {
    store.dir().join("bundles").join(id.hex())
}

#[test]
fn contents_of_every_size_come_back_in_another_handle() {
    let (dir, store) = store();
    let big = large(1);
    let limit = vec![5; memobuild_store::LARGE_FILE as usize];
    let over = vec![6; memobuild_store::LARGE_FILE as usize + 1];
    let contents: [&[u8]; 6] = [b"", b"x", b"hello", &limit, &over, &big];
    let id = commit(&store, &contents);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.has_bundle(&id));
    assert!(matches!(store.content(&ContentDigest::of(b"hello")), Err(StoreError::MissingContent { .. })));
    assert_eq!(*store.load_bundle(&id).unwrap().unwrap(), diff(&contents));
    for bytes in contents {
        let digest = ContentDigest::of(bytes);
        assert!(store.has_content(&digest, bytes.len() as u64));
        let content = store.content(&digest).unwrap();
        assert_eq!(content.len(), bytes.len() as u64);
        for _ in 0..2 {
            let mut middle = [0; 3];
            let n = content.read_at(&mut middle, 1).unwrap();
            assert_eq!(&middle[..n], bytes.get(1..).map_or(&b""[..], |b| &b[..b.len().min(3)]));
            assert_eq!(content.read_at(&mut middle, bytes.len() as u64).unwrap(), 0);
            assert_eq!(content.read_all().unwrap(), bytes);
        }
        let mut read = Vec::new();
        content.reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        let is_large = bytes.len() as u64 > memobuild_store::LARGE_FILE;
        assert_eq!(store.blob_path(&digest).is_some(), is_large);
    }
    let blob = store.blob_path(&ContentDigest::of(&big)).unwrap();
    assert_eq!(blob, store.blobs_dir().join(Store::blob_rel_path(&ContentDigest::of(&big))));
    assert_eq!(fs::metadata(&blob).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(fs::metadata(blob.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn readers_of_any_length_and_any_hint_are_stored_the_same() {
    let (_dir, store) = store();
    let big = large(2);
    for (bytes, hint) in [(&b"small"[..], 0), (b"small2", 1 << 40), (&big, 0), (&big[1..], 10), (&big[2..], 200_000)] {
        let writer = store.bundle_writer();
        let (digest, size) = writer.add_reader(&mut &bytes[..], hint).unwrap();
        assert_eq!((digest, size), (ContentDigest::of(bytes), bytes.len() as u64));
        writer.finish(&diff(&[bytes])).unwrap();
        assert_eq!(store.content(&digest).unwrap().read_all().unwrap(), bytes);
    }
}

#[test]
fn what_an_earlier_bundle_holds_is_referred_to() {
    let (dir, store) = store();
    let many: Vec<Vec<u8>> = (0..1000).map(|n| format!("{n}").repeat(300).into_bytes()).collect();
    let mut contents: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let first = commit(&store, &contents);
    contents[500] = b"edited";
    let second = commit(&store, &contents);
    let size = |id| fs::metadata(bundle_path(&store, id)).unwrap().len();
    assert!(size(&second) < size(&first) / 4, "{} {}", size(&second), size(&first));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    store.load_bundle(&second).unwrap().unwrap();
    assert_eq!(store.content(&ContentDigest::of(&many[7])).unwrap().read_all().unwrap(), many[7]);
    // Without the first, the second is not complete: a miss. Written again, it holds everything itself.
    fs::remove_file(bundle_path(&store, &first)).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load_bundle(&second).unwrap().is_none());
    assert_eq!(commit(&store, &contents), second);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load_bundle(&second).unwrap().is_some());
    // The incomplete one was set aside.
    store.gc(&memobuild_store::GcOptions::default()).unwrap();
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn an_incomplete_bundle_is_written_again_with_what_it_still_held() {
    let (dir, store) = store();
    let big = large(3);
    let id = commit(&store, &[b"small", &big]);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.hint_bundle(&id).unwrap());
    fs::remove_file(store.blob_path(&ContentDigest::of(&big)).unwrap()).unwrap();
    // The small file is known from the very bundle that is replaced.
    assert_eq!(commit(&store, &[b"small", &big]), id);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load_bundle(&id).unwrap().is_some());
    assert_eq!(store.content(&ContentDigest::of(b"small")).unwrap().read_all().unwrap(), b"small");
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn what_lacks_a_part_is_no_result_once_it_was_asked_for() {
    let (dir, store) = store();
    let big = large(4);
    let digest = ContentDigest::of(&big);
    let id = commit(&store, &[b"small", &big]);
    let blob = store.blob_path(&digest).unwrap();
    drop(store);
    // Other bytes of the same length: only reading it tells.
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, vec![0; big.len()]).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.load_bundle(&id).unwrap().is_some() && store.set_aside_count() == 0);
    assert!(store.content(&digest).unwrap_err().is_damage());
    assert_eq!(store.set_aside_count(), 1);
    // The bundle is there, but not all that it names.
    assert!(store.has_bundle(&id));
    assert!(store.load_bundle(&id).unwrap().is_none());
    assert_eq!(store.set_aside_count(), 2);
    assert!(!store.has_bundle(&id));
    assert_eq!(commit(&store, &[b"small", &big]), id);
    assert!(store.load_bundle(&id).unwrap().is_some() && store.set_aside_count() == 2);
    assert_eq!(store.content(&digest).unwrap().read_all().unwrap(), big);
}

#[test]
fn a_diff_that_names_unknown_contents_is_refused() {
    let (_dir, store) = store();
    let error = store.bundle_writer().finish(&diff(&[b"never added"])).unwrap_err();
    assert_eq!(error.to_string(), format!("no content {} in the store (for /0)", ContentDigest::of(b"never added")));
    assert!(fs::read_dir(store.dir().join("bundles")).unwrap().next().is_none());
    assert!(fs::read_dir(store.dir().join("tmp")).unwrap().next().is_none());
}

#[test]
fn many_threads_fill_one_bundle() {
    let (_dir, store) = store();
    let contents: Vec<Vec<u8>> = (0..400).map(|n| format!("{n}").repeat(4000).into_bytes()).collect();
    let writer = store.bundle_writer();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (writer, contents) = (&writer, &contents);
            scope.spawn(move || {
                contents[part * 80..(part + 2) * 80].iter().for_each(|b| assert!(writer.add_bytes(b).is_ok()))
            });
        }
    });
    contents[320..].iter().for_each(|b| assert!(writer.add_bytes(b).is_ok()));
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    writer.finish(&diff(&contents)).unwrap();
    for bytes in contents {
        assert_eq!(store.content(&ContentDigest::of(bytes)).unwrap().read_all().unwrap(), bytes);
    }
}

#[test]
fn a_large_file_is_adopted_without_a_copy_and_a_shared_one_with_one() {
    let (_dir, store) = store();
    let scratch = store.scratch_dir().unwrap();
    let (a, b, c) = (scratch.path().join("a"), scratch.path().join("b"), scratch.path().join("c"));
    let writer = store.bundle_writer();
    let (one, two) = (large(1), large(2));
    fs::write(&a, &one).unwrap();
    let inode = fs::metadata(&a).unwrap().ino();
    writer.adopt_blob(&a, &ContentDigest::of(&one), one.len() as u64).unwrap();
    assert!(!a.exists());
    assert_eq!(fs::metadata(store.blob_path(&ContentDigest::of(&one)).unwrap()).unwrap().ino(), inode);
    // Another name of the file could still be written to.
    fs::write(&b, &two).unwrap();
    fs::hard_link(&b, &c).unwrap();
    writer.adopt_blob(&b, &ContentDigest::of(&two), two.len() as u64).unwrap();
    fs::write(&c, "changed").unwrap();
    assert_eq!(store.content(&ContentDigest::of(&two)).unwrap().read_all().unwrap(), two);
    // Wrong size, and a digest that is checked because a copy is needed.
    fs::write(&b, large(3)).unwrap();
    assert!(writer.adopt_blob(&b, &ContentDigest::of(&large(3)), 70_000).is_err());
    fs::hard_link(&b, scratch.path().join("d")).unwrap();
    assert!(writer.adopt_blob(&b, &ContentDigest::of(b"other"), 200_000).is_err());
    let adopted = [one.as_slice(), &two];
    writer.finish(&diff(&adopted)).unwrap();
    assert!(store.check().unwrap().is_empty());
}

/// Every byte of a bundle, changed: an error or a miss, never other contents, and built anew afterwards.
#[test]
fn a_changed_byte_anywhere_is_found() {
    let (dir, store) = store();
    let contents: [&[u8]; 3] = [b"first file", b"second file", &large(1)];
    let id = commit(&store, &contents);
    let path = bundle_path(&store, &id);
    let good = fs::read(&path).unwrap();
    drop(store);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let _ = fs::remove_file(&path);
        fs::write(&path, &bytes).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let read = |store: &Store| -> Result<bool, StoreError> {
            let Some(loaded) = store.load_bundle(&id)? else { return Ok(false) };
            assert_eq!(*loaded, diff(&contents));
            for bytes in contents {
                assert_eq!(store.content(&ContentDigest::of(bytes))?.read_all()?, bytes);
            }
            Ok(true)
        };
        match read(&store) {
            // Only the magic at the start is read by nobody.
            Ok(whole) => assert!(whole && at < 16, "byte {at}"),
            Err(e) => {
                assert!(e.is_damage(), "byte {at}: {e}");
                assert!(store.load_bundle(&id).unwrap().is_none(), "set aside");
                assert_eq!(commit(&store, &contents), id);
                assert!(read(&store).unwrap());
            }
        }
    }
    for cut in [0, 1, good.len() / 2, good.len() - 1] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &good[..cut]).unwrap();
        assert!(Store::open(dir.path()).unwrap().load_bundle(&id).unwrap_err().is_damage());
        fs::write(&path, &good).unwrap();
    }
}

/// Damage shows while a bundle is in use that another one refers to: both are written anew, in the same process.
#[test]
fn damage_to_a_bundle_that_others_refer_to_is_repaired_by_building_again() {
    let (_dir, store) = store();
    let (below, above): ([&[u8]; 2], [&[u8]; 2]) = ([b"shared", b"below"], [b"shared", b"above"]);
    let (first, second) = (commit(&store, &below), commit(&store, &above));
    assert!(store.load_bundle(&second).unwrap().is_some());
    let path = bundle_path(&store, &first);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[17] ^= 1;
    fs::write(&path, bytes).unwrap();
    let digest = ContentDigest::of(b"shared");
    let error = store.content(&digest).unwrap().read_all().unwrap_err();
    assert!(error.is_damage() && error.to_string().starts_with("damaged file in bundle"), "{error}");
    assert!(store.load_bundle(&second).unwrap().is_none());
    assert_eq!(commit(&store, &above), second);
    assert!(store.load_bundle(&second).unwrap().is_some());
    assert_eq!(store.content(&digest).unwrap().read_all().unwrap(), b"shared");
    assert_eq!(commit(&store, &below), first);
    // What was set aside (the damaged one and the incomplete one) is told of, until it is collected.
    assert_eq!(store.check().unwrap().len(), 2);
    store.gc(&memobuild_store::GcOptions::default()).unwrap();
    assert_eq!(store.check().unwrap(), []);
}

#[test]
fn a_blob_of_another_boot_is_read_through_once() {
    let (dir, store) = store();
    let big = large(4);
    let digest = ContentDigest::of(&big);
    commit(&store, &[&big]);
    let path = store.blob_path(&digest).unwrap();
    let another_boot = |path: &PathBuf| {
        let file = fs::File::open(path).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(12345);
        file.set_modified(time).unwrap();
    };
    another_boot(&path);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.blob_path(&digest), Some(path.clone()));
    assert_ne!(fs::metadata(&path).unwrap().mtime(), 12345, "marked again");
    // Cut short by the crash.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, &big[..100]).unwrap();
    another_boot(&path);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.blob_path(&digest), None);
    assert!(matches!(store.content(&digest), Err(StoreError::MissingContent { .. })));
    commit(&store, &[&big, b"again"]);
    assert_eq!(store.content(&digest).unwrap().read_all().unwrap(), big);
    store.settle().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 1, "settled");
    assert!(Store::open(dir.path()).unwrap().blob_path(&digest).is_some());
}

#[test]
fn more_bundles_than_files_may_be_open() {
    let (dir, store) = store();
    let contents: Vec<String> = (0..450).map(|n| format!("content {n}")).collect();
    let ids: Vec<BundleId> = contents.iter().map(|c| commit(&store, &[c.as_bytes()])).collect();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    for _ in 0..2 {
        for (id, content) in ids.iter().zip(&contents) {
            store.load_bundle(id).unwrap().unwrap();
            let digest = ContentDigest::of(content.as_bytes());
            assert_eq!(store.content(&digest).unwrap().read_all().unwrap(), content.as_bytes());
        }
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() < 300);
    }
}

#[test]
fn a_new_store_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/store");
    let store = Store::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(store.blobs_dir()).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(store.warnings().is_empty());
}

#[test]
fn an_unknown_format_is_refused_and_left_alone() {
    let (dir, store) = store();
    drop(store);
    fs::write(dir.path().join("format"), "memobuild store 99\n").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, .. } if found == "memobuild store 99"));
    assert!(error.hint().unwrap().contains("MEMOBUILD_CACHE_DIR"));
}

#[test]
fn writers_of_the_same_bundle_at_the_same_time_don_t_take_it_from_each_other() {
    let (_dir, store) = store();
    for round in 0..200u32 {
        let contents: Vec<Vec<u8>> = (0..20u32).map(|n| format!("{round} {n}").into_bytes()).collect();
        let barrier = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for turn in 0..3 {
                let (store, contents, barrier) = (&store, &contents, &barrier);
                scope.spawn(move || {
                    let writer = store.bundle_writer();
                    // In another order, so that one file in place of the other is laid out differently.
                    let mut mine: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
                    let all = diff(&mine);
                    mine.rotate_left(turn);
                    for bytes in &mine {
                        writer.add_bytes(bytes).unwrap();
                    }
                    barrier.wait();
                    let id = writer.finish(&all).unwrap();
                    assert_eq!(*store.load_bundle(&id).unwrap().unwrap(), all);
                    for bytes in mine {
                        assert_eq!(store.content(&ContentDigest::of(bytes)).unwrap().read_all().unwrap(), bytes);
                    }
                });
            }
        });
    }
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn a_blob_that_is_no_longer_what_its_name_says_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bytes = vec![7; 100_000];
    let writer = store.bundle_writer();
    let (digest, _) = writer.add_reader(&mut bytes.as_slice(), 0).unwrap();
    let path = store.blob_path(&digest).unwrap();
    store.verify_blob(&digest).unwrap();
    std::fs::write(&path, b"else").unwrap();
    assert!(store.verify_blob(&digest).is_err());
    assert!(store.blob_path(&digest).is_none() && !path.exists());
    assert!(store.verify_blob(&digest).is_err());
}
