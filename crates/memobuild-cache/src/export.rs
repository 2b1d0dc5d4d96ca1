//! Results on their way to other machines, while the build goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_image::{json, media};
use memobuild_observe::in_same_span;
use memobuild_oci::registry::Registries;
use memobuild_store::{ScratchDir, Store};
use memobuild_tree::{BundleId, KeyDigest, codec};
use serde::{Deserialize, Serialize};

use crate::{
    CacheError, Collected, Importer, Place,
    depot::Depot,
    directory::{
        Blob, CONFIG, Directory, FILE, Generation, Hex, Large, MAX_CONFIG, MAX_GENERATIONS, PACK, Pack, TABLE,
    },
    inline, pack, table,
};

/// Records of packs made before: by bundle.
pub(crate) const PACKS: &str = "cache.pack.v1";
/// Records of large files packed before: by content.
pub(crate) const FILES: &str = "cache.file.v1";
/// Packs made and sent at once.
const WORKERS: usize = 2;

/// Caches that the build reads from: what lies there need not be made or sent again.
pub type Sources = Vec<Arc<Importer>>;

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Bytes sent.
    pub bytes: u64,
    /// Blobs sent.
    pub sent: u64,
    /// Blobs that were there already.
    pub present: u64,
}

/// A cache that is written to. Bundles are sent as they are offered, on threads of its own.
pub struct Exporter {
    inner: Arc<Inner>,
    queue: Option<Sender<BundleId>>,
    workers: Vec<JoinHandle<()>>,
}

struct Inner {
    place: Place,
    depot: Box<dyn Depot>,
    store: Store,
    sources: Sources,
    packs: Mutex<BTreeMap<BundleId, Pack>>,
    begun: Mutex<HashSet<BundleId>>,
    failure: Mutex<Option<CacheError>>,
    failed: AtomicBool,
    /// Where packs are made.
    scratch: Mutex<Option<Arc<ScratchDir>>>,
    bytes: AtomicU64,
    sent: AtomicU64,
    present: AtomicU64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) pack: Pack,
}

