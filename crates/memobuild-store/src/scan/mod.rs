//! The context scan: a directory on disk becomes a [`Tree`], reading only files that changed since the last scan.
//!
//! In: a directory, a filter (`.dockerignore`), and the stat cache of the last scan. Out: the tree, and a
//! [`ScanSource`] that gives the bytes of its files. Called for build contexts; never for step results, whose extended
//! attributes and times mean more.

mod assemble;
mod cache;
mod hash;
mod kept;
mod source;
mod walk;

use std::{any::Any, fs, io, path::Path, sync::Arc};

use memobuild_tree::Tree;

pub use self::source::{ScanSource, VerifiedReader};
use crate::{
    Store,
    error::{Result, StoreError},
};

/// Whether the stat cache in a file would be used by the next scan.
pub(crate) fn is_whole_cache(path: &Path) -> io::Result<bool> {
    cache::is_whole(&fs::File::open(path)?)
}

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
    /// Names left out by the filter.
    pub excluded: u64,
}

impl ScanStats {
    fn add(&mut self, other: &Self) {
        self.dirs += other.dirs;
        self.files += other.files;
        self.bytes += other.bytes;
        self.hashed += other.hashed;
        self.hashed_bytes += other.hashed_bytes;
        self.excluded += other.excluded;
    }
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

/// Scans with the default options. `cache` names the stat cache (the root's path is added to the name). Scans of one
/// root with different filters should use different names: a cache knows only what the last scan saw.
pub fn scan(root: &Path, filter: &dyn ScanFilter, cache: Option<(&Store, &str)>) -> Result<Scan> {
    scan_with(root, filter, cache, &ScanOptions::default())
}

/// Scans a directory. Symbolic links are taken as such, but for the root itself, which may be one.
///
/// Files that vanish meanwhile are left out; one that is written meanwhile is an error
/// ([`crate::StoreError::ChangedWhileRead`]) unless it holds still for as long as it takes to read it again.
pub fn scan_with(
    root: &Path,
    filter: &dyn ScanFilter,
    cache: Option<(&Store, &str)>,
    options: &ScanOptions,
) -> Result<Scan> {
    let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
    let place = cache.map(|(store, name)| (store, cache::path(store, &root, name)));
    let old = place.as_ref().and_then(|(_, path)| cache::Cache::read(path)).unwrap_or_default();
    let walked = walk::walk(&root, filter, &old, options)?;
    let changed = walked.stats.hashed > 0 || walked.seen != old.files();
    let assembled = assemble::assemble(walked.dirs, walked.links, place.is_some() && changed);
    if let (Some((store, path)), Some(bytes)) = (&place, assembled.cache) {
        // Only time is lost if it can't be written.
        let _ = cache::write(store, path, bytes);
    }
    Ok(Scan { tree: assembled.tree, stats: walked.stats, source: ScanSource::new(root, walked.root, walked.kept) })
}
