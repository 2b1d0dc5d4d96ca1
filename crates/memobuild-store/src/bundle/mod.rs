//! Bundles: one step's diff and its small files in one file.
//!
//! In: contents and a [`Diff`], from whoever ran a step or imported a layer ([`BundleWriter`]). Out: the diff again,
//! and contents by digest. A bundle is complete or it is not there: its large files are blobs and contents that an
//! earlier bundle holds are referred to, and both are checked when it is loaded. What is found damaged is set aside, so
//! that it counts as a miss from then on and is written anew.

mod format;
mod writer;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use memobuild_tree::{BundleId, ContentDigest, Diff, codec};

pub(crate) use self::format::{Footer, Tables};
pub use self::writer::BundleWriter;
pub(crate) use self::writer::copy_checked;
use crate::{
    Ref, Store,
    digest_map::DigestMap,
    error::{Result, StoreError},
};

/// Open bundle files kept at once; past this number all are closed and opened again as they are needed.
const MAX_OPEN: usize = 200;

/// The bundles that this process knows, and where in them which content lies.
#[derive(Debug, Default)]
pub(crate) struct Bundles {
    known: RwLock<Known>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: DigestMap<BundleId, Arc<Bundle>>,
    contents: DigestMap<ContentDigest, (Arc<Bundle>, u32)>,
}

/// One bundle's tables in memory; its file is opened when contents are read.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) id: BundleId,
    pub(crate) path: PathBuf,
    /// Device and inode that the tables were read from: another file under the same name is laid out differently.
    identity: (u64, u64),
    footer: Footer,
    pub(crate) tables: Tables,
    diff: OnceLock<Arc<Diff>>,
    /// Whether all that it refers to was found, since it has been held.
    complete: AtomicBool,
    file: Mutex<Option<Arc<File>>>,
    /// One bit for each packed content: whether it was found to have its digest.
    verified: Box<[AtomicU64]>,
}

impl Bundle {
    fn new(id: BundleId, path: PathBuf, identity: (u64, u64), footer: Footer, tables: Tables) -> Self {
        let words = tables.len().div_ceil(64);
        Self {
            id,
            path,
            identity,
            footer,
            tables,
            diff: OnceLock::new(),
            complete: AtomicBool::new(false),
            file: Mutex::new(None),
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Reads the tables of a bundle file. `None` if there is no such file.
    pub(crate) fn read(id: BundleId, path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("open", path)(e)),
        };
        let meta = file.metadata().map_err(StoreError::io("inspect", path))?;
        let (footer, tables) = format::read(&file, meta.len()).map_err(|e| corrupt("bundle", path, e))?;
        Ok(Some(Self::new(id, path.to_path_buf(), (meta.dev(), meta.ino()), footer, tables)))
    }

