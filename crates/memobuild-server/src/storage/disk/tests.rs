#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use memobuild_tree::ContentDigest;

use super::*;
use crate::storage::{CheckedWriter, Committed};

fn put(storage: &DiskStorage, bytes: &[u8]) -> Result<(BlobId, Committed)> {
    let id = BlobId::Content(ContentDigest::of(bytes));
    let mut writer = CheckedWriter::new(id, u64::MAX, Some(storage.blob_create(id)?));
    writer.take(bytes)?;
    Ok((id, writer.finish()?))
}

fn key(n: u8) -> RecordKey {
    format!("test:{}", ContentDigest::of(&[n])).parse().unwrap()
}

/// What is kept in memory is what the database has.
fn counted(storage: &DiskStorage) {
    assert_eq!(
        storage.usage().unwrap(),
        Usage { max_bytes: storage.inner.space.max_bytes(), ..storage.inner.index().count().unwrap() }
    );
}

/// As if last used so many seconds ago.
fn age(storage: &DiskStorage, what: Used, seconds: i64) {
    storage.flush().unwrap();
    storage.inner.index().touch(&HashMap::from([(what, now() - seconds)])).unwrap();
}

#[test]
fn the_first_record_stays_and_needs_its_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), None).unwrap();
    let absent = BlobId::Content(ContentDigest::of(b"absent"));
    let (there, _) = put(&storage, b"there").unwrap();
    let incomplete = Record { value: b"a".to_vec(), blobs: vec![there, absent] };
    assert_eq!(storage.record_put(&key(1), &incomplete).unwrap(), RecordPut::Missing(vec![absent]));
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    let first = Record { value: b"a".to_vec(), blobs: vec![there] };
    assert_eq!(storage.record_put(&key(1), &first).unwrap(), RecordPut::Stored);
    let second = Record { value: b"b".to_vec(), blobs: vec![] };
    assert_eq!(storage.record_put(&key(1), &second).unwrap(), RecordPut::Existing(first.clone()));
    assert_eq!(storage.record(&key(1)).unwrap(), Some(first));
    assert_eq!(storage.record(&key(2)).unwrap(), None);
}

#[test]
fn lists_are_bounded_and_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), None).unwrap();
    let item = |n: usize| Record { value: vec![u8::try_from(n).unwrap()], blobs: vec![] };
    for n in 0..LIST_ITEMS + 5 {
        assert!(storage.list_add(&key(1), &item(n)).unwrap().is_empty());
    }
    let before = storage.usage().unwrap();
    storage.list_add(&key(1), &item(10)).unwrap();
    let list = storage.list(&key(1)).unwrap();
    assert_eq!(list.len(), LIST_ITEMS);
    assert_eq!(list.first(), Some(&item(10)));
    assert_eq!(list.get(1), Some(&item(LIST_ITEMS + 4)));
    assert_eq!(list.iter().filter(|i| **i == item(10)).count(), 1);
    assert_eq!(storage.usage().unwrap(), before);
    counted(&storage);
    assert_eq!(storage.record(&key(1)).unwrap(), None);
}

#[test]
fn what_was_not_used_for_longest_goes_with_the_records_that_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), Some(10_000)).unwrap();
    let (old, _) = put(&storage, &[1; 4000]).unwrap();
    let (newer, _) = put(&storage, &[2; 4000]).unwrap();
    storage.record_put(&key(1), &Record { value: vec![], blobs: vec![old] }).unwrap();
    age(&storage, Used::Blob(old), 100);
    age(&storage, Used::Blob(newer), 50);
    let (last, committed) = put(&storage, &[3; 4000]).unwrap();
    assert_eq!(committed, Committed::Created);
    assert_eq!(storage.blob_size(old).unwrap(), None);
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    assert_eq!(storage.blob_size(newer).unwrap(), Some(4000));
    assert_eq!(storage.blob_size(last).unwrap(), Some(4000));
    assert_eq!(storage.usage().unwrap().bytes, 8000);
    assert!(matches!(put(&storage, &[4; 10_001]), Err(StorageError::Full)));
    assert_eq!(storage.usage().unwrap().bytes, 8000);
    assert_eq!(storage.blob_size(last).unwrap(), Some(4000));

    age(&storage, Used::Blob(newer), 3 * 86_400);
    let report = storage.gc(Some(Duration::from_secs(2 * 86_400))).unwrap();
    assert_eq!(report, GcReport { blobs: 1, records: 0, freed_bytes: 4000 });
    assert_eq!(storage.blob_size(newer).unwrap(), None);
    counted(&storage);
    assert_eq!(storage.blob_size(last).unwrap(), Some(4000));
}

#[test]
fn a_start_sets_right_what_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), None).unwrap();
    let (whole, _) = put(&storage, b"whole").unwrap();
    let (gone, _) = put(&storage, b"gone").unwrap();
    let (cut, _) = put(&storage, b"cut short").unwrap();
    storage.record_put(&key(1), &Record { value: vec![], blobs: vec![cut] }).unwrap();
    assert!(matches!(DiskStorage::open(dir.path(), None), Err(StorageError::InUse(_))));
    let path = |id| blob::path(dir.path(), id);
    fs::remove_file(path(gone)).unwrap();
    fs::write(path(cut), b"cut").unwrap();
    // Named, but killed before it had a row.
    let rowless = BlobId::Content(ContentDigest::of(b"rowless"));
    fs::write(path(rowless), b"rowless").unwrap();
    fs::write(dir.path().join("tmp/half"), b"ha").unwrap();
    drop(storage);

    let storage = DiskStorage::open(dir.path(), None).unwrap();
    assert_eq!(storage.blob_size(whole).unwrap(), Some(5));
    assert_eq!(storage.blob_size(gone).unwrap(), None);
    assert_eq!(storage.blob_size(cut).unwrap(), None);
    assert_eq!(storage.record(&key(1)).unwrap(), None);
    assert_eq!(storage.blob_size(rowless).unwrap(), Some(7));
    counted(&storage);
    assert_eq!(storage.usage().unwrap(), Usage { blobs: 2, records: 0, bytes: 12, max_bytes: None });
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    let missing = Record { value: vec![], blobs: vec![rowless, gone] };
    assert_eq!(storage.record_put(&key(2), &missing).unwrap(), RecordPut::Missing(vec![gone]));
}

#[test]
fn a_writer_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), None).unwrap();
    let id = BlobId::Content(ContentDigest::of(b"x"));
    let mut writer = storage.blob_create(id).unwrap();
    writer.write(&[0; 1000]).unwrap();
    assert_eq!(storage.usage().unwrap().bytes, 1000);
    drop(writer);
    assert_eq!(storage.usage().unwrap().bytes, 0);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(put(&storage, b"x").unwrap().1, Committed::Created);
    assert_eq!(put(&storage, b"x").unwrap().1, Committed::Existed);
    assert_eq!(storage.usage().unwrap().bytes, 1);
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("format"), "memobuild-server 9\n").unwrap();
    assert!(matches!(DiskStorage::open(dir.path(), None), Err(StorageError::Format { .. })));
}
