//! A cache of other machines, read as little as possible.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use memobuild_image::{Descriptor, ImageConfig, Index, Manifest, Platform, media};
use memobuild_oci::registry::Registries;
use memobuild_store::{Provider, Store, Upstream};
use memobuild_tree::{BundleId, ContentDigest, Diff, KeyDigest, codec};

use crate::{
    CacheError, Place,
    depot::Depot,
    directory::{Blob, CONFIG, Directory, Generation, Large, MAX_CONFIG, Pack, TABLE},
    inline, pack,
    table::{self, Table},
};

/// The namespace of diffs in tables of trees.
pub(crate) const DIFFS: &str = "diff";
/// The longest table that is read, in bytes.
const MAX_TABLE: u64 = 1 << 30;

/// A cache that is read from. Nothing is asked for before the first question; then answers wait for what they need.
///
/// Whatever goes wrong closes it: from then on it knows nothing, says why once ([`Importer::failure`]), and who relied
/// on it is told by [`Store::note_lost`].
pub struct Importer {
    place: Place,
    depot: Box<dyn Depot>,
    store: Store,
    platform: Platform,
    state: OnceLock<State>,
    closed: AtomicBool,
    /// A content was wanted of a bundle that has none: such bundles are not offered any more.
    strict: AtomicBool,
    lost: Mutex<HashSet<BundleId>>,
    /// One for each thing that is fetched.
    locks: Mutex<HashMap<[u8; 32], Arc<Mutex<()>>>>,
    failure: Mutex<Option<CacheError>>,
    /// Bundles whose diffs were given out and whose contents are not here.
    absent: Mutex<Vec<(BundleId, Arc<Diff>)>>,
}

#[derive(Default)]
struct State {
    generations: Vec<Loaded>,
    packs: HashMap<BundleId, Pack>,
    large: HashMap<ContentDigest, Large>,
    named: HashSet<BundleId>,
    layers: Vec<inline::Layer>,
}

/// A generation, its tables read when they are needed.
struct Loaded {
    records: Table,
    facts: Lazy,
    trees: Lazy,
}

