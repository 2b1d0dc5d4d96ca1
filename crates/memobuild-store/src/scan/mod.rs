//! The context scan: a directory on disk becomes a [`Tree`], reading only files that changed since the last scan.

use std::{any::Any, fs::File, io, path::Path, sync::Arc};

use memobuild_tree::{ContentDigest, Tree};

use crate::{Store, error::Result};

/// What to do with one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the result.
    Include,
    /// It is not, nor is anything below it.
    Exclude,
    /// It is not itself part of the result, but something below it may be; it then appears as a parent directory.
    ExcludeButEnter,
}

/// What a filter wants to remember about a directory for its children. Made only for directories that are entered.
pub type FilterState = Option<Arc<dyn Any + Send + Sync>>;

/// Decides which names a scan sees. Called once for each name, from several threads, parents before their children.
pub trait ScanFilter: Sync {
    /// `path` is relative to the root, `/`-separated, without a leading slash, never empty. `parent` is the state that
    /// this filter gave for the directory that holds the name (`None` for the root).
    fn verdict(&self, path: &[u8], is_dir: bool, parent: &FilterState) -> (Verdict, FilterState);

    /// Whether every name is included: the scan then never builds paths for the filter.
    fn includes_all(&self) -> bool {
        false
    }
}

/// Includes everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everything;

impl ScanFilter for Everything {
    fn verdict(&self, _: &[u8], _: bool, _: &FilterState) -> (Verdict, FilterState) {
        (Verdict::Include, None)
    }

    fn includes_all(&self) -> bool {
        true
    }
}

/// How to scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// The owner that every node gets; `None` keeps the owners on disk.
    pub owner: Option<(u32, u32)>,
    /// Threads that walk; 0 means as many as there are processors, up to 8.
    pub threads: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { owner: Some((0, 0)), threads: 0 }
    }
}

/// What a scan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Directories entered.
    pub dirs: u64,
    /// Regular files in the result.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Files that had to be read.
    pub hashed: u64,
    /// Bytes that had to be read.
    pub hashed_bytes: u64,
    /// Names left out: by the filter, and sockets.
    pub excluded: u64,
}

/// The outcome of a scan.
#[derive(Debug)]
pub struct Scan {
    /// What is there. Times are ambient, extended attributes are left out.
    pub tree: Tree,
    /// What it took.
    pub stats: ScanStats,
    /// Reads the files of the tree.
    pub source: ScanSource,
}

/// Scans with the default options. `cache` names the stat cache (a context's name; the root's path is added to it).
pub fn scan(root: &Path, filter: &dyn ScanFilter, cache: Option<(&Store, &str)>) -> Result<Scan> {
    scan_with(root, filter, cache, &ScanOptions::default())
}

/// Scans a directory.
pub fn scan_with(
    root: &Path,
    filter: &dyn ScanFilter,
    cache: Option<(&Store, &str)>,
    options: &ScanOptions,
) -> Result<Scan> {
    let _ = (root, filter, cache, options);
    todo!()
}

/// Gives the bytes of files that a scan has seen, provided that they still are what it saw.
#[derive(Debug, Clone)]
pub struct ScanSource {
    root: Arc<std::path::PathBuf>,
}

impl ScanSource {
    /// The directory that was scanned.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a file of the scan by its path relative to the root. The reader ends with an error
    /// ([`crate::StoreError::ChangedWhileRead`] as the inner error) unless the bytes have the digest.
    pub fn open(&self, path: &[u8], digest: &ContentDigest) -> Result<VerifiedReader> {
        let _ = (path, digest);
        todo!()
    }
}

/// A reader whose end is an error if what was read has not the expected digest.
#[derive(Debug)]
pub struct VerifiedReader {
    file: File,
}

impl io::Read for VerifiedReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}
