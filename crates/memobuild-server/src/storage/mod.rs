//! Where blobs and records are kept: the trait that all storages have, and what is common to them.
//!
//! The functions block. Files and SQLite do so anyway, tests need no runtime, and a storage that talks to a network can
//! wait on one of its own; whoever calls from asynchronous code does it on a thread for blocking work. A client that sends
//! slowly holds none: a body is handed over in pieces.

mod checked;
#[cfg(test)]
mod conformance;
mod disk;
mod error;
mod postgres;
mod rows;
mod shared;
mod waiting;

use std::{fs::DirBuilder, io::Read, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc, time::Duration};

use axum::body::Bytes;
pub use checked::CheckedWriter;
pub use disk::DiskStorage;
pub use error::StorageError;
pub(crate) use postgres::Database;
#[cfg(test)]
pub(crate) use postgres::testing;
pub(crate) use rows::{signed, unsigned};
pub use shared::SharedStorage;

use crate::{BlobId, Config, RecordKey};

/// The result of a storage's functions.
pub type Result<T> = std::result::Result<T, StorageError>;

/// The most items that a list keeps; the oldest go.
pub const LIST_ITEMS: usize = 32;

/// Keeps blobs and records.
///
/// A blob is there whole or not at all, whatever process or machine goes down. A record is there only while all blobs
/// that it names are.
pub trait Storage: Send + Sync + 'static {
    /// How long a blob is, in bytes; `None` if it is not there. Counts as a use.
    fn blob_size(&self, id: BlobId) -> Result<Option<u64>>;

    /// Which of these blobs are not there, in their order. Counts as a use of the others.
    fn blobs_missing(&self, ids: &[BlobId]) -> Result<Vec<BlobId>> {
        let mut missing = Vec::new();
        for id in ids {
            if self.blob_size(*id)?.is_none() {
                missing.push(*id);
            }
        }
        Ok(missing)
    }

    /// A blob's bytes from this offset on; `None` if it is not there. Counts as a use.
    fn blob_read(&self, id: BlobId, from: u64) -> Result<Option<BlobReader>>;

    /// What is known of a blob without waiting: called on threads that serve other clients meanwhile, so that short answers
    /// need no other thread. Blobs of at most `most` bytes are given whole, of others the length; with 0 of all of them.
    /// Counts as a use, unless it is [`AtOnce::Unknown`].
    fn blob_at_once(&self, _id: BlobId, _most: u64) -> AtOnce {
        AtOnce::Unknown
    }

    /// Takes a blob's bytes. The writer does not compare digests: wrap it in a [`CheckedWriter`].
    fn blob_create(&self, id: BlobId) -> Result<Box<dyn BlobWriter>>;

    /// The value under this key. Counts as a use of it and of the blobs that it names.
    fn record(&self, key: &RecordKey) -> Result<Option<Record>>;

    /// Keeps a value under a key that has none, if the blobs that it names are there.
    fn record_put(&self, key: &RecordKey, record: &Record) -> Result<RecordPut>;

    /// The items of a list, newest first. Counts as a use of them.
    fn list(&self, key: &RecordKey) -> Result<Vec<Record>>;

    /// Puts an item at the head of a list, if the blobs that it names are there. An equal one is moved to the head; of
    /// more than [`LIST_ITEMS`] the oldest go. Gives the blobs that are missing: none if it was added.
    fn list_add(&self, key: &RecordKey, item: &Record) -> Result<Vec<BlobId>>;

    /// The value in a *slot*, which is a list of which the newest item counts. Counts as a use of it.
    fn slot(&self, key: &RecordKey) -> Result<Option<Record>> {
        Ok(self.list(key)?.into_iter().next())
    }

    /// Puts a value in a slot, in the place of what may be there, if the blobs that it names are there. Gives the blobs
    /// that are missing: none if it was stored.
    fn slot_put(&self, key: &RecordKey, record: &Record) -> Result<Vec<BlobId>> {
        self.list_add(key, record)
    }

    /// Removes what was not used for this long, and, least recently used first, what is above the size cap.
    fn gc(&self, unused_for: Option<Duration>) -> Result<GcReport>;

    /// Whether blobs and records can be read: soon answered, and asked often.
    fn ready(&self) -> Result<()>;

    /// What is kept.
    fn usage(&self) -> Result<Usage>;

    /// Writes down what is remembered in memory only, such as last uses. Called now and then, and at the end.
    fn flush(&self) -> Result<()>;
}

/// Opens the storage that a server is configured with; gives the database too, if several servers share one.
///
/// # Errors
/// [`StorageError::Address`] for two places that don't go together, and what opening either storage gives.
pub(crate) fn open(config: &Config) -> Result<(Arc<dyn Storage>, Option<Database>)> {
    let (dir, max_size) = (&config.data_dir, config.max_size);
    match (&config.storage, &config.metadata) {
        (None, None) => Ok((Arc::new(DiskStorage::open(dir, max_size)?), None)),
        (Some(storage), Some(metadata)) => {
            let (storage, database) = SharedStorage::open(storage, metadata, dir, max_size)?;
            Ok((Arc::new(storage), Some(database)))
        }
        (Some(what), None) => Err(StorageError::Address {
            what: what.clone(),
            reason: "blobs in an object store need a database beside it (--metadata postgres://...)".into(),
        }),
        (None, Some(_)) => Err(StorageError::Address {
            what: "--metadata".into(),
            reason: "a shared database needs a shared object store beside it (--storage s3://...)".into(),
        }),
    }
}

/// A blob being read.
pub struct BlobReader {
    /// Length of the whole blob in bytes, wherever the reading starts.
    pub size: u64,
    /// Its bytes, from the offset asked for.
    pub content: Box<dyn Read + Send>,
}

/// What [`Storage::blob_at_once`] knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtOnce {
    /// Nothing: the functions that block must be asked.
    Unknown,
    /// There is no such blob.
    Absent,
    /// How long it is, in bytes.
    Size(u64),
    /// All of it.
    Whole(Bytes),
}

/// A blob being received. Dropped without [`BlobWriter::commit`] it leaves nothing behind.
pub trait BlobWriter: Send {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes what was written durable, then visible.
    fn commit(self: Box<Self>) -> Result<Committed>;
}

/// Whether a blob is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It was not there before.
    Created,
    /// An equal one was there.
    Existed,
}

/// A small value and the blobs that it is useless without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The value; the storage does not look into it.
    pub value: Vec<u8>,
    /// The blobs that it names.
    pub blobs: Vec<BlobId>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordPut {
    /// It is the first under its key.
    Stored,
    /// This one was there before, and stays.
    Existing(Record),
    /// These blobs are not there; nothing was stored.
    Missing(Vec<BlobId>),
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs removed.
    pub blobs: u64,
    /// Records and items of lists removed, those whose blobs went included.
    pub records: u64,
    /// Bytes of all of them.
    pub freed_bytes: u64,
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: u64,
    /// Number of records and items of lists.
    pub records: u64,
    /// Bytes of all of them, and of what is being received.
    pub bytes: u64,
    /// The most bytes that there may be.
    pub max_bytes: Option<u64>,
}

/// Makes a directory, and those above it, that only the server's user may look into: where one was before, it stays as it
/// is.
fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StorageError::io("create", path))
}
