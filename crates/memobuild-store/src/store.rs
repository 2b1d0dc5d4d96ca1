//! The handle: everything else of this crate hangs on it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use memobuild_tree::{ContentDigest, Sha256Digest};

use crate::{
    bundle::Bundles,
    content::Provider,
    digest_map::DigestSet,
    error::Result,
    index::Index,
    layout::{Layout, blob_rel_path, set_aside},
    lease::{ProcessLease, SharedLease},
    records::write_used,
    upstream::Upstream,
};

/// One cache directory, open. Cheap to clone; all methods may be called from any thread, and any number of processes
/// may have the same directory open.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    warning: Option<String>,
    index: Index,
    lease: SharedLease,
    bundles: Bundles,
    /// Blobs that this process has seen to be whole.
    blobs: RwLock<DigestSet<ContentDigest>>,
    oci_blobs: RwLock<DigestSet<Sha256Digest>>,
    /// Blobs written by this process and not synced yet.
    unsettled: Mutex<Vec<PathBuf>>,
    /// Rows of records that were used.
    used: Mutex<Vec<i64>>,
    set_aside: AtomicU64,
    providers: Helpers<dyn Provider>,
    upstreams: Helpers<dyn Upstream>,
}

/// Those who know or bring what is not here.
struct Helpers<T: ?Sized>(Mutex<Vec<Arc<T>>>);

impl<T: ?Sized> Default for Helpers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: ?Sized> std::fmt::Debug for Helpers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Helpers")
    }
}

impl Store {
    /// Opens the store in this directory, making it (mode 0700) if it is not there. Takes two system calls where it
    /// is; the index is opened when it is first needed.
    pub fn open(dir: &Path) -> Result<Self> {
        let (layout, warning) = Layout::open(dir)?;
        Ok(Self(Arc::new(Inner {
            index: Index::new(&layout),
            lease: Arc::new(ProcessLease::new(&layout)),
            warning,
            layout,
            bundles: Bundles::default(),
            blobs: RwLock::default(),
            oci_blobs: RwLock::default(),
            unsettled: Mutex::default(),
            used: Mutex::default(),
            set_aside: AtomicU64::new(0),
            providers: Helpers::default(),
            upstreams: Helpers::default(),
        })))
    }

    pub(crate) fn with_providers<T>(&self, act: impl FnOnce(&mut Vec<Arc<dyn Provider>>) -> T) -> T {
        act(&mut self.0.providers.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn with_upstreams<T>(&self, act: impl FnOnce(&mut Vec<Arc<dyn Upstream>>) -> T) -> T {
        act(&mut self.0.upstreams.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.layout.dir
    }

    /// What a person should be told: a damaged index that was set aside, another user's directory. Ask at the end.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warning.iter().cloned().chain(self.0.index.warnings()).collect()
    }

    /// How many damaged or incomplete things this process has set aside. Whoever fails while this number grows may try
    /// again: what was damaged is a miss by then, and there is only so much of it.
    pub fn set_aside_count(&self) -> u64 {
        self.0.set_aside.load(Ordering::Relaxed)
    }

    /// Renames something damaged, so that it counts as not there.
    pub(crate) fn set_aside(&self, path: &Path) {
        if set_aside(path) {
            self.count_set_aside();
        }
    }

    pub(crate) fn count_set_aside(&self) {
        self.0.set_aside.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the blobs of large files are.
    pub fn blobs_dir(&self) -> PathBuf {
        self.0.layout.blobs()
    }

    /// The path of a blob relative to [`Store::blobs_dir`]: `ab/abcd...`.
    pub fn blob_rel_path(digest: &ContentDigest) -> String {
        blob_rel_path(digest)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn index(&self) -> &Index {
        &self.0.index
    }

    pub(crate) fn process_lease(&self) -> &ProcessLease {
        &self.0.lease
    }

    pub(crate) fn bundles(&self) -> &Bundles {
        &self.0.bundles
    }

    pub(crate) fn whole_blobs(&self) -> &RwLock<DigestSet<ContentDigest>> {
        &self.0.blobs
    }

    pub(crate) fn whole_oci_blobs(&self) -> &RwLock<DigestSet<Sha256Digest>> {
        &self.0.oci_blobs
    }

    pub(crate) fn note_unsettled(&self, path: PathBuf) {
        self.0.unsettled.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    pub(crate) fn take_unsettled(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.0.unsettled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn note_used(&self, row: i64) {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    pub(crate) fn take_used(&self) -> Vec<i64> {
        std::mem::take(&mut *self.0.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let used = std::mem::take(self.used.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !used.is_empty() && self.index.is_open() {
            // Last-use times only order what GC removes: losing some is no failure.
            let _ = write_used(&self.index, &used);
        }
    }
}
