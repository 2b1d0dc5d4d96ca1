//! Results on their way to a server while the build goes on: first the blobs that it lacks, then the records that name them.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_observe::in_same_span;
use memobuild_tree::{BundleId, KeyDigest, KeyHasher, codec};
use serde::{Deserialize, Serialize};

use super::{
    Blob, MAX_BLOBS, MAX_VALUE, Put, RecordName, Remote as _, RemoteError,
    envelope::{Described, Envelope, Head},
    metrics::Counts,
    packing::Packing,
    tier::{BUNDLES, Tier},
};
use crate::{CacheError, Entry};

/// Results sent at once.
const WORKERS: usize = 2;
/// Values up to so many bytes stand in their records.
const VALUE_HERE: usize = 64 << 10;
/// Records of what was sent before.
const SENT: &str = "remote.sent.v1";
/// For how long, in seconds, what was sent before is taken for there if its blobs are.
const SENT_HOLDS: u64 = 24 * 3600;

/// A step's result, or other records that the build has learnt.
#[derive(Clone, Default)]
pub struct Finished {
    /// The change that the records are about.
    pub bundle: Option<BundleId>,
    /// Records of the store, by namespace and key.
    pub records: Vec<(&'static str, KeyDigest)>,
    /// Items to be added to lists, if any of the records is new.
    pub lists: Vec<Entry>,
    /// Finds a bundle that is likely to hold much of the same, such as the step's last result. Called when that is of use.
    pub like: Option<Arc<dyn Fn() -> Option<BundleId> + Send + Sync>>,
}

/// What was moved between here and a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteReport {
    /// Its address.
    pub url: String,
    /// Records and lists that were asked for, and those that were there.
    pub asked: u64,
    /// Of these, those that were there.
    pub found: u64,
    /// Blobs that came.
    pub fetched: u64,
    /// Blobs that were sent.
    pub sent: u64,
    /// Bytes that came, of blobs and records.
    pub bytes_in: u64,
    /// Bytes that were sent.
    pub bytes_out: u64,
    /// All requests.
    pub requests: u64,
    /// Results that the server was to have and does not.
    pub unsent: u64,
    /// Why.
    pub why: Option<String>,
}

/// What was not sent.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    count: u64,
    why: Option<String>,
}

impl RemoteReport {
    pub(super) fn new(url: &str, counts: &Counts, unsent: Unsent) -> Self {
        Self {
            url: url.to_owned(),
            asked: counts.asked.load(Relaxed),
            found: counts.found.load(Relaxed),
            fetched: counts.fetched.load(Relaxed),
            sent: counts.sent.load(Relaxed),
            bytes_in: counts.bytes_in.load(Relaxed),
            bytes_out: counts.bytes_out.load(Relaxed),
            requests: counts.requests.load(Relaxed),
            unsent: unsent.count,
            why: unsent.why,
        }
    }
}

impl fmt::Display for RemoteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, asked, found, fetched, sent, unsent, .. } = self;
        write!(f, "shared cache {url}: {found} of {asked} look-ups found, {fetched} blobs received, {sent} sent")?;
        match (unsent, &self.why) {
            (0, _) => Ok(()),
            (_, Some(why)) => write!(f, ", {unsent} results not sent ({why})"),
            (_, None) => write!(f, ", {unsent} results not sent"),
        }
    }
}

/// Sends what it is offered, on threads of its own.
pub(super) struct Uploads {
    inner: Arc<Inner>,
    queue: Option<Sender<Finished>>,
    workers: Vec<JoinHandle<()>>,
}

struct Inner {
    tier: Arc<Tier>,
    packing: Packing,
    /// What failed and may work later.
    left: Mutex<Vec<Finished>>,
    /// What an earlier build sent, with its blobs: looked after at the end.
    sent_before: Mutex<Vec<(Finished, Vec<Blob>)>>,
    unsent: Mutex<Unsent>,
    /// The server takes nothing from us.
    closed: AtomicBool,
    /// Nobody waits for it any more.
    stopped: AtomicBool,
}

