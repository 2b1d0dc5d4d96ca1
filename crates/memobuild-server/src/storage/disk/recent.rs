//! What was asked for lately, in memory: lengths of blobs, and small ones whole. It holds what the directory holds, never
//! more: a blob that is removed is forgotten, and whoever looked at its file before that can't put it back here.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;

use crate::BlobId;

/// Parts with a lock of their own, chosen by the digest.
const SHARDS: usize = 16;

/// The most that one generation of a shard holds: of contents in bytes, and of blobs. Two generations of all shards come
/// to 32 MiB, and to some 16 MiB for a hundred thousand lengths.
const MOST_BYTES: usize = 1 << 20;
const MOST_ENTRIES: usize = 4096;

/// A blob that is there.
#[derive(Clone)]
pub(super) struct Entry {
    /// Its length in bytes.
    pub(super) size: u64,
    /// All of it, if it is short and was asked for.
    pub(super) content: Option<Bytes>,
    /// When its use was last noted, in seconds since 1970.
    pub(super) noted: i64,
}

/// A full generation becomes the old one, and the old one goes; what is found in the old one moves to the young one.
#[derive(Default)]
pub(super) struct Shard {
    young: HashMap<BlobId, Entry>,
    old: HashMap<BlobId, Entry>,
    /// Bytes of the young ones' contents.
    bytes: usize,
    /// How often something was forgotten.
    pub(super) forgotten: u64,
}

impl Shard {
    /// A blob that is known to be there.
    pub(super) fn get(&mut self, id: BlobId) -> Option<&mut Entry> {
        if !self.young.contains_key(&id) {
            let entry = self.old.remove(&id)?;
            self.insert(id, entry);
        }
        self.young.get_mut(&id)
    }

    /// Takes a blob that was found on disk after [`Shard::forgotten`] was `before`. It may be gone by now otherwise.
    pub(super) fn put(&mut self, id: BlobId, entry: Entry, before: u64) {
        if self.forgotten == before {
            self.old.remove(&id);
            self.insert(id, entry);
        }
    }

    fn insert(&mut self, id: BlobId, entry: Entry) {
        let length = |entry: &Entry| entry.content.as_ref().map_or(0, Bytes::len);
        if self.bytes + length(&entry) > MOST_BYTES || self.young.len() >= MOST_ENTRIES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += length(&entry);
        if let Some(replaced) = self.young.insert(id, entry) {
            self.bytes -= length(&replaced);
        }
    }

    fn forget(&mut self, id: BlobId) {
        self.forgotten += 1;
        self.old.remove(&id);
        if let Some(content) = self.young.remove(&id).and_then(|entry| entry.content) {
            self.bytes -= content.len();
        }
    }
}

/// All shards.
#[derive(Default)]
pub(super) struct Recent([Mutex<Shard>; SHARDS]);

impl Recent {
    /// The part that a blob is in.
    pub(super) fn shard(&self, id: BlobId) -> MutexGuard<'_, Shard> {
        let [first, ..] = id.as_bytes();
        let [shard, ..] = &self.0;
        let shard = self.0.get(usize::from(*first) % SHARDS).unwrap_or(shard);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called once a blob's file is gone.
    pub(super) fn forget(&self, id: BlobId) {
        self.shard(id).forget(id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use memobuild_tree::ContentDigest;

    use super::*;

    fn entry(length: usize) -> Entry {
        Entry { size: length as u64, content: Some(Bytes::from(vec![0; length])), noted: 0 }
    }

    fn id(n: u64) -> BlobId {
        BlobId::Content(ContentDigest::of(&n.to_le_bytes()))
    }

    #[test]
    fn what_is_forgotten_stays_so() {
        let mut shard = Shard::default();
        shard.put(id(1), entry(10), 0);
        assert_eq!(shard.get(id(1)).unwrap().size, 10);
        // Somebody looks at the file, it is removed, and only then they come back with what they saw.
        let before = shard.forgotten;
        shard.forget(id(1));
        shard.put(id(1), entry(10), before);
        assert!(shard.get(id(1)).is_none());
        assert_eq!(shard.bytes, 0);
        let before = shard.forgotten;
        shard.put(id(1), entry(10), before);
        assert!(shard.get(id(1)).is_some());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let mut shard = Shard::default();
        let held = |shard: &Shard| -> usize {
            let all = shard.young.values().chain(shard.old.values());
            all.filter_map(|entry| entry.content.as_ref()).map(Bytes::len).sum()
        };
        shard.put(id(0), entry(1000), 0);
        for n in 1..200 {
            shard.put(id(n), entry(64 << 10), 0);
            assert!(held(&shard) <= 2 * MOST_BYTES, "{n}");
            assert!(shard.get(id(0)).is_some(), "{n}");
        }
        assert!(shard.get(id(1)).is_none());
        for n in 200..20_000 {
            shard.put(id(n), Entry { content: None, ..entry(0) }, 0);
            assert!(shard.young.len() + shard.old.len() <= 2 * MOST_ENTRIES);
        }
        // The same again takes no more.
        let mut shard = Shard::default();
        for _ in 0..100 {
            shard.put(id(1), entry(64 << 10), 0);
        }
        assert_eq!((shard.bytes, held(&shard)), (64 << 10, 64 << 10));
    }
}