    /// The file, opened if it is not. `None` if it is not the one that the tables came from.
    fn file(&self, open: &AtomicUsize) -> io::Result<Option<Arc<File>>> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot {
            return Ok(Some(file.clone()));
        }
        let file = File::open(&self.path)?;
        let meta = file.metadata()?;
        if (meta.dev(), meta.ino()) != self.identity {
            return Ok(None);
        }
        open.fetch_add(1, Ordering::Relaxed);
        Ok(Some(slot.insert(Arc::new(file)).clone()))
    }

    /// The diff, checked against the bundle's name.
    pub(crate) fn read_diff(&self, open: &AtomicUsize) -> Result<Diff> {
        let file = self.file(open).map_err(StoreError::io("open", &self.path))?;
        let file = file.ok_or_else(|| corrupt("bundle", &self.path, "replaced while it was in use".into()))?;
        let mut bytes = vec![0; self.footer.diff_len()];
        file.read_exact_at(&mut bytes, self.footer.diff_at()).map_err(StoreError::io("read", &self.path))?;
        if codec::bundle_id(&bytes) != self.id {
            return Err(corrupt("bundle", &self.path, "its diff does not have the digest that names it".into()));
        }
        codec::decode(&bytes).map_err(|e| corrupt("bundle", &self.path, e.to_string()))
    }

    /// Whether the file begins as a bundle does. Only the check asks: nothing is read by it.
    pub(crate) fn begins_right(&self, open: &AtomicUsize) -> Result<bool> {
        let file = self.file(open).map_err(StoreError::io("open", &self.path))?;
        let file = file.ok_or_else(|| corrupt("bundle", &self.path, "replaced while it was in use".into()))?;
        let mut begin = [0; format::MAGIC.len()];
        file.read_exact_at(&mut begin, 0).map_err(StoreError::io("read", &self.path))?;
        Ok(begin == *format::MAGIC)
    }

    /// The bytes of the packed content with that number, verified.
    pub(crate) fn read_packed(&self, open: &AtomicUsize, number: u32) -> Result<Vec<u8>> {
        let damage = |detail: &str| corrupt("file in bundle", &self.path, detail.into());
        let entry = self.tables.get(number).ok_or_else(|| damage("no such entry"))?;
        let file = self.file(open).map_err(StoreError::io("open", &self.path))?;
        let file = file.ok_or_else(|| damage("replaced while it was in use"))?;
        let mut bytes = vec![0; entry.len as usize];
        match file.read_exact_at(&mut bytes, entry.at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(damage("cut short")),
            other => other.map_err(StoreError::io("read", &self.path))?,
        }
        if !self.is_verified(number) {
            if ContentDigest::of(&bytes) != entry.digest {
                return Err(damage(&format!("content {} has other bytes", entry.digest)));
            }
            if let Some(word) = self.verified.get(number as usize / 64) {
                word.fetch_or(1 << (number % 64), Ordering::Relaxed);
            }
        }
        Ok(bytes)
    }

    /// Part of a content that was verified before.
    pub(crate) fn read_packed_at(
        &self,
        open: &AtomicUsize,
        number: u32,
        buf: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        let Some(entry) = self.tables.get(number) else { return Ok(0) };
        let left = u64::from(entry.len).saturating_sub(offset);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(buf) = buf.get_mut(..wanted).filter(|b| !b.is_empty()) else { return Ok(0) };
        match self.file(open)? {
            Some(file) => file.read_at(buf, entry.at + offset),
            None => Err(io::Error::other("the bundle was replaced while it was in use")),
        }
    }

    pub(crate) fn is_verified(&self, number: u32) -> bool {
        let word = self.verified.get(number as usize / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }
}

/// Damage at a path.
pub(crate) fn corrupt(what: &'static str, path: &Path, detail: String) -> StoreError {
    StoreError::Corrupt { what, path: path.to_path_buf(), detail }
}

