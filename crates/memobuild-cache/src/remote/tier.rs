//! Results of other machines by way of a server: an upstream of the store that is asked for one record at a time.
//!
//! Nothing that it says is written down before its contents are here. What is odd, damaged or late is "not known"; where
//! more had been offered, [`Store::note_lost`] has the build go through its plan once more.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Seek as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use memobuild_store::{Provider, ScratchDir, Store, Upstream};
use memobuild_tree::{BundleId, ContentDigest, Diff, KeyDigest, codec};

use super::{
    Blob, RecordName, Remote, RemoteError, RemoteOptions,
    breaker::{Breaker, Gate},
    delta,
    envelope::{Described, DiffAt, Envelope, Like},
    grpc,
    http::Http,
    memory::Memory,
    metrics::{Counts, Metrics},
    retry::{Retry, awaited},
    upload::{Finished, RemoteReport, Uploads},
    verify::Verify,
};
use crate::{CacheError, directory::Large, pack};

/// The namespace of descriptions of bundles.
pub(super) const BUNDLES: &str = "m1-bundle";
/// The longest value or diff that is read, in bytes.
const MAX_LONG: u64 = delta::MAX_DIFF;

/// Records that are shared through a server.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// What they are called in a store.
    pub local: &'static str,
    /// What they are called on a server: 1 to 32 of `a-z`, `0-9`, `-` and `_`. Another format is another name.
    pub remote: String,
    /// Whether each is a list that everybody adds to; else the first of a key stays.
    pub list: bool,
}

/// A server as a tier of the cache.
pub struct RemoteCache {
    tier: Arc<Tier>,
    uploads: Mutex<Option<Uploads>>,
}

type Around<R> = Memory<Retry<Breaker<Verify<Metrics<R>>>>>;

/// What is known of a server, and how it is asked.
pub(super) struct Tier {
    options: RemoteOptions,
    namespaces: Vec<Namespace>,
    pub(super) remote: Around<Box<dyn Remote>>,
    pub(super) gate: Arc<Gate>,
    pub(super) counts: Arc<Counts>,
    pub(super) store: Store,
    /// Bundles that are whole on the server, as records said.
    bundles: Mutex<HashMap<BundleId, Arc<Described>>>,
    large: Mutex<HashMap<ContentDigest, Large>>,
    /// Bundles whose diffs were given out and whose contents are not here.
    absent: Mutex<Vec<(BundleId, Arc<Diff>)>>,
    lost: Mutex<HashSet<BundleId>>,
    /// Whether anything was offered.
    offered: Arc<AtomicBool>,
    /// One for each thing that is fetched.
    locks: Mutex<HashMap<[u8; 32], Arc<Mutex<()>>>>,
    scratch: Mutex<Option<Arc<ScratchDir>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for RemoteCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteCache").field("options", &self.tier.options).finish_non_exhaustive()
    }
}

impl RemoteCache {
    /// A server, of which nothing is asked yet. Only records of these namespaces are asked for and sent; without any it
    /// serves bundles that something else names. `warn` is called at most once, when the server is given up.
    pub fn new(
        options: &RemoteOptions,
        namespaces: Vec<Namespace>,
        store: &Store,
        warn: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        let remote: Box<dyn Remote> = match options.is_grpc() {
            true => Box::new(grpc::Lazy::new(options)),
            false => Box::new(Http::new(options)),
        };
        Self::over(remote, options, namespaces, store, warn)
    }

    fn over(
        remote: Box<dyn Remote>,
        options: &RemoteOptions,
        namespaces: Vec<Namespace>,
        store: &Store,
        warn: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        let (counts, offered) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let gate = Gate::new({
            let (url, store, offered) = (options.url().to_owned(), store.clone(), offered.clone());
            move |error, first| {
                if offered.load(Ordering::Relaxed) {
                    store.note_lost();
                }
                if first {
                    warn(told(&url, error));
                }
            }
        });
        let metrics = Metrics::new(remote, counts.clone());
        let remote = Memory::new(Retry(Breaker::new(Verify(metrics), gate.clone())));
        let tier = Tier {
            options: options.clone(),
            namespaces,
            remote,
            gate,
            counts,
            store: store.clone(),
            bundles: Mutex::default(),
            large: Mutex::default(),
            absent: Mutex::default(),
            lost: Mutex::default(),
            offered,
            locks: Mutex::default(),
            scratch: Mutex::default(),
        };
        Self { tier: Arc::new(tier), uploads: Mutex::default() }
    }

