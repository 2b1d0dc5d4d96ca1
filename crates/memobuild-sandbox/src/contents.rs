//! Where the bytes behind a tree's digests come from, and where harvested bytes go. Implemented over the store.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use memobuild_tree::ContentDigest;

/// Bytes that can be read at any place, from several threads.
pub trait ReadAt: Send + Sync {
    /// Reads into the buffer from a byte offset; 0 only at or after the end. May read less than asked.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// File contents by digest. Any error here fails the running step: a program might take it for "not there".
pub trait Contents: Send + Sync {
    /// The bytes behind a digest.
    fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>>;
    /// The path, relative to [`Contents::blobs_dir`], of a file on disk that holds exactly these bytes; `None` when
    /// there is none (small files in bundles). Must stay in place as long as a step runs.
    fn native(&self, digest: &ContentDigest, size: u64) -> Option<PathBuf>;
    /// Files of at most so many bytes never have a path of their own.
    fn native_above(&self) -> u64;
    /// The directory that [`Contents::native`] paths start from. Absolute.
    fn blobs_dir(&self) -> Option<&Path>;
    /// Takes a harvested file of at most [`crate::Outcome::SMALL_FILE`] bytes.
    fn put_small(&self, bytes: &[u8]) -> io::Result<ContentDigest>;
    /// Takes a harvested file that was hashed, made readable (0444, owned by the calling user where ids are mapped)
    /// and moved to a temporary path in scratch. To be adopted by rename; what is left at `tmp` is deleted with the
    /// scratch directory.
    fn put_large(&self, tmp: &Path, digest: ContentDigest, size: u64) -> io::Result<()>;
}
