//! The bytes of files that a scan has seen, provided that they still are what it saw.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use memobuild_tree::ContentDigest;
use rustix::fs::{Mode, OFlags, openat};

use super::kept::Kept;
use crate::{
    BundleWriter,
    error::{Result, StoreError},
};

/// Reads the files of a scanned directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScanSource {
    root: Arc<PathBuf>,
    dir: Arc<OwnedFd>,
    kept: Arc<Kept>,
}

impl ScanSource {
    pub(super) fn new(root: PathBuf, dir: Arc<OwnedFd>, kept: Kept) -> Self {
        Self { root: Arc::new(root), dir, kept: Arc::new(kept) }
    }

    /// The directory that was scanned, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds a file to a bundle, by its path in the scanned tree and the size it had.
    ///
    /// # Errors
    /// [`StoreError::ChangedWhileRead`] if it has not this digest any more.
    pub fn store(&self, path: &[u8], digest: &ContentDigest, size: u64, writer: &BundleWriter) -> Result<()> {
        if let Some(bytes) = self.kept.get(digest) {
            return writer.add_small(*digest, bytes);
        }
        let (mut file, full) = self.open_file(path)?;
        let (found, _) = writer.add_reader(&mut file, size)?;
        if found == *digest { Ok(()) } else { Err(StoreError::ChangedWhileRead { path: full }) }
    }

    /// Opens a file by its path in the scanned tree (a leading `/` is accepted). Unless what is read has this digest,
    /// the reader ends with an error whose inner error is [`StoreError::ChangedWhileRead`].
    pub fn open(&self, path: &[u8], digest: &ContentDigest) -> Result<VerifiedReader> {
        let (file, path) = self.open_file(path)?;
        Ok(VerifiedReader { file, hasher: blake3::Hasher::new(), digest: *digest, path })
    }

    fn open_file(&self, path: &[u8]) -> Result<(File, PathBuf)> {
        let start = path.iter().take_while(|b| **b == b'/').count();
        let relative = path.get(start..).unwrap_or_default();
        let full = self.root.join(std::ffi::OsStr::from_bytes(relative));
        // Should a directory on the way have become a link, the digest tells.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match openat(&self.dir, relative, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => {
                return Err(StoreError::ChangedWhileRead { path: full });
            }
            // A socket, which a scan takes for an empty file.
            Err(rustix::io::Errno::NXIO) => {
                let empty = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                empty.map_err(StoreError::sys("open", "/dev/null"))?
            }
            Err(e) => return Err(StoreError::sys("open", &full)(e)),
        };
        Ok((File::from(fd), full))
    }
}

/// A reader whose end is an error if what was read has not the expected digest.
pub struct VerifiedReader {
    file: File,
    hasher: blake3::Hasher,
    digest: ContentDigest,
    path: PathBuf,
}

impl fmt::Debug for VerifiedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedReader({})", self.path.display())
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        if n == 0 && !buf.is_empty() && ContentDigest::from(self.hasher.finalize()) != self.digest {
            return Err(io::Error::other(StoreError::ChangedWhileRead { path: self.path.clone() }));
        }
        Ok(n)
    }
}