/// A table that may still be elsewhere.
struct Lazy {
    blob: Option<Blob>,
    table: OnceLock<Table>,
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Importer {
    /// A cache at a place; for images that carry theirs: of that platform.
    pub fn new(place: Place, platform: &Platform, registries: &Registries, store: &Store) -> Self {
        Self {
            depot: place.depot(registries),
            place,
            store: store.clone(),
            platform: platform.clone(),
            state: OnceLock::new(),
            closed: AtomicBool::new(false),
            strict: AtomicBool::new(false),
            lost: Mutex::default(),
            locks: Mutex::default(),
            failure: Mutex::default(),
            absent: Mutex::default(),
        }
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads the directory, so that the first question need not wait.
    pub fn load(&self) {
        self.state();
    }

    /// Why it is closed; told once.
    pub fn failure(&self) -> Option<CacheError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn depot(&self) -> &dyn Depot {
        &*self.depot
    }

    /// Whether a bundle's contents are here.
    pub fn has_pack(&self, id: &BundleId) -> bool {
        !self.is_closed() && self.pack(id).is_some()
    }

    /// Where a bundle's contents are, if they are here.
    pub(crate) fn pack(&self, id: &BundleId) -> Option<&Pack> {
        self.state().packs.get(id)
    }

    fn state(&self) -> &State {
        self.state.get_or_init(|| {
            self.read().unwrap_or_else(|e| {
                self.close(e);
                State::default()
            })
        })
    }

    fn close(&self, error: CacheError) {
        tracing::debug!("cache {}: {error}", self.place);
        self.closed.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn invalid(&self, why: impl std::fmt::Display) -> CacheError {
        CacheError::Invalid { place: self.place.to_string(), why: why.to_string() }
    }

    fn read(&self) -> Result<State, CacheError> {
        let absent = || CacheError::Absent { place: self.place.to_string() };
        let bytes = self.depot.manifest()?.ok_or_else(absent)?;
        let manifest = self.of_platform(bytes)?;
        if manifest.config.media_type != CONFIG {
            return self.read_inline(&manifest);
        }
        let config = self.depot.read(&manifest.config, MAX_CONFIG)?;
        let directory = Directory::parse(&config).map_err(|why| self.invalid(why))?;
        let mut state = State::default();
        for generation in directory.generations {
            self.add(&mut state, generation)?;
        }
        Ok(state)
    }

    /// The manifest itself, or the one of an index that is for the platform.
    fn of_platform(&self, bytes: Vec<u8>) -> Result<Manifest, CacheError> {
        let parse = |bytes: &[u8]| serde_json::from_slice::<Manifest>(bytes).map_err(|e| self.invalid(e));
        let is_index = serde_json::from_slice::<Index>(&bytes).ok().filter(|index| !index.manifests.is_empty());
        let Some(index) = is_index else { return parse(&bytes) };
        let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| !d.is_attestation()).collect();
        let own = images.iter().find(|d| d.platform.as_ref() == Some(&self.platform)).or(images.first());
        let own = own.ok_or_else(|| self.invalid("an index without images"))?;
        parse(&self.depot.manifest_of(&own.digest)?)
    }

    fn add(&self, state: &mut State, generation: Generation) -> Result<(), CacheError> {
        let Generation { records, facts, trees, packs, named, .. } = generation;
        let records = table::decode(&records).ok_or_else(|| self.invalid("its records are damaged"))?;
        let lazy = |blob| Lazy { blob, table: OnceLock::new() };
        state.generations.push(Loaded { records, facts: lazy(facts), trees: lazy(trees) });
        for (id, pack) in packs {
            let id = id.id().ok_or_else(|| self.invalid("a bundle's name is none"))?;
            state.large.extend(pack.large.iter().map(|large| (large.content, *large)));
            state.packs.entry(id).or_insert(pack);
        }
        state.named.extend(named);
        Ok(())
    }

    fn read_inline(&self, manifest: &Manifest) -> Result<State, CacheError> {
        if ![media::CONFIG, media::DOCKER_CONFIG].contains(&manifest.config.media_type.as_str()) {
            return Err(self.invalid("neither a cache nor an image"));
        }
        let bytes = self.depot.read(&manifest.config, MAX_CONFIG)?;
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| self.invalid(e))?;
        let Some(inline) = inline::parse(&bytes).map_err(|why| self.invalid(why))? else {
            return Err(self.invalid("the image does not carry a cache (build it with --cache-to type=inline)"));
        };
        let records = table::decode(&inline.records).ok_or_else(|| self.invalid("its records are damaged"))?;
        let trees = table::decode(&inline.trees).ok_or_else(|| self.invalid("its trees are damaged"))?;
        let facts = table::decode(&inline.facts).ok_or_else(|| self.invalid("its facts are damaged"))?;
        let there = |table| Lazy { blob: None, table: OnceLock::from(table) };
        let layers = inline::layers(&inline, manifest, &config);
        let named = inline.named.iter().copied().collect();
        let generations = vec![Loaded { records, facts: there(facts), trees: there(trees) }];
        Ok(State { generations, named, layers, ..State::default() })
    }

    /// The tables of one kind of all generations, those that lack fetched at the same time.
    fn tables(&self, which: impl Fn(&Loaded) -> &Lazy + Sync) -> Vec<&Table> {
        let all: Vec<&Lazy> = self.state().generations.iter().map(&which).collect();
        thread::scope(|scope| {
            for lazy in &all {
                if let (Some(blob), None) = (lazy.blob, lazy.table.get()) {
                    scope.spawn(move || lazy.table.get_or_init(|| self.table(blob)));
                }
            }
        });
        all.into_iter().filter_map(|lazy| lazy.table.get()).collect()
    }

    fn table(&self, blob: Blob) -> Table {
        if self.is_closed() {
            return Table::default();
        }
        let read = self.depot.read(&blob.as_descriptor(TABLE), MAX_TABLE);
        let table = read.and_then(|bytes| table::decode(&bytes).ok_or_else(|| self.invalid("a table is damaged")));
        table.unwrap_or_else(|e| {
            self.close(e);
            Table::default()
        })
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, Vec<(BundleId, Arc<Diff>)>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_diff(&self, id: &BundleId) -> Option<Arc<Diff>> {
        if let Some((_, diff)) = self.absent().iter().find(|(known, _)| known == id) {
            return Some(diff.clone());
        }
        let key = KeyDigest::from_bytes(*id.as_bytes());
        let tables = self.tables(|g| &g.trees);
        let bytes = tables.into_iter().find_map(|table| table.get(DIFFS, &key))?;
        if codec::bundle_id(bytes) != *id {
            self.close(self.invalid(format!("the diff of bundle {id} is damaged")));
            return None;
        }
        let diff = codec::decode(bytes).map_err(|e| self.close(self.invalid(e))).ok()?;
        Some(Arc::new(diff))
    }

    /// Makes a bundle of the store: fetches its pack, and before that what it needs besides.
    fn fetch(&self, id: &BundleId, above: &mut Vec<BundleId>) -> Result<bool, CacheError> {
        if self.store.hint_bundle(id)? {
            return Ok(true);
        }
        let (Some(pack), Some(diff)) = (self.state().packs.get(id), self.known_diff(id)) else { return Ok(false) };
        if above.contains(id) {
            return Err(self.invalid("bundles that need each other"));
        }
        above.push(*id);
        for need in &pack.needs {
            self.fetch(need, above)?;
        }
        above.pop();
        for large in &pack.large {
            self.fetch_large(large)?;
        }
        // Only now, so that nobody holds one lock and waits for another.
        let lock = self.lock(*id.as_bytes());
        let _one = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.hint_bundle(id)? {
            return Ok(true);
        }
        let made = pack::read(&self.store, self.open(pack.blob)?, &diff)?;
        self.store.oci_blob_remove(&pack.blob.digest);
        match made == *id {
            true => Ok(true),
            false => Err(self.invalid(format!("bundle {id} turned out to be {made}"))),
        }
    }

    /// What keeps two threads from fetching the same thing.
    fn lock(&self, name: [u8; 32]) -> Arc<Mutex<()>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }

    /// Fetches a blob and opens it. Others who need the same one may take it away when they are done with it.
    fn open(&self, blob: Blob) -> Result<File, CacheError> {
        let mut last = None;
        for _ in 0..4 {
            let path = match self.depot.fetch(blob, &self.store) {
                Err(e @ CacheError::NoBlob { .. }) => {
                    last = Some(e);
                    continue;
                }
                path => path?,
            };
            match File::open(&path) {
                Ok(file) => return Ok(file),
                Err(e) => last = Some(CacheError::io(path)(e)),
            }
        }
        Err(last.unwrap_or_else(|| CacheError::NoBlob { place: self.place.to_string(), digest: blob.digest }))
    }

    fn fetch_large(&self, large: &Large) -> Result<(), CacheError> {
        let lock = self.lock(*large.content.as_bytes());
        let _one = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.has_content(&large.content, u64::MAX) {
            return Ok(());
        }
        pack::read_large(&self.store, self.open(large.blob)?, &large.content)?;
        self.store.oci_blob_remove(&large.blob.digest);
        Ok(())
    }

    /// Brings a content; false if nothing here has it.
    fn bring_content(&self, digest: &ContentDigest) -> Result<bool, CacheError> {
        let state = self.state();
        if let Some(large) = state.large.get(digest) {
            self.fetch_large(large)?;
            return Ok(true);
        }
        let holder = self.absent().iter().find(|(_, diff)| diff.holds(digest)).map(|(id, _)| *id);
        let Some(id) = holder else { return Ok(false) };
        let found = match state.layers.is_empty() {
            true => self.fetch(&id, &mut Vec::new())?,
            false => {
                let lock = self.lock(*id.as_bytes());
                let _one = lock.lock().unwrap_or_else(PoisonError::into_inner);
                let here = self.store.bundle_of(digest).is_some() || self.store.has_content(digest, u64::MAX);
                here || inline::bring(&state.layers, &id, &*self.depot, &self.store)?
            }
        };
        if !found {
            // Known by name only: from now on its step counts as not cached.
            self.lose(&id);
        }
        Ok(found)
    }

    /// A bundle that can't be had after all, and others of which no more is known than of it, are not offered any more.
    fn lose(&self, id: &BundleId) {
        self.strict.store(true, Ordering::Relaxed);
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(*id);
        self.store.note_lost();
    }
}

impl Upstream for Importer {
    fn records(&self, ns: &str, key: &KeyDigest) -> Vec<Vec<u8>> {
        if self.is_closed() {
            return Vec::new();
        }
        let generations = &self.state().generations;
        let quick: Vec<Vec<u8>> = generations.iter().filter_map(|g| g.records.get(ns, key).cloned()).collect();
        if !quick.is_empty() {
            return quick;
        }
        let tables = match is_of(ns) {
            Part::Records => return Vec::new(),
            Part::Facts => self.tables(|g| &g.facts),
            Part::Trees => self.tables(|g| &g.trees),
        };
        tables.into_iter().filter_map(|table| table.get(ns, key).cloned()).collect()
    }

