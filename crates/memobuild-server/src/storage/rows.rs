//! What rows of blobs and of records are, whatever database keeps them.

use super::Record;
use crate::BlobId;

/// Whether a key has one value or a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Records,
    Lists,
}

/// A row that has a last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Used {
    Blob(BlobId),
    Record(i64),
}

/// A row that may go.
pub(super) struct Oldest {
    pub(super) what: Used,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) last_used: i64,
}

/// What went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    pub(super) blobs: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Removed {
    pub(super) fn add(&mut self, other: &Self) {
        self.blobs += other.blobs;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What a record counts in the cap, in bytes: its value, and about what its rows take.
pub(super) fn record_size(record: &Record) -> u64 {
    200 + record.value.len() as u64 + 100 * record.blobs.len() as u64
}

/// By what equal items of a list are found: BLAKE3 of the value, framed by its length, and the blobs.
pub(super) fn item_digest(item: &Record) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(item.value.len() as u64).to_le_bytes()).update(&item.value);
    for id in &item.blobs {
        hasher.update(&[u8::from(kind(*id) == 1)]).update(id.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The number of a blob's kind, as databases have it.
pub(super) fn kind(id: BlobId) -> i16 {
    match id {
        BlobId::Content(_) => 0,
        BlobId::Layer(_) => 1,
    }
}

pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
