//! Locks with names, held across processes: a cache mount used by one step at a time, a step run once at a time.
//!
//! They are `flock`s, so they vanish with their holder, however it ends. Threads of one process exclude each other
//! too, since every lock opens its file anew. Waiting is not fair, and a lock must not be taken twice by one thread.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use memobuild_tree::KeyDigest;
use rustix::{
    fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock},
    io::Errno,
};

use crate::{
    Store,
    error::{Result, StoreError},
};

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    pub(crate) file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes a lock on a file, made if absent. Without `wait`, `None` if it is held.
    pub(crate) fn take(path: &Path, exclusive: bool, wait: bool) -> Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(StoreError::io("open", path))?;
            if !flock_file(&file, exclusive, wait).map_err(StoreError::io("lock", path))? {
                return Ok(None);
            }
            // GC may have removed the file between the opening and the locking: then this lock excludes nobody.
            if is_at(&file, path) {
                return Ok(Some(Self { file, path: path.to_path_buf() }));
            }
        }
    }

    /// Removes the file behind the lock, while it is held.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Not left to closing: a child that was forked meanwhile may still hold a copy of the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Locks an open file; `false` if it is held by another and `wait` was not asked for.
pub(crate) fn flock_file(file: &File, exclusive: bool, wait: bool) -> io::Result<bool> {
    let operation = match (exclusive, wait) {
        (true, true) => FlockOperation::LockExclusive,
        (true, false) => FlockOperation::NonBlockingLockExclusive,
        (false, true) => FlockOperation::LockShared,
        (false, false) => FlockOperation::NonBlockingLockShared,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether that path still names this very file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

impl Store {
    /// The directory of a cache mount, made if absent, and a lock on it that keeps it from being collected. Exclusive
    /// for `sharing=locked`, shared for `sharing=shared`.
    pub fn cache_mount(&self, key: &KeyDigest, exclusive: bool) -> Result<(PathBuf, FileLock)> {
        let path = self.layout().mount_lock(key);
        loop {
            let Some(lock) = FileLock::take(&path, exclusive, true)? else { continue };
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            rustix::fs::futimens(&lock.file, &Timestamps { last_access: now, last_modification: now })
                .map_err(|e| StoreError::io("write", &path)(e.into()))?;
            let dir = self.layout().mount(key);
            match std::fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::io("make", &dir)(e)),
                _ => return Ok((dir, lock)),
            }
        }
    }

    /// Waits for and takes the lock of that name.
    pub fn lock(&self, name: &str, exclusive: bool) -> Result<FileLock> {
        loop {
            if let Some(lock) = FileLock::take(&self.layout().lock(name), exclusive, true)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock of that name if nobody holds it (or all who do share it).
    pub fn try_lock(&self, name: &str, exclusive: bool) -> Result<Option<FileLock>> {
        FileLock::take(&self.layout().lock(name), exclusive, false)
    }
}
