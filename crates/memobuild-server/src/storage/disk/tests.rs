#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use memobuild_tree::ContentDigest;

use super::*;
use crate::storage::conformance::{self, Bed, key, put};

/// A storage in a directory that goes with it.
struct Disk {
    storage: DiskStorage,
    _dir: tempfile::TempDir,
}

impl Bed for Disk {
    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn age(&self, id: BlobId, seconds: i64) {
        self.storage.flush().unwrap();
        self.storage.inner.index().touch(&HashMap::from([(Used::Blob(id), now() - seconds)])).unwrap();
    }

    fn counted(&self) {
        counted(&self.storage);
        assert_eq!(fs::read_dir(self.storage.inner.dir.join("tmp")).unwrap().count(), 0);
    }
}

/// What is kept in memory is what the database has.
fn counted(storage: &DiskStorage) {
    assert_eq!(
        storage.usage().unwrap(),
        Usage { max_bytes: storage.inner.space.max_bytes(), ..storage.inner.index().count().unwrap() }
    );
}

#[test]
fn does_what_every_storage_does() {
    conformance::all(&|max_bytes| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(Disk { storage: DiskStorage::open(dir.path(), max_bytes).unwrap(), _dir: dir })
    });
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
fn what_is_being_received_counts() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DiskStorage::open(dir.path(), None).unwrap();
    let mut writer = storage.blob_create(BlobId::Content(ContentDigest::of(b"x"))).unwrap();
    writer.write(&[0; 1000]).unwrap();
    assert_eq!(storage.usage().unwrap().bytes, 1000);
    drop(writer);
    assert_eq!(storage.usage().unwrap().bytes, 0);
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("format"), "memobuild-server 9\n").unwrap();
    assert!(matches!(DiskStorage::open(dir.path(), None), Err(StorageError::Format { .. })));
}
