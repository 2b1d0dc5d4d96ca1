//! The storage that any number of servers share: blobs in an object store, rows of them in a database.
//!
//! ```text
//! PREFIX/memobuild-server             which database this belongs to
//! PREFIX/blobs/ab/ab....UNIQUE        blobs by BLAKE3       PREFIX/layers/ab/ab....UNIQUE    blobs by SHA-256
//! ```
//!
//! A blob is received into a file of this machine without a name, compared with its digest, and only then uploaded; its
//! row comes once the object is whole. What is read goes from the object store to the client, a piece at a time.
//! [`metadata`] has the states of an object.

mod address;
pub(super) mod metadata;
mod objects;
mod reader;
mod uses;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use metadata::{Begun, Metadata};
use objects::Objects;
use uses::Uses;

use super::{
    BlobReader, BlobWriter, GcReport, LIST_ITEMS, Record, RecordPut, Result, Storage, StorageError, Usage, make_dir,
    postgres::{Database, Postgres},
    rows::{Table, Used, record_size},
    waiting::Waiting,
};
use crate::{BlobId, RecordKey};

/// How often room is made for one thing: what is freed may be taken by another server.
const ROOM_TRIES: usize = 8;

/// How often a collection may find that all it chose was used in the meantime.
const IDLE_ROUNDS: usize = 8;

/// Blobs in an object store, rows in a database.
pub struct SharedStorage {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Objects,
    metadata: Box<dyn Metadata>,
    uses: Uses,
    /// Where blobs are while they are received.
    spool: PathBuf,
    max_bytes: Option<u64>,
}

impl SharedStorage {
    /// Opens `storage` (`s3://`, `gs://` or `az://` with a bucket and a prefix) and the tables in `metadata`
    /// (`postgres://`), making the tables or bringing them to this version. At most `max_bytes` are kept, by all servers
    /// together. `dir` holds what is being received; what is in it can't be lost. Gives the database too: it has room
    /// for more than this.
    ///
    /// # Errors
    /// [`StorageError::Address`] for an address that can't be used, [`StorageError::Mismatch`] if the two don't belong
    /// together or are of a newer version, [`StorageError::Unavailable`] if one of them does not answer.
    pub(crate) fn open(storage: &str, metadata: &str, dir: &Path, max_bytes: Option<u64>) -> Result<(Self, Database)> {
        let waiting = Waiting::new()?;
        let (store, prefix) = address::open(storage)?;
        let objects = Objects::new(store, prefix, waiting.clone());
        let database = match metadata.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Database::open(metadata, waiting)?,
            _ => {
                let what = metadata.split("://").next().unwrap_or_default().to_owned();
                return Err(StorageError::Address { what, reason: "a database is postgres://...".into() });
            }
        };
        let metadata = Postgres::open(database.clone(), max_bytes)?;
        Ok((Self::with(objects, Box::new(metadata), dir, max_bytes)?, database))
    }

    fn with(objects: Objects, metadata: Box<dyn Metadata>, dir: &Path, max_bytes: Option<u64>) -> Result<Self> {
        let spool = dir.join("spool");
        make_dir(&spool)?;
        objects.belong_to(&metadata.identity()?, metadata.usage()?.blobs == 0)?;
        let storage = Self { inner: Arc::new(Inner { objects, metadata, uses: Uses::default(), spool, max_bytes }) };
        // The cap may be lower than last time.
        storage.gc(None)?;
        Ok(storage)
    }
}

impl Inner {
    fn touch(&self, used: impl IntoIterator<Item = Used>) -> Result<()> {
        if self.uses.add(used) { self.write_uses() } else { Ok(()) }
    }

    fn write_uses(&self) -> Result<()> {
        self.uses.take(|used| self.metadata.touch(used))
    }

    /// Removes what was not used for this long, and more until at most `most` bytes are used.
    fn collect(&self, unused_for: Option<Duration>, most: Option<u64>) -> Result<GcReport> {
        let mut report = GcReport::default();
        let mut idle = 0;
        self.write_uses()?;
        while idle < IDLE_ROUNDS
            && let Some(removed) = self.metadata.collect(unused_for, most)?
        {
            idle = if removed.blobs + removed.records == 0 { idle + 1 } else { 0 };
            report.blobs += removed.blobs;
            report.records += removed.records;
            report.freed_bytes += removed.bytes;
            self.delete_garbage()?;
        }
        self.delete_garbage()?;
        Ok(report)
    }

    fn delete_garbage(&self) -> Result<()> {
        loop {
            let objects = self.metadata.garbage()?;
            if objects.is_empty() {
                return Ok(());
            }
            self.objects.delete(&objects)?;
            self.metadata.forget(&objects)?;
        }
    }