    /// In a form from which [`RemoteCache`]s of an image are found again: without the token.
    pub fn to_spec(&self) -> String {
        format!("remote:{}", self.tier.options.url())
    }

    /// The address in what [`RemoteCache::to_spec`] wrote.
    pub fn parse_spec(spec: &str) -> Option<&str> {
        spec.strip_prefix("remote:")
    }

    /// Whether the server is given up, for now at least.
    pub fn is_given_up(&self) -> bool {
        self.tier.gate.is_open()
    }

    /// Has a step's result sent, beside the build. Comes back at once.
    pub fn offer(&self, finished: Finished) {
        lock(&self.uploads).get_or_insert_with(|| Uploads::start(self.tier.clone())).offer(finished);
    }

    /// Waits until all that was offered is sent or given up, and says what was moved.
    pub fn finish(&self) -> RemoteReport {
        let uploads = lock(&self.uploads).take();
        let sent = uploads.map(Uploads::finish).unwrap_or_default();
        let report = RemoteReport::new(self.tier.options.url(), &self.tier.counts, sent);
        tracing::debug!("{report:?}");
        report
    }
}

/// One sentence for the user.
fn told(url: &str, error: &RemoteError) -> String {
    let hint = match error {
        RemoteError::Unauthorized { with_token: false, .. } => " (MEMOBUILD_TOKEN is where a token is taken from)",
        _ => "",
    };
    format!("shared cache {url}: {error}{hint}; going on without it")
}

impl Tier {
    pub(super) fn url(&self) -> &str {
        self.options.url()
    }

    /// The name of a record on the server, and whether it is a list.
    pub(super) fn name(&self, ns: &str, key: &KeyDigest) -> Option<(RecordName, bool)> {
        let known = self.namespaces.iter().find(|known| known.local == ns)?;
        Some((RecordName { ns: known.remote.clone(), key: *key }, known.list))
    }

    /// A directory of this build's own.
    pub(super) fn scratch(&self) -> Result<Arc<ScratchDir>, CacheError> {
        let mut slot = lock(&self.scratch);
        if let Some(dir) = &*slot {
            return Ok(dir.clone());
        }
        Ok(slot.insert(Arc::new(self.store.scratch_dir()?)).clone())
    }

    /// A bundle and all that it needs, if the server has them.
    pub(super) fn described(&self, id: &BundleId) -> Option<Vec<Described>> {
        let (known, mut out) = (lock(&self.bundles), Vec::<Described>::new());
        let mut wanted = vec![*id];
        while let Some(id) = wanted.pop() {
            if out.iter().any(|known| known.id == id) {
                continue;
            }
            let described = known.get(&id).filter(|_| !self.is_lost(&id))?;
            wanted.extend(&described.pack.needs);
            out.push((**described).clone());
        }
        Some(out)
    }

    fn is_lost(&self, id: &BundleId) -> bool {
        lock(&self.lost).contains(id)
    }

    /// Remembers what a record says of bundles.
    fn learn(&self, envelope: &Envelope) {
        let mut known = lock(&self.bundles);
        for described in &envelope.head.bundles {
            lock(&self.large).extend(described.pack.large.iter().map(|large| (large.content, *large)));
            known.entry(described.id).or_insert_with(|| Arc::new(described.clone()));
        }
    }

    /// The record of a store in the value of one on the server.
    fn open(&self, name: &RecordName, bytes: &[u8]) -> Option<Vec<u8>> {
        let Some(envelope) = Envelope::decode(name, bytes) else {
            tracing::debug!("remote record {name} is none of ours");
            return None;
        };
        let value = match envelope.head.value {
            Some(blob) => self.fetch_bytes(&blob).ok()?,
            None => envelope.value.clone(),
        };
        self.learn(&envelope);
        Some(value)
    }

