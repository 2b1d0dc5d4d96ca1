#![allow(missing_docs, unused_variables, clippy::todo)]
use std::{io::{self, Read, Write}, path::{Path, PathBuf}, sync::Arc, time::{Duration, SystemTime}, fs::File};
use memobuild_tree::{BundleId, ContentDigest, Diff, KeyDigest, Sha256Digest};
use crate::error::Result;

/// Files longer than this many bytes are blobs of their own; shorter ones are packed into bundles.
pub const LARGE_FILE: u64 = 64 * 1024;

/// What a record or tag keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ref { Bundle(BundleId), Oci(Sha256Digest), Content(ContentDigest) }

#[derive(Debug, Clone)]
pub struct Store(Arc<PathBuf>);

impl Store {
    pub fn open(dir: &Path) -> Result<Self> { todo!() }
    pub fn dir(&self) -> &Path { todo!() }
    /// What a person should be told about how the store was found (an index set aside).
    pub fn warnings(&self) -> Vec<String> { todo!() }
    /// Fails with `MissingContent` if it is not there.
    pub fn content(&self, digest: &ContentDigest) -> Result<Content> { todo!() }
    pub fn has_content(&self, digest: &ContentDigest) -> bool { todo!() }
    pub fn blob_path(&self, digest: &ContentDigest) -> Option<PathBuf> { todo!() }
    pub fn blobs_dir(&self) -> PathBuf { todo!() }
    /// Relative to `blobs_dir`: `ab/abcd...`.
    pub fn blob_rel_path(digest: &ContentDigest) -> String { todo!() }
    pub fn bundle_writer(&self) -> BundleWriter { todo!() }
    pub fn load_bundle(&self, id: &BundleId) -> Result<Option<Arc<Diff>>> { todo!() }
    pub fn has_bundle(&self, id: &BundleId) -> bool { todo!() }
    /// Whether the bundle is there; its contents are then known to `content` and to writers.
    pub fn hint_bundle(&self, id: &BundleId) -> Result<bool> { todo!() }
    pub fn record_get(&self, ns: &str, key: &KeyDigest) -> Result<Option<Vec<u8>>> { todo!() }
    pub fn record_put(&self, ns: &str, key: &KeyDigest, value: &[u8], refs: &[Ref]) -> Result<()> { todo!() }
    /// `false`: there is one already, which stays.
    pub fn record_put_new(&self, ns: &str, key: &KeyDigest, value: &[u8], refs: &[Ref]) -> Result<bool> { todo!() }
    pub fn record_list(&self, ns: &str) -> Result<Vec<KeyDigest>> { todo!() }
    pub fn record_delete(&self, ns: &str, key: &KeyDigest) -> Result<bool> { todo!() }
    pub fn tag_set(&self, name: &str, value: &[u8], refs: &[Ref]) -> Result<()> { todo!() }
    pub fn tag_get(&self, name: &str) -> Result<Option<Vec<u8>>> { todo!() }
    pub fn tags(&self) -> Result<Vec<(String, Vec<u8>)>> { todo!() }
    pub fn tag_remove(&self, name: &str) -> Result<bool> { todo!() }
    /// Writes batched last-use times. Also done when the last handle is dropped.
    pub fn flush(&self) -> Result<()> { todo!() }
    pub fn oci_blob_writer(&self) -> Result<OciBlobWriter> { todo!() }
    pub fn oci_blob_path(&self, digest: &Sha256Digest) -> Option<PathBuf> { todo!() }
    pub fn oci_blob_put(&self, bytes: &[u8]) -> Result<Sha256Digest> { todo!() }
    /// Waits for another process that downloads the same blob; `None` if the blob is there by then.
    pub fn partial(&self, digest: &Sha256Digest) -> Result<Option<Partial>> { todo!() }
    pub fn lease(&self) -> Result<Lease> { todo!() }
    pub fn lock(&self, name: &str, exclusive: bool) -> Result<FileLock> { todo!() }
    pub fn try_lock(&self, name: &str, exclusive: bool) -> Result<Option<FileLock>> { todo!() }
    pub fn scratch_dir(&self) -> Result<ScratchDir> { todo!() }
    /// The directory of a cache mount (made if absent), locked for as long as it is used.
    pub fn cache_mount(&self, key: &KeyDigest, exclusive: bool) -> Result<(PathBuf, FileLock)> { todo!() }
    pub fn usage(&self) -> Result<Usage> { todo!() }
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> { todo!() }
    pub fn check(&self) -> Result<Vec<Finding>> { todo!() }
}

/// The bytes of one file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Content(());
impl Content {
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 { todo!() }
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> { todo!() }
    pub fn reader(&self) -> ContentReader { todo!() }
    pub fn read_all(&self) -> Result<Vec<u8>> { todo!() }
}
#[derive(Debug)]
pub struct ContentReader(());
impl Read for ContentReader { fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> { todo!() } }

#[derive(Debug)]
pub struct BundleWriter(());
impl BundleWriter {
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<ContentDigest> { todo!() }
    pub fn add_reader(&self, reader: &mut dyn Read, size_hint: u64) -> Result<(ContentDigest, u64)> { todo!() }
    pub fn adopt_blob(&self, tmp: &Path, digest: &ContentDigest, size: u64) -> Result<()> { todo!() }
    pub fn finish(self, diff: &Diff) -> Result<BundleId> { todo!() }
}

#[derive(Debug)]
pub struct OciBlobWriter(());
impl Write for OciBlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> { todo!() }
    fn flush(&mut self) -> io::Result<()> { todo!() }
}
impl OciBlobWriter {
    pub fn finish(self, expected: Option<Sha256Digest>) -> Result<(Sha256Digest, u64)> { todo!() }
}
/// A download under way; what is written is appended to what an earlier attempt left.
#[derive(Debug)]
pub struct Partial(());
impl Partial {
    /// Bytes present: ask the registry for the rest.
    pub fn offset(&self) -> u64 { todo!() }
    /// The server can't resume: start at 0 again.
    pub fn restart(&mut self) -> Result<()> { todo!() }
    /// Checks the digest. On a mismatch what was downloaded is thrown away.
    pub fn finish(self) -> Result<u64> { todo!() }
}
impl Write for Partial {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> { todo!() }
    fn flush(&mut self) -> io::Result<()> { todo!() }
}
#[derive(Debug)]
pub struct Lease(());
#[derive(Debug)]
pub struct FileLock(());
#[derive(Debug)]
pub struct ScratchDir(PathBuf);
impl ScratchDir { pub fn path(&self) -> &Path { &self.0 } }
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    pub max_bytes: Option<u64>,
    pub keep_duration: Option<Duration>,
    pub all: bool,
    pub dry_run: bool,
}
#[derive(Debug, Clone, Default)]
pub struct GcReport { pub freed_bytes: u64, pub left_bytes: u64, pub records: u64, pub bundles: u64, pub blobs: u64, pub oci_blobs: u64, pub mounts: u64 }
#[derive(Debug, Clone)]
pub struct UsageItem { pub kind: &'static str, pub id: String, pub bytes: u64, pub last_used: Option<SystemTime>, pub in_use: bool }
#[derive(Debug, Clone, Default)]
pub struct Usage { pub items: Vec<UsageItem>, pub total_bytes: u64 }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding { pub path: PathBuf, pub what: String }

#[derive(Debug)] struct _Unused(File, SystemTime);