impl Bundles {
    /// The bundle and entry that hold a content.
    pub(crate) fn find(&self, digest: &ContentDigest) -> Option<(Arc<Bundle>, u32)> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contents.get(digest).cloned()
    }

    fn get(&self, id: &BundleId) -> Option<Arc<Bundle>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_id.get(id).cloned()
    }

    /// Makes a bundle's contents known. One that another thread registered meanwhile stays.
    fn register(&self, bundle: Bundle) -> Arc<Bundle> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bundle) = known.by_id.get(&bundle.id) {
            return bundle.clone();
        }
        let bundle = Arc::new(bundle);
        known.by_id.insert(bundle.id, bundle.clone());
        known.contents.reserve(bundle.tables.len());
        for (number, entry) in (0u32..).zip(bundle.tables.iter()) {
            known.contents.entry(entry.digest).or_insert_with(|| (bundle.clone(), number));
        }
        bundle
    }

    /// Forgets a bundle and every place in it.
    fn forget(&self, id: &BundleId) {
        self.forget_all(&|other| other == id);
    }

    /// Forgets all bundles that this is true of.
    pub(crate) fn forget_all(&self, gone: &dyn Fn(&BundleId) -> bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.by_id.len();
        known.by_id.retain(|id, _| !gone(id));
        if known.by_id.len() < before {
            known.contents.retain(|_, (bundle, _)| !gone(&bundle.id));
            // Any of the others may have referred to it.
            known.by_id.values().for_each(|bundle| bundle.complete.store(false, Ordering::Relaxed));
        }
    }

    /// Something that bundles may refer to is gone: each is looked at again when it is next asked for.
    pub(crate) fn doubt(&self) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.values().for_each(|bundle| bundle.complete.store(false, Ordering::Relaxed));
    }

    /// The number of open bundle files; closes them all when there are too many.
    pub(crate) fn open_files(&self) -> &AtomicUsize {
        if self.open.load(Ordering::Relaxed) > MAX_OPEN {
            self.open.store(0, Ordering::Relaxed);
            for bundle in self.known.read().unwrap_or_else(PoisonError::into_inner).by_id.values() {
                *bundle.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        &self.open
    }
}

impl Store {
    /// The diff of a bundle; its contents, and those of the bundles that it refers to, are then known to
    /// [`Store::content`] and to writers. `None` if it is not there, or not completely: then it is set aside, so that
    /// nobody takes it for a result from then on. That of an upstream has contents that are still to be brought.
    ///
    /// Damage is an error once; what is damaged has then been set aside.
    pub fn load_bundle(&self, id: &BundleId) -> Result<Option<Arc<Diff>>> {
        let Some(bundle) = self.complete_bundle(id)? else {
            if let Some(bundle) = self.bundles().get(id) {
                self.drop_bundle(&bundle, &StoreError::MissingBundle(*id));
            }
            return Ok(self.diff_upstream(id));
        };
        if let Some(diff) = bundle.diff.get() {
            return Ok(Some(diff.clone()));
        }
        match bundle.read_diff(self.bundles().open_files()) {
            Ok(diff) => Ok(Some(bundle.diff.get_or_init(|| Arc::new(diff)).clone())),
            Err(e) => {
                self.drop_bundle(&bundle, &e);
                Err(e)
            }
        }
    }

    /// Whether a bundle of that name is on disk or offered by an upstream.
    pub fn has_bundle(&self, id: &BundleId) -> bool {
        self.holds_bundle(id) || self.is_offered(id)
    }

    /// Whether a bundle of that name is on disk. Cheap: neither its tables nor what it refers to are looked at.
    pub fn holds_bundle(&self, id: &BundleId) -> bool {
        self.process_lease().touch(&[Ref::Bundle(*id)]).is_ok() && self.layout().bundle(id).exists()
    }

    /// Loads a bundle's tables, so that its contents are known to [`Store::content`] and writers refer to them.
    /// Whether it is there.
    pub fn hint_bundle(&self, id: &BundleId) -> Result<bool> {
        Ok(self.bundle_tables(id)?.is_some())
    }

    /// The tables of a bundle alone.
    pub(crate) fn bundle_tables(&self, id: &BundleId) -> Result<Option<Arc<Bundle>>> {
        let newly_held = self.process_lease().touch(&[Ref::Bundle(*id)])?;
        if let Some(bundle) = self.bundles().get(id) {
            // GC may have taken it, or what it refers to, if a lease ended since.
            if !newly_held {
                return Ok(Some(bundle));
            }
            bundle.complete.store(false, Ordering::Relaxed);
            if bundle.path.exists() {
                return Ok(Some(bundle));
            }
            self.bundles().forget(id);
        }
        let path = self.layout().bundle(id);
        match Bundle::read(*id, &path) {
            Ok(bundle) => Ok(bundle.map(|bundle| self.bundles().register(bundle))),
            Err(e) => {
                if e.is_damage() {
                    self.set_aside(&path);
                }
                Err(e)
            }
        }
    }

    /// A bundle with all that it needs to be there.
    fn complete_bundle(&self, id: &BundleId) -> Result<Option<Arc<Bundle>>> {
        let Some(bundle) = self.bundle_tables(id)? else { return Ok(None) };
        if bundle.complete.load(Ordering::Relaxed) {
            return Ok(Some(bundle));
        }
        for other in &bundle.tables.refs {
            if self.bundle_tables(other)?.is_none() {
                return Ok(None);
            }
        }
        let blobs: Vec<Ref> = bundle.tables.blobs.iter().map(|(digest, _)| Ref::Content(*digest)).collect();
        self.process_lease().touch(&blobs)?;
        // Only presence and size here: bytes are verified when they are first used.
        let present = |(digest, size): &(ContentDigest, u64)| {
            fs::metadata(self.layout().blob(digest)).is_ok_and(|meta| meta.len() == *size)
        };
        if !bundle.tables.blobs.iter().all(present) {
            return Ok(None);
        }
        bundle.complete.store(true, Ordering::Relaxed);
        Ok(Some(bundle))
    }

    /// Sets a damaged bundle aside and forgets it. Not for passing failures.
    pub(crate) fn drop_bundle(&self, bundle: &Bundle, error: &StoreError) {
        if !error.is_damage() {
            return;
        }
        let same = fs::symlink_metadata(&bundle.path).is_ok_and(|m| (m.dev(), m.ino()) == bundle.identity);
        if same {
            self.set_aside(&bundle.path);
        }
        self.bundles().forget(&bundle.id);
    }
}