    fn offers(&self, id: &BundleId) -> bool {
        if self.is_closed() || self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            return false;
        }
        let state = self.state();
        let whole = state.packs.contains_key(id) || state.layers.iter().any(|layer| layer.bundle == *id);
        whole || (state.named.contains(id) && !self.strict.load(Ordering::Relaxed))
    }

    fn diff(&self, id: &BundleId) -> Option<Arc<Diff>> {
        let diff = self.known_diff(id);
        match &diff {
            Some(diff) => {
                let mut absent = self.absent();
                if !absent.iter().any(|(known, _)| known == id) {
                    absent.push((*id, diff.clone()));
                }
            }
            // It was offered.
            None => self.lose(id),
        }
        diff
    }
}

impl Provider for Importer {
    fn bring(&self, digest: &ContentDigest) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        if self.is_closed() {
            return Ok(false);
        }
        self.bring_content(digest).map_err(|e| {
            let message = e.to_string();
            self.close(e);
            self.store.note_lost();
            message.into()
        })
    }
}

/// The part of an artifact in which records of a namespace are.
pub(crate) enum Part {
    Records,
    Facts,
    Trees,
}

/// Namespaces are the engine's and the image crate's: what begins with `facts.` only look-ups by facts read.
pub(crate) fn is_of(ns: &str) -> Part {
    match ns {
        "oci.layer-contents.v1" => Part::Trees,
        _ if ns.starts_with("facts.") || ns == "seen" => Part::Facts,
        _ => Part::Records,
    }
}