    /// A blob in memory.
    fn fetch_bytes(&self, blob: &Blob) -> Result<Vec<u8>, RemoteError> {
        if blob.size > MAX_LONG {
            return Err(RemoteError::Odd(format!("a value of {} bytes", blob.size)));
        }
        awaited(|| {
            let mut bytes = Vec::new();
            self.remote.fetch(blob, &mut bytes).map(|()| bytes)
        })
    }

    /// A blob in a file that nobody else sees.
    fn fetch_file(&self, blob: &Blob) -> Result<File, CacheError> {
        let scratch = self.scratch()?;
        let fetched = awaited(|| {
            let mut file = tempfile::tempfile_in(scratch.path()).map_err(RemoteError::Local)?;
            self.remote.fetch(blob, &mut file)?;
            file.rewind().map_err(RemoteError::Local)?;
            Ok(file)
        });
        Ok(fetched?)
    }

    /// Whether a bundle is there, for who has only its name.
    fn ask_for(&self, id: &BundleId) -> bool {
        let name = RecordName { ns: BUNDLES.into(), key: KeyDigest::from_bytes(*id.as_bytes()) };
        let record = self.remote.record(&name).ok().flatten();
        record.is_some_and(|bytes| self.open(&name, &bytes).is_some()) && lock(&self.bundles).contains_key(id)
    }

    fn known_diff(&self, id: &BundleId) -> Option<Arc<Diff>> {
        self.known_diff_within(id, u32::from(u8::MAX))
    }

    /// The diff that another is like.
    fn diff_like(&self, like: &Like) -> Option<Arc<Diff>> {
        if self.store.holds_bundle(&like.id)
            && let Ok(Some(diff)) = self.store.load_bundle(&like.id)
        {
            return Some(diff);
        }
        self.known_diff_within(&like.id, like.depth.checked_sub(1)?)
    }

    fn known_diff_within(&self, id: &BundleId, depth: u32) -> Option<Arc<Diff>> {
        if let Some((_, diff)) = lock(&self.absent).iter().find(|(known, _)| known == id) {
            return Some(diff.clone());
        }
        let described = lock(&self.bundles).get(id).cloned()?;
        let like = match &described.like {
            // Each is one deeper than the last, whatever a server says: this ends.
            Some(like) if like.depth > depth => return None,
            Some(like) => Some(codec::encode(&*self.diff_like(like)?)),
            None => None,
        };
        let packed = match &described.diff {
            DiffAt::Here(bytes) => bytes.clone(),
            DiffAt::Blob(blob) => self.fetch_bytes(blob).ok()?,
        };
        let bytes = delta::unpack(&packed, like.as_deref()).ok()?;
        if codec::bundle_id(&bytes) != *id {
            tracing::debug!("the diff of bundle {id} is another one");
            return None;
        }
        codec::decode(&bytes).ok().map(Arc::new)
    }

    /// Makes a bundle of the store: fetches its pack, and before that what it needs besides.
    fn fetch_bundle(&self, id: &BundleId, above: &mut Vec<BundleId>) -> Result<(), CacheError> {
        if self.store.hint_bundle(id)? {
            return Ok(());
        }
        let described = lock(&self.bundles).get(id).cloned();
        let (Some(described), Some(diff)) = (described, self.known_diff(id)) else {
            return Err(CacheError::NoBundle(*id));
        };
        if above.contains(id) {
            return Err(RemoteError::Odd("bundles that need each other".into()).into());
        }
        above.push(*id);
        for need in &described.pack.needs {
            self.fetch_bundle(need, above)?;
        }
        above.pop();
        for large in &described.pack.large {
            self.fetch_large(large)?;
        }
        // Only now, so that nobody holds one lock and waits for another.
        let one = self.lock(*id.as_bytes());
        let _one = lock(&one);
        if self.store.hint_bundle(id)? {
            return Ok(());
        }
        let made = pack::read(&self.store, self.fetch_file(&described.pack.blob)?, &diff)?;
        match made == *id {
            true => Ok(()),
            false => Err(RemoteError::Damaged(described.pack.blob.digest).into()),
        }
    }

