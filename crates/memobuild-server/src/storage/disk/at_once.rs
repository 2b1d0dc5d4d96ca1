//! Short answers: what is in memory, or takes a few system calls on what the kernel has in its own, is not worth a change
//! of threads.

use std::{
    fs::{self, File},
    io::{ErrorKind, IoSliceMut},
};

use axum::body::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

use super::{Inner, MOST_UNWRITTEN, now, recent::Entry};
use crate::{
    BlobId,
    storage::{AtOnce, rows::Used},
};

impl Inner {
    /// What must wait for the disk is [`AtOnce::Unknown`], and so is every failure: the functions that block tell of it.
    pub(super) fn at_once(&self, id: BlobId, most: u64) -> AtOnce {
        let now = now();
        let mut shard = self.recent.shard(id);
        if let Some(entry) = shard.get(id)
            && let Some(known) = known(entry, most)
        {
            // Uses are told apart by seconds.
            if entry.noted != now {
                if !self.note(id, now) {
                    return AtOnce::Unknown;
                }
                entry.noted = now;
            }
            return known;
        }
        let before = shard.forgotten;
        drop(shard);
        let Some(found) = (if most == 0 { self.length(id) } else { self.content(id, most) }) else {
            return AtOnce::Unknown;
        };
        let Some((size, content)) = found else { return AtOnce::Absent };
        // Where noting its use would mean writing it down, somebody who may block has to.
        if !self.note(id, now) {
            return AtOnce::Unknown;
        }
        let entry = Entry { size, content, noted: now };
        let known = known(&entry, most).unwrap_or(AtOnce::Unknown);
        self.recent.shard(id).put(id, entry, before);
        known
    }

    /// `None`: it can't be told. `Some(None)`: there is none.
    fn length(&self, id: BlobId) -> Option<Option<(u64, Option<Bytes>)>> {
        match fs::metadata(self.path(id)) {
            Ok(metadata) => Some(Some((metadata.len(), None))),
            Err(error) => (error.kind() == ErrorKind::NotFound).then_some(None),
        }
    }

    /// The same, with the bytes if there are at most `most`.
    fn content(&self, id: BlobId, most: u64) -> Option<Option<(u64, Option<Bytes>)>> {
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) => return (error.kind() == ErrorKind::NotFound).then_some(None),
        };
        let size = file.metadata().ok()?.len();
        if size > most {
            return Some(Some((size, None)));
        }
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        // Only what is in the page cache. A file system that can't tell (`EOPNOTSUPP`) is as one that would have to wait.
        if !bytes.is_empty() {
            let read = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT).ok()?;
            if read != bytes.len() {
                return None;
            }
        }
        Some(Some((size, Some(Bytes::from(bytes)))))
    }

    /// Remembers a use; `false` if too many wait to be written down.
    fn note(&self, id: BlobId, now: i64) -> bool {
        let mut used = self.used();
        let room = used.len() < MOST_UNWRITTEN - 1;
        if room {
            used.insert(Used::Blob(id), now);
        }
        room
    }
}