#[derive(Serialize, Deserialize)]
struct SentBefore {
    at: u64,
    blobs: Vec<Blob>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    pub(super) fn start(tier: Arc<Tier>) -> Self {
        let inner = Arc::new(Inner {
            packing: Packing::new(tier.clone()),
            tier,
            left: Mutex::default(),
            sent_before: Mutex::default(),
            unsent: Mutex::default(),
            closed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let (queue, offered) = channel();
        let offered = Arc::new(Mutex::new(offered));
        let work = |_| {
            let (inner, offered) = (inner.clone(), offered.clone());
            let thread = thread::Builder::new().name("cache-upload".into()).stack_size(codec::STACK);
            thread.spawn(in_same_span(move || inner.work(&offered))).ok()
        };
        let workers = (0..WORKERS).filter_map(work).collect();
        Self { inner, queue: Some(queue), workers }
    }

    pub(super) fn offer(&self, finished: Finished) {
        // Nobody listens only if no thread could be started.
        if let Some(Err(refused)) = self.queue.as_ref().map(|queue| queue.send(finished)) {
            lock(&self.inner.left).push(refused.0);
        }
    }

    pub(super) fn finish(mut self) -> Unsent {
        drop(self.queue.take());
        for worker in self.workers.drain(..) {
            // One that panicked has lost what it had at hand, and no more.
            let _ = worker.join();
        }
        self.inner.look_after();
        let left = std::mem::take(&mut *lock(&self.inner.left));
        if !left.is_empty() {
            self.inner.tier.gate.hurry();
        }
        for finished in left {
            if let Err(e) = self.inner.publish(&finished, false) {
                self.inner.unsent(&e);
            }
        }
        std::mem::take(&mut *lock(&self.inner.unsent))
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Relaxed);
    }
}

impl Inner {
    fn work(&self, offered: &Mutex<Receiver<Finished>>) {
        loop {
            let next = lock(offered).recv();
            let Ok(finished) = next else { break };
            if self.stopped.load(Relaxed) {
                continue;
            }
            match self.publish(&finished, true) {
                Ok(()) => {}
                Err(CacheError::Remote(e)) if e.is_transient() || matches!(e, RemoteError::Open) => {
                    lock(&self.left).push(finished);
                }
                Err(e) => self.unsent(&e),
            }
        }
    }

    fn unsent(&self, error: &CacheError) {
        tracing::debug!("a result is not shared: {error}");
        if let CacheError::Remote(RemoteError::Forbidden(_) | RemoteError::Full(_)) = error {
            self.closed.store(true, Relaxed);
        }
        let mut unsent = lock(&self.unsent);
        unsent.count += 1;
        unsent.why.get_or_insert_with(|| error.to_string());
    }

    /// Sends again what an earlier build had sent and the server has lost.
    fn look_after(&self) {
        let before = std::mem::take(&mut *lock(&self.sent_before));
        let all: Vec<Blob> = before.iter().flat_map(|(_, blobs)| blobs).copied().collect();
        if all.is_empty() {
            return;
        }
        // Where that can't be told, nothing is lost either.
        let Ok(missing) = self.packing.missing(&all) else { return };
        for (finished, blobs) in before {
            // A server that has lost something may have lost what can't be asked for as well.
            let lost = blobs.iter().any(|blob| missing.contains(blob)) || (blobs.is_empty() && !missing.is_empty());
            if lost && let Err(e) = self.publish(&finished, false) {
                self.unsent(&e);
            }
        }
    }

