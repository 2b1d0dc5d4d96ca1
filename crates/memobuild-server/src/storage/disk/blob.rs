//! Blobs as files: how one comes in, and what is set right at the start.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use tempfile::NamedTempFile;

use super::{Inner, index::Index, now};
use crate::{
    BlobId,
    storage::{BlobWriter, Committed, Result, StorageError, make_dir},
};

/// Where a blob is; the first two digits spread blobs over directories.
pub(super) fn path(dir: &Path, id: BlobId) -> PathBuf {
    let hex = id.hex();
    let kind = match id {
        BlobId::Content(_) => "blobs",
        BlobId::Layer(_) => "layers",
    };
    dir.join(kind).join(hex.get(..2).unwrap_or_default()).join(&hex)
}

/// A blob being received, under a temporary name.
pub(super) struct DiskWriter {
    inner: Arc<Inner>,
    id: BlobId,
    file: NamedTempFile,
    /// Bytes reserved, which are given back unless the blob is kept.
    reserved: u64,
}

impl DiskWriter {
    pub(super) fn new(inner: Arc<Inner>, id: BlobId) -> Result<Self> {
        let tmp = inner.dir.join("tmp");
        let file = NamedTempFile::new_in(&tmp).map_err(StorageError::io("create a file in", &tmp))?;
        Ok(Self { inner, id, file, reserved: 0 })
    }
}

impl Inner {
    /// Removes a file that got a name and no row, because of a full disk perhaps: nobody was told that it is there. An equal
    /// one that had its row before stays.
    fn forget_unlisted(&self, id: BlobId) {
        let _naming = self.naming.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.index().has_blob(id), Ok(false)) {
            // What can't be removed gets its row at the next start.
            let _ = fs::remove_file(self.path(id));
            self.recent.forget(id);
        }
    }
}

impl BlobWriter for DiskWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        self.inner.reserve(size)?.keep();
        self.reserved += size;
        self.file.write_all(bytes).map_err(StorageError::io("write", self.file.path()))
    }

    fn commit(mut self: Box<Self>) -> Result<Committed> {
        self.file.as_file().sync_data().map_err(StorageError::io("sync", self.file.path()))?;
        let path = path(&self.inner.dir, self.id);
        let parent = path.parent().unwrap_or(&self.inner.dir);
        let naming = self.inner.naming.read().unwrap_or_else(PoisonError::into_inner);
        // Of several equal ones that come at once each replaces the other: whoever is told that it is there can read it.
        fs::rename(self.file.path(), &path).map_err(StorageError::io("name", &path))?;
        let added = self.inner.index().add_blob(self.id, self.reserved, now());
        drop(naming);
        let new = match added {
            Ok(new) => new,
            Err(error) => {
                self.inner.forget_unlisted(self.id);
                return Err(error);
            }
        };
        if new {
            self.reserved = 0;
        }
        sync_dir(parent)?;
        Ok(if new { Committed::Created } else { Committed::Existed })
    }
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        self.inner.space.release(self.reserved);
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StorageError::io("sync", dir))
}

/// Makes the directories that blobs are spread over, all of them and durably: who stores a blob need not think of them.
pub(super) fn create_dirs(dir: &Path) -> Result<()> {
    for kind in ["blobs", "layers"] {
        let kind = dir.join(kind);
        for fan in 0..=u8::MAX {
            make_dir(&kind.join(format!("{fan:02x}")))?;
        }
        sync_dir(&kind)?;
    }
    sync_dir(dir)
}

/// Removes the files in a directory.
pub(super) fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(StorageError::io("read", dir))? {
        let path = entry.map_err(StorageError::io("read", dir))?.path();
        fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
    }
    Ok(())
}

/// Makes files and rows agree: a file without a row gets one, a row without a file goes. A file of another length than
/// its row says was damaged from outside: both go.
pub(super) fn reconcile(dir: &Path, index: &mut Index) -> Result<()> {
    let mut rows: HashMap<BlobId, u64> = index.blobs()?;
    for kind in ["blobs", "layers"] {
        for fan in entries(&dir.join(kind))? {
            for path in entries(&fan)? {
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let id = match kind {
                    "blobs" => name.parse(),
                    _ => format!("sha256:{name}").parse(),
                };
                let Ok(id) = id else { continue };
                let size = fs::metadata(&path).map_err(StorageError::io("read", &path))?.len();
                match rows.remove(&id) {
                    None => {
                        index.add_blob(id, size, now())?;
                    }
                    Some(expected) if expected == size => {}
                    Some(expected) => {
                        fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
                        rows.insert(id, expected);
                    }
                }
            }
        }
    }
    index.remove_blobs(rows.into_keys())?;
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(StorageError::io("read", dir))?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(StorageError::io("read", dir)(error)),
    }
}