    fn fetch_large(&self, large: &Large) -> Result<(), CacheError> {
        let one = self.lock(*large.content.as_bytes());
        let _one = lock(&one);
        if self.store.has_content(&large.content, u64::MAX) {
            return Ok(());
        }
        pack::read_large(&self.store, self.fetch_file(&large.blob)?, &large.content)
    }

    /// What keeps two threads from fetching the same thing.
    fn lock(&self, name: [u8; 32]) -> Arc<Mutex<()>> {
        lock(&self.locks).entry(name).or_default().clone()
    }

    /// Brings a content; false if nothing here has it, or it can't be had.
    fn bring(&self, digest: &ContentDigest) -> bool {
        let here = || self.store.bundle_of(digest).is_some() || self.store.has_content(digest, u64::MAX);
        let large = lock(&self.large).get(digest).copied();
        if let Some(large) = large {
            match self.fetch_large(&large) {
                Ok(()) => return true,
                Err(e) => {
                    tracing::debug!("remote file {digest}: {e}");
                    let those = |d: &Arc<Described>| d.pack.large.iter().any(|l| l.content == *digest);
                    let users: Vec<BundleId> =
                        lock(&self.bundles).values().filter(|d| those(d)).map(|d| d.id).collect();
                    users.iter().for_each(|id| self.lose(id));
                }
            }
        }
        let holders: Vec<BundleId> =
            lock(&self.absent).iter().filter(|(_, diff)| diff.holds(digest)).map(|(id, _)| *id).collect();
        for id in holders {
            if self.is_lost(&id) {
                continue;
            }
            match self.fetch_bundle(&id, &mut Vec::new()) {
                Ok(()) if here() => return true,
                Ok(()) => {}
                Err(e) => tracing::debug!("remote bundle {id}: {e}"),
            }
            self.lose(&id);
        }
        false
    }

    /// A bundle that can't be had after all is not offered any more.
    fn lose(&self, id: &BundleId) {
        if lock(&self.lost).insert(*id) {
            self.store.note_lost();
        }
    }

    fn records(&self, ns: &str, key: &KeyDigest) -> Vec<Vec<u8>> {
        let Some((name, is_list)) = self.name(ns, key) else { return Vec::new() };
        let found = match is_list {
            true => self.remote.list(&name),
            false => self.remote.record(&name).map(|value| value.into_iter().collect()),
        };
        // Whatever went wrong was told by the breaker, or does not matter.
        found.unwrap_or_default().iter().filter_map(|bytes| self.open(&name, bytes)).collect()
    }

    fn offers(&self, id: &BundleId) -> bool {
        if self.gate.is_open() || self.is_lost(id) {
            return false;
        }
        let known = lock(&self.bundles).contains_key(id) || (self.namespaces.is_empty() && self.ask_for(id));
        if known {
            self.offered.store(true, Ordering::Relaxed);
        }
        known
    }

    fn diff(&self, id: &BundleId) -> Option<Arc<Diff>> {
        let diff = self.known_diff(id);
        match &diff {
            Some(diff) => {
                let mut absent = lock(&self.absent);
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

impl Upstream for RemoteCache {
    fn records(&self, ns: &str, key: &KeyDigest) -> Vec<Vec<u8>> {
        self.tier.records(ns, key)
    }

    fn offers(&self, id: &BundleId) -> bool {
        self.tier.offers(id)
    }

    fn diff(&self, id: &BundleId) -> Option<Arc<Diff>> {
        self.tier.diff(id)
    }
}

impl Provider for RemoteCache {
    fn bring(&self, digest: &ContentDigest) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        // A failure leaves it to others who may have it; if nobody has, what was lost is made anew.
        Ok(self.tier.bring(digest))
    }
}