    fn publish(&self, finished: &Finished, trusting: bool) -> Result<(), CacheError> {
        if self.closed.load(Relaxed) {
            lock(&self.unsent).count += 1;
            return Ok(());
        }
        let store = &self.tier.store;
        let mut values: Vec<(RecordName, Vec<u8>)> = Vec::new();
        let mut before: Option<Vec<Blob>> = None;
        for (ns, key) in &finished.records {
            let Some((name, false)) = self.tier.name(ns, key) else { continue };
            if self.tier.remote.has(&name) {
                continue;
            }
            let Some(value) = store.record_here(ns, key)? else { continue };
            match self.sent_before(&name, &value)?.filter(|_| trusting) {
                Some(blobs) => before.get_or_insert_default().extend(blobs),
                None => values.push((name, value)),
            }
        }
        if values.is_empty() {
            lock(&self.sent_before).extend(before.map(|blobs| (finished.clone(), blobs)));
            return Ok(());
        }
        let bundles = match &finished.bundle {
            Some(id) => match self.tier.described(id) {
                Some(described) => described,
                // Its contents are elsewhere.
                None if !store.holds_bundle(id) => return Ok(()),
                None => {
                    let like = || finished.like.as_ref().and_then(|like| like());
                    self.packing.describe(id, &like)?.to_vec()
                }
            },
            None => Vec::new(),
        };
        if let Some(id) = &finished.bundle {
            let name = RecordName { ns: BUNDLES.into(), key: KeyDigest::from_bytes(*id.as_bytes()) };
            if !self.tier.remote.has(&name) {
                self.send(&name, Vec::new(), &bundles, false)?;
            }
        }
        for (name, value) in values {
            let mark = self.mark(&name, &value);
            let blobs = self.send(&name, value, &bundles, false)?;
            if let Ok(value) = serde_json::to_vec(&SentBefore { at: now(), blobs }) {
                store.record_put(SENT, &mark, &value, &[])?;
            }
        }
        for Entry { ns, key, value } in &finished.lists {
            if let Some((name, true)) = self.tier.name(ns, key) {
                self.send(&name, value.clone(), &bundles, true)?;
            }
        }
        Ok(())
    }

    /// Sends a record and what it needs. Returns the latter.
    fn send(
        &self,
        name: &RecordName,
        value: Vec<u8>,
        bundles: &[Described],
        is_list: bool,
    ) -> Result<Vec<Blob>, CacheError> {
        let (mut head, mut value) = (Head { value: None, bundles: bundles.to_vec() }, value);
        if value.len() > VALUE_HERE {
            head.value = Some(self.packing.keep_bytes(std::mem::take(&mut value)));
        }
        let envelope = Envelope { head, value };
        let blobs = envelope.blobs();
        let bytes = envelope.encode(name).filter(|bytes| bytes.len() <= MAX_VALUE && blobs.len() <= MAX_BLOBS);
        let bytes = bytes.ok_or_else(|| RemoteError::Local(io::Error::other("a result of too many large files")))?;
        self.packing.send(&self.packing.missing(&blobs)?)?;
        for _ in 0..2 {
            let missing = match is_list {
                true => self.tier.remote.list_add(name, &bytes, &blobs)?,
                false => match self.tier.remote.record_put(name, &bytes, &blobs)? {
                    Put::Stored | Put::Existing(_) => Vec::new(),
                    Put::Missing(missing) => missing,
                },
            };
            if missing.is_empty() {
                return Ok(blobs);
            }
            // Gone since it was asked for.
            for described in bundles {
                self.packing.forget(&described.id, &missing);
            }
            if let Some(first) = bundles.first() {
                self.packing.describe(&first.id, &|| None)?;
            }
            self.packing.send(&self.packing.missing(&missing)?)?;
        }
        Err(RemoteError::Odd("it lacks blobs that it was just sent".into()).into())
    }

    /// Names what is sent, and where to.
    fn mark(&self, name: &RecordName, value: &[u8]) -> KeyDigest {
        let mut h = KeyHasher::new("memobuild.remote.sent.v1");
        h.value(self.tier.url()).value(name.ns.as_str()).value(&name.key).bytes(value);
        h.finish()
    }

    /// The blobs of what was sent not long ago.
    fn sent_before(&self, name: &RecordName, value: &[u8]) -> Result<Option<Vec<Blob>>, CacheError> {
        let known = self.tier.store.record_here(SENT, &self.mark(name, value))?;
        let known: Option<SentBefore> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(known.filter(|known| now().saturating_sub(known.at) < SENT_HOLDS).map(|known| known.blobs))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