impl Exporter {
    /// Starts its threads; asks for nothing yet.
    pub fn start(place: Place, registries: &Registries, store: &Store, sources: Sources) -> Self {
        let inner = Arc::new(Inner {
            depot: place.depot(registries),
            place,
            store: store.clone(),
            sources,
            packs: Mutex::default(),
            begun: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            scratch: Mutex::default(),
            bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            present: AtomicU64::new(0),
        });
        let (queue, offered) = channel::<BundleId>();
        let offered = Arc::new(Mutex::new(offered));
        let work = |_| {
            let (inner, offered) = (inner.clone(), offered.clone());
            // Without a thread the work is done at the end.
            let thread = thread::Builder::new().name("cache-export".into()).stack_size(codec::STACK);
            thread.spawn(in_same_span(move || inner.work(&offered))).ok()
        };
        let workers = (0..WORKERS).filter_map(work).collect();
        Self { inner, queue: Some(queue), workers }
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// Has a bundle of the store sent. Comes back at once.
    pub fn offer(&self, bundle: BundleId) {
        if let Some(queue) = &self.queue {
            // Nobody listens only if no thread could be started.
            let _ = queue.send(bundle);
        }
    }

    /// Sends what is left, and the directory that makes all of it known.
    ///
    /// # Errors
    /// The first thing that went wrong. The cache is then as it was.
    pub fn finish(mut self, collected: &Collected) -> Result<ExportReport, CacheError> {
        drop(self.queue.take());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        let inner = &self.inner;
        if let Some(error) = inner.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        for bundle in &collected.bundles {
            inner.send(bundle)?;
        }
        inner.publish(collected)?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(ExportReport { bytes: load(&inner.bytes), sent: load(&inner.sent), present: load(&inner.present) })
    }
}

impl Inner {
    fn work(&self, offered: &Mutex<Receiver<BundleId>>) {
        loop {
            let next = offered.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(bundle) = next else { break };
            if self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.send(&bundle) {
                self.failed.store(true, Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }

    fn send(&self, id: &BundleId) -> Result<(), CacheError> {
        if !self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(*id) {
            return Ok(());
        }
        let pack = self.pack(id)?;
        for need in &pack.needs {
            self.send(need)?;
        }
        self.packs.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, pack);
        Ok(())
    }

    /// Sees to it that a bundle's pack is there.
    fn pack(&self, id: &BundleId) -> Result<Pack, CacheError> {
        if !self.store.holds_bundle(id)
            && let Some(pack) = self.pass_on(id)?
        {
            return Ok(pack);
        }
        let key = KeyDigest::from_bytes(*id.as_bytes());
        let known = self.store.record_here(PACKS, &key)?;
        if let Some(Remembered { pack }) = known.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            && self.is_there(&pack)?
        {
            return Ok(pack);
        }
        let diff = self.store.load_bundle(id)?.ok_or(CacheError::NoBundle(*id))?;
        let contents = pack::contents(&self.store, id, &diff, &[], None)?;
        let made = pack::write(&self.store, &contents.packed, self.scratch()?.path())?;
        let blob = made.blob;
        self.put(blob, PACK, made.file.path())?;
        let mut large = Vec::new();
        for content in &contents.large {
            let made = self.large(content)?;
            large.push(made);
        }
        let pack = Pack { blob, needs: contents.needs, large };
        let remembered = Remembered { pack };
        if let Ok(value) = serde_json::to_vec(&remembered) {
            self.store.record_put(PACKS, &key, &value, &[])?;
        }
        Ok(remembered.pack)
    }

    fn large(&self, content: &memobuild_tree::ContentDigest) -> Result<Large, CacheError> {
        let key = KeyDigest::from_bytes(*content.as_bytes());
        if let Some(known) = self.store.record_here(FILES, &key)?
            && let Ok(large) = serde_json::from_slice::<Large>(&known)
            && self.has(large.blob)?
        {
            return Ok(large);
        }
        let made = pack::write_large(&self.store, content, self.scratch()?.path())?;
        let large = Large { content: *content, blob: made.blob };
        self.put(large.blob, FILE, made.file.path())?;
        if let Ok(value) = serde_json::to_vec(&large) {
            self.store.record_put(FILES, &key, &value, &[])?;
        }
        Ok(large)
    }

    fn is_there(&self, pack: &Pack) -> Result<bool, CacheError> {
        if !self.has(pack.blob)? {
            return Ok(false);
        }
        for large in &pack.large {
            if !self.has(large.blob)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a blob need not be sent.
    fn has(&self, blob: Blob) -> Result<bool, CacheError> {
        let there = self.depot.has(&blob.digest)?;
        if there {
            self.present.fetch_add(1, Ordering::Relaxed);
        }
        Ok(there)
    }

    /// A bundle that is not here, out of a cache that it came from.
    fn pass_on(&self, id: &BundleId) -> Result<Option<Pack>, CacheError> {
        for source in &self.sources {
            let Some(pack) = source.pack(id) else { continue };
            let blobs = std::iter::once((pack.blob, PACK)).chain(pack.large.iter().map(|l| (l.blob, FILE)));
            for (blob, media_type) in blobs {
                if !self.has(blob)? {
                    let path = source.depot().fetch(blob, &self.store)?;
                    self.put(blob, media_type, &path)?;
                }
            }
            return Ok(Some(pack.clone()));
        }
        Ok(None)
    }

    /// A directory of this export's own: another process may make the same pack at the same time.
    fn scratch(&self) -> Result<Arc<ScratchDir>, CacheError> {
        let mut slot = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*slot {
            return Ok(dir.clone());
        }
        Ok(slot.insert(Arc::new(self.store.scratch_dir()?)).clone())
    }

    fn put(&self, blob: Blob, media_type: &str, path: &Path) -> Result<(), CacheError> {
        if !self.has(blob)? {
            self.depot.put_file(&blob.as_descriptor(media_type), path)?;
            self.count(blob.size);
        }
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<memobuild_image::Descriptor, CacheError> {
        let (descriptor, sent) = self.depot.put(media_type, bytes)?;
        match sent {
            true => self.count(descriptor.size),
            false => drop(self.present.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(descriptor)
    }

    /// Writes the directory: this build, and those before it that know something else.
    fn publish(&self, collected: &Collected) -> Result<(), CacheError> {
        let table = |entries: &[crate::Entry]| table::encode(entries).map_err(CacheError::io("a table"));
        let packs = std::mem::take(&mut *self.packs.lock().unwrap_or_else(PoisonError::into_inner));
        let mut known: BTreeSet<BundleId> = packs.keys().copied().collect();
        known.extend(&collected.named);
        let mut trees = inline::diffs(&self.store, &mut known.iter())?;
        trees.extend(collected.trees.iter().cloned());
        let named = collected.named.iter().filter(|id| !packs.contains_key(id)).copied().collect();
        let blob = |entries: &[crate::Entry]| -> Result<Option<Blob>, CacheError> {
            if entries.is_empty() {
                return Ok(None);
            }
            Ok(Some(Blob::of(&self.put_bytes(TABLE, &table(entries)?)?)))
        };
        let generation = Generation {
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64),
            records: table(&collected.records)?,
            facts: blob(&collected.facts)?,
            trees: blob(&trees)?,
            packs: packs.iter().map(|(id, pack)| (Hex::from(id), pack.clone())).collect(),
            named,
        };
        let mut generations = vec![generation];
        generations.extend(self.earlier(collected));
        generations.truncate(MAX_GENERATIONS);
        let directory = Directory::new(generations);
        let invalid = |e: serde_json::Error| CacheError::Invalid { place: self.place.to_string(), why: e.to_string() };
        let config = self.put_bytes(CONFIG, &json::compact(&directory).map_err(invalid)?)?;
        let manifest = json::compact(&directory.manifest(config)).map_err(invalid)?;
        self.depot.put_manifest(media::MANIFEST, &manifest)
    }

    /// Generations that are there and know a record that this one does not. One that can't be read is replaced.
    fn earlier(&self, collected: &Collected) -> Vec<Generation> {
        let now: HashSet<(&str, KeyDigest)> = collected.records.iter().map(|e| (e.ns.as_str(), e.key)).collect();
        let knows_more = |generation: &Generation| {
            let table = table::decode(&generation.records).unwrap_or_default();
            table.keys().any(|(ns, key)| !now.contains(&(ns.as_str(), *key)))
        };
        let read = || -> Option<Directory> {
            let manifest: memobuild_image::Manifest = serde_json::from_slice(&self.depot.manifest().ok()??).ok()?;
            let is_cache = manifest.config.media_type == CONFIG;
            let bytes = is_cache.then(|| self.depot.read(&manifest.config, MAX_CONFIG).ok())??;
            Directory::parse(&bytes).ok()
        };
        read().map(|d| d.generations.into_iter().filter(knows_more).collect()).unwrap_or_default()
    }
}