/// What an entry says to who asks for so much; `None` if the file must be looked at.
fn known(entry: &Entry, most: u64) -> Option<AtOnce> {
    match &entry.content {
        _ if most == 0 || entry.size > most => Some(AtOnce::Size(entry.size)),
        Some(content) => Some(AtOnce::Whole(content.clone())),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::{
        io::Read as _,
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    use memobuild_tree::ContentDigest;

    use super::*;
    use crate::storage::{CheckedWriter, DiskStorage, Storage as _};

    const MOST: u64 = 64 << 10;

    fn put(storage: &DiskStorage, bytes: &[u8]) -> BlobId {
        let id = BlobId::Content(ContentDigest::of(bytes));
        let mut writer = CheckedWriter::new(id, u64::MAX, Some(storage.blob_create(id).unwrap()));
        writer.take(bytes).unwrap();
        writer.finish().unwrap();
        id
    }

    /// As if nobody had asked for it for ten days.
    fn age(storage: &DiskStorage, id: BlobId) {
        storage.flush().unwrap();
        storage.inner.index().touch(&[(Used::Blob(id), now() - 864_000)].into()).unwrap();
    }

    fn collect(storage: &DiskStorage) -> u64 {
        storage.gc(Some(Duration::from_secs(86_400))).unwrap().blobs
    }

    /// A file system that can't tell what is in its page cache says nothing at once the first time.
    fn content(storage: &DiskStorage, id: BlobId) -> Option<Bytes> {
        match storage.blob_at_once(id, MOST) {
            AtOnce::Whole(bytes) => Some(bytes),
            AtOnce::Absent => None,
            AtOnce::Size(size) => panic!("{size} bytes are short"),
            AtOnce::Unknown => storage.blob_read(id, 0).unwrap().map(|mut blob| {
                let mut bytes = Vec::new();
                blob.content.read_to_end(&mut bytes).unwrap();
                bytes.into()
            }),
        }
    }

    #[test]
    fn short_ones_are_given_whole_and_long_ones_by_length() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let absent = BlobId::Content(ContentDigest::of(b"absent"));
        assert_eq!(storage.blob_at_once(absent, 0), AtOnce::Absent);
        assert_eq!(storage.blob_at_once(absent, MOST), AtOnce::Absent);
        for size in [0, 1, 4096, MOST, MOST + 1] {
            let bytes = vec![7; usize::try_from(size).unwrap()];
            let id = put(&storage, &bytes);
            // By length first, so that what is remembered then lacks the bytes.
            for _ in 0..2 {
                assert_eq!(storage.blob_at_once(id, 0), AtOnce::Size(size));
                match size > MOST {
                    true => assert_eq!(storage.blob_at_once(id, MOST), AtOnce::Size(size)),
                    false => assert_eq!(content(&storage, id).unwrap(), bytes),
                }
            }
        }
    }

    #[test]
    fn what_was_collected_is_gone_and_what_is_asked_for_stays() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let (id, asked) = (put(&storage, b"some"), put(&storage, b"other"));
        assert!(content(&storage, id).is_some() && content(&storage, asked).is_some());
        age(&storage, id);
        age(&storage, asked);
        // Uses are told apart by seconds: one in a later second than the last is noted.
        thread::sleep(Duration::from_millis(1100));
        assert!(content(&storage, asked).is_some());
        assert_eq!(collect(&storage), 1);
        assert_eq!(storage.blob_at_once(id, MOST), AtOnce::Absent);
        assert_eq!(storage.blob_at_once(id, 0), AtOnce::Absent);
        assert_eq!(content(&storage, asked).unwrap(), &b"other"[..]);
        put(&storage, b"some");
        assert_eq!(content(&storage, id).unwrap(), &b"some"[..]);
    }

    #[test]
    fn readers_never_bring_back_what_is_being_removed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for most in [0, MOST] {
                let (storage, stop) = (&storage, &stop);
                scope.spawn(move || {
                    let id = BlobId::Content(ContentDigest::of(b"here and gone"));
                    while !stop.load(Ordering::Relaxed) {
                        storage.blob_at_once(id, most);
                    }
                });
            }
            for _ in 0..200 {
                let id = put(&storage, b"here and gone");
                // A read may be noted after this; then it stays, and is there.
                age(&storage, id);
                collect(&storage);
                let there = storage.inner.path(id).exists();
                if !there {
                    assert_eq!(storage.blob_at_once(id, 0), AtOnce::Absent);
                    assert_eq!(storage.blob_at_once(id, MOST), AtOnce::Absent);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn uses_that_wait_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let id = put(&storage, b"some");
        for row in 0..i64::try_from(MOST_UNWRITTEN).unwrap() {
            storage.inner.used().insert(Used::Record(row), now());
        }
        assert_eq!(storage.blob_at_once(id, 0), AtOnce::Unknown);
        // Who may block writes them down, and the next may be answered at once again.
        assert_eq!(storage.blob_size(id).unwrap(), Some(4));
        assert_eq!(storage.blob_at_once(id, 0), AtOnce::Size(4));
    }
}
