//! The embedded storage: blobs as files named by digest, records and last uses in SQLite.
//!
//! ```text
//! format            the layout's version
//! lock              held by the one server that uses the directory
//! index.sqlite      records; sizes and last uses of blobs
//! blobs/ab/ab...    blobs by BLAKE3       layers/ab/ab...   blobs by SHA-256
//! tmp/              what is being received; emptied at each start
//! spare             room that is given up when the disk is full
//! ```
//!
//! A file is synced before it gets its final name, and the directory before the client is told; so what has a name is
//! whole. The row of a blob comes after its file: one that was killed in between is put in at the next start.

mod at_once;
mod blob;
mod collect;
mod index;
mod recent;
mod space;
mod spare;

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    io::{ErrorKind, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use index::Index;
use recent::Recent;
use space::Space;

use super::{
    AtOnce, BlobReader, BlobWriter, GcReport, LIST_ITEMS, Record, RecordPut, Result, Storage, StorageError, Usage,
    make_dir,
    rows::{Table, Used, record_size},
};
use crate::{BlobId, RecordKey};

const FORMAT: &str = "memobuild-server 1\n";

/// How many uses are remembered before they are written down.
const MOST_UNWRITTEN: usize = 10_000;

/// Blobs and records in a directory of this machine.
pub struct DiskStorage {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    index: Mutex<Index>,
    space: Space,
    /// Last uses, in seconds since 1970, that the index does not have yet: a GET must not wait for a write.
    used: Mutex<HashMap<Used, i64>>,
    recent: Recent,
    /// Read: a file gets its name and its row. Write: a row and its file go. So no row is left without its file.
    naming: RwLock<()>,
    /// Held while the directory is in use.
    _lock: File,
}

impl DiskStorage {
    /// Opens the directory, or makes it. At most `max_bytes` are kept.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has it open, [`StorageError::Format`] if it is of an unknown version.
    pub fn open(dir: &Path, max_bytes: Option<u64>) -> Result<Self> {
        let tmp = dir.join("tmp");
        make_dir(&tmp)?;
        let lock = lock(dir)?;
        check_format(dir)?;
        blob::empty(&tmp)?;
        blob::create_dirs(dir)?;
        let mut index = Index::open(&dir.join("index.sqlite"))?;
        blob::reconcile(dir, &mut index)?;
        let space = Space::new(index.count()?.bytes, max_bytes);
        let inner = Inner {
            dir: dir.to_owned(),
            index: Mutex::new(index),
            space,
            used: Mutex::default(),
            recent: Recent::default(),
            naming: RwLock::default(),
            _lock: lock,
        };
        let storage = Self { inner: Arc::new(inner) };
        // The cap may be lower than last time.
        storage.gc(None)?;
        spare::hold(dir);
        Ok(storage)
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Used, i64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: BlobId) -> PathBuf {
        blob::path(&self.dir, id)
    }

    fn touch(&self, used: impl IntoIterator<Item = Used>) -> Result<()> {
        let now = now();
        let mut map = self.used();
        map.extend(used.into_iter().map(|u| (u, now)));
        if map.len() < MOST_UNWRITTEN {
            return Ok(());
        }
        drop(map);
        // Reading goes on where nothing can be written.
        if let Err(error) = self.write_uses() {
            tracing::warn!("cannot write down what was used last: {error}");
        }
        Ok(())
    }

    fn write_uses(&self) -> Result<()> {
        let used = std::mem::take(&mut *self.used());
        if used.is_empty() {
            return Ok(());
        }
        let written = self.index().touch(&used);
        // They are tried again, unless they grow to too many.
        if written.is_err() && used.len() < MOST_UNWRITTEN {
            let mut map = self.used();
            for (what, at) in used {
                map.entry(what).or_insert(at);
            }
        }
        written
    }

    /// Puts a row into the index, with room for it.
    fn insert(&self, table: Table, key: &RecordKey, record: &Record) -> Result<RecordPut> {
        let room = self.reserve(record_size(record))?;
        let put = self.index().insert(table, key, record, now())?;
        if put == RecordPut::Stored {
            room.keep();
        }
        Ok(put)
    }
}

impl Inner {
    /// Puts an item at the head of a list and keeps the newest `most`; gives the blobs that are missing.
    fn add_to_list(&self, key: &RecordKey, item: &Record, most: usize) -> Result<Vec<BlobId>> {
        if let RecordPut::Missing(missing) = self.insert(Table::Lists, key, item)? {
            return Ok(missing);
        }
        let freed = self.index().shorten(key, most)?;
        self.space.release(freed);
        Ok(Vec::new())
    }
}

impl Storage for DiskStorage {
    fn blob_size(&self, id: BlobId) -> Result<Option<u64>> {
        let path = self.inner.path(id);
        match fs::metadata(&path) {
            Ok(metadata) => {
                self.inner.touch([Used::Blob(id)])?;
                Ok(Some(metadata.len()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("read", &path)(error)),
        }
    }

    fn blob_read(&self, id: BlobId, from: u64) -> Result<Option<BlobReader>> {
        let path = self.inner.path(id);
        let failed = |error| StorageError::io("read", &path)(error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let size = file.metadata().map_err(failed)?.len();
        if from > 0 {
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
        }
        self.inner.touch([Used::Blob(id)])?;
        Ok(Some(BlobReader { size, content: Box::new(file) }))
    }

    fn blob_at_once(&self, id: BlobId, most: u64) -> AtOnce {
        self.inner.at_once(id, most)
    }

    fn blob_create(&self, id: BlobId) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(blob::DiskWriter::new(self.inner.clone(), id)?))
    }

    fn record(&self, key: &RecordKey) -> Result<Option<Record>> {
        let found = self.inner.index().select(Table::Records, key, 1)?.pop();
        let Some((row, record)) = found else { return Ok(None) };
        self.inner.touch(record.blobs.iter().map(|id| Used::Blob(*id)).chain([Used::Record(row)]))?;
        Ok(Some(record))
    }

    fn record_put(&self, key: &RecordKey, record: &Record) -> Result<RecordPut> {
        self.inner.insert(Table::Records, key, record)
    }

    fn list(&self, key: &RecordKey) -> Result<Vec<Record>> {
        let found = self.inner.index().select(Table::Lists, key, LIST_ITEMS)?;
        for (row, item) in &found {
            self.inner.touch(item.blobs.iter().map(|id| Used::Blob(*id)).chain([Used::Record(*row)]))?;
        }
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    fn list_add(&self, key: &RecordKey, item: &Record) -> Result<Vec<BlobId>> {
        self.inner.add_to_list(key, item, LIST_ITEMS)
    }

    fn slot_put(&self, key: &RecordKey, record: &Record) -> Result<Vec<BlobId>> {
        // What nobody will see again need not take room.
        self.inner.add_to_list(key, record, 1)
    }

    fn gc(&self, unused_for: Option<Duration>) -> Result<GcReport> {
        let before = unused_for.map(|span| now().saturating_sub(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)));
        self.inner.collect(before, self.inner.space.max_bytes())
    }

    fn ready(&self) -> Result<()> {
        let tmp = self.inner.dir.join("tmp");
        fs::metadata(&tmp).map_err(StorageError::io("read", &tmp))?;
        self.inner.index().ready()
    }

    fn usage(&self) -> Result<Usage> {
        let usage = self.inner.index().usage();
        Ok(Usage { bytes: self.inner.space.used(), max_bytes: self.inner.space.max_bytes(), ..usage })
    }

    fn flush(&self) -> Result<()> {
        self.inner.write_uses()
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let lock = File::create(&path).map_err(StorageError::io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse(dir.display().to_string())),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path)(error)),
    }
}

fn check_format(dir: &Path) -> Result<()> {
    let path = dir.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => Err(StorageError::Format {
            path: dir.display().to_string(),
            found: found.trim().to_owned(),
            expected: FORMAT.trim(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::write(&path, FORMAT).map_err(StorageError::io("write", &path))
        }
        Err(error) => Err(StorageError::io("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests;