    /// Does what needs so many bytes, and removes what was not used for longest while it finds no room.
    /// [`StorageError::Full`] if that does not help.
    fn with_room<T>(&self, bytes: u64, work: impl Fn() -> Result<Option<T>>) -> Result<T> {
        for _ in 0..ROOM_TRIES {
            if let Some(done) = work()? {
                return Ok(done);
            }
            let max = self.max_bytes.unwrap_or(u64::MAX);
            if bytes > max {
                break;
            }
            // A tenth more than needed, so that not every request has to make room; but never for its own sake alone.
            self.collect(None, Some((max - max / 10).min(max - bytes)))?;
        }
        Err(StorageError::Full)
    }

    fn insert(&self, table: Table, key: &RecordKey, record: &Record, keep: usize) -> Result<RecordPut> {
        self.with_room(record_size(record), || self.metadata.insert(table, key, record, keep))
    }

    /// Puts an item at the head of a list and keeps the newest `keep`; gives the blobs that are missing.
    fn add_to_list(&self, key: &RecordKey, item: &Record, keep: usize) -> Result<Vec<BlobId>> {
        match self.insert(Table::Lists, key, item, keep)? {
            RecordPut::Missing(missing) => Ok(missing),
            RecordPut::Stored | RecordPut::Existing(_) => Ok(Vec::new()),
        }
    }

    /// A blob has a row and its object is not there. It goes, unless it is the object store that is not itself.
    fn lost(&self, id: BlobId, object: &str) -> Result<()> {
        self.objects.ready()?;
        tracing::warn!("the object of blob {id} is gone; the blob is forgotten");
        self.metadata.lost(id, object)
    }
}

impl Storage for SharedStorage {
    fn blob_size(&self, id: BlobId) -> Result<Option<u64>> {
        let size = self.inner.metadata.find(&[id])?.get(&id).map(|place| place.size);
        if size.is_some() {
            self.inner.touch([Used::Blob(id)])?;
        }
        Ok(size)
    }

    fn blobs_missing(&self, ids: &[BlobId]) -> Result<Vec<BlobId>> {
        let found = self.inner.metadata.find(ids)?;
        self.inner.touch(found.keys().map(|id| Used::Blob(*id)))?;
        Ok(ids.iter().filter(|id| !found.contains_key(id)).copied().collect())
    }

    fn blob_read(&self, id: BlobId, from: u64) -> Result<Option<BlobReader>> {
        let Some(place) = self.inner.metadata.find(&[id])?.remove(&id) else { return Ok(None) };
        let Some(reader) = self.inner.objects.read(&place.object, from, place.size)? else {
            self.inner.lost(id, &place.object)?;
            return Ok(None);
        };
        self.inner.touch([Used::Blob(id)])?;
        Ok(Some(BlobReader { size: place.size, content: Box::new(reader) }))
    }

    fn blob_create(&self, id: BlobId) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(writer::SpoolWriter::new(self.inner.clone(), id)))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>> {
        let Some((row, record)) = self.inner.metadata.select(Table::Records, key)?.pop() else { return Ok(None) };
        self.inner.touch(record.blobs.iter().map(|id| Used::Blob(*id)).chain([Used::Record(row)]))?;
        Ok(Some(record))
    }

    fn record_put(&self, key: &RecordKey, record: &Record) -> Result<RecordPut> {
        self.inner.insert(Table::Records, key, record, 1)
    }

    fn list(&self, key: &RecordKey) -> Result<Vec<Record>> {
        let mut found = self.inner.metadata.select(Table::Lists, key)?;
        found.truncate(LIST_ITEMS);
        for (row, item) in &found {
            self.inner.touch(item.blobs.iter().map(|id| Used::Blob(*id)).chain([Used::Record(*row)]))?;
        }
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    fn list_add(&self, key: &RecordKey, item: &Record) -> Result<Vec<BlobId>> {
        self.inner.add_to_list(key, item, LIST_ITEMS)
    }

    fn slot_put(&self, key: &RecordKey, record: &Record) -> Result<Vec<BlobId>> {
        // What nobody will see again need not take room, nor be kept for being used with the newest.
        self.inner.add_to_list(key, record, 1)
    }

    fn gc(&self, unused_for: Option<Duration>) -> Result<GcReport> {
        self.inner.collect(unused_for, self.inner.max_bytes)
    }

    fn ready(&self) -> Result<()> {
        self.inner.metadata.ready()?;
        self.inner.objects.ready()
    }

    fn usage(&self) -> Result<Usage> {
        self.inner.metadata.usage()
    }

    /// Also deletes objects that were left behind, by whatever server.
    fn flush(&self) -> Result<()> {
        self.inner.write_uses()?;
        self.inner.delete_garbage()
    }
}

#[cfg(test)]
mod tests;
