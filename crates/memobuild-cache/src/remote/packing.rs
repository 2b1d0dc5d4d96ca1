//! Bundles on their way to a server: described, packed if the server lacks them, and sent.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memobuild_tree::{BundleId, ContentDigest, KeyDigest, Sha256Digest, codec};
use tempfile::NamedTempFile;

use super::{
    Blob, MAX_ASKED, Remote as _, delta,
    envelope::{Described, DiffAt, Like},
    tier::Tier,
};
use crate::{
    CacheError,
    directory::{Large, Pack},
    export::{FILES, PACKS, Remembered},
    pack,
};

/// Diffs up to so many bytes, packed, stand in the records: one question less for a machine that needs them.
const DIFF_HERE: usize = 16 << 10;

/// What was made to be sent, and what need not be.
pub(super) struct Packing {
    tier: Arc<Tier>,
    /// Bundles with those that they need. One is made at a time: they stand on each other.
    described: Mutex<HashMap<BundleId, Arc<Vec<Described>>>>,
    sources: Mutex<HashMap<Sha256Digest, Source>>,
    /// Blobs that the server has.
    present: Mutex<HashSet<Sha256Digest>>,
}

/// Where the bytes of a blob are.
enum Source {
    File(NamedTempFile),
    Bytes(Vec<u8>),
}

/// Bundles that are tried as dictionaries.
const MAX_LIKE: usize = 4;
/// Bundles that a machine may have to fetch for one that is like another.
const MAX_CHAIN: usize = 8;
/// Diffs that a machine may have to read for one.
const MAX_DEPTH: u32 = 8;

type Known = HashMap<BundleId, Arc<Vec<Described>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Packing {
    pub(super) fn new(tier: Arc<Tier>) -> Self {
        Self { tier, described: Mutex::default(), sources: Mutex::default(), present: Mutex::default() }
    }

    /// A bundle of the store and those that it needs, as the server has them or will have them. What `like` holds, a
    /// bundle that the server has, is not sent again.
    pub(super) fn describe(
        &self,
        id: &BundleId,
        like: &(dyn Fn() -> Option<BundleId> + '_),
    ) -> Result<Arc<Vec<Described>>, CacheError> {
        let mut known = lock(&self.described);
        if let Some(described) = known.get(id) {
            return Ok(described.clone());
        }
        let mut above = vec![*id];
        let described = match self.described_before(&mut known, id, &mut above)? {
            Some(described) => described,
            None => {
                let like = like().filter(|like| like != id);
                let like = like.map(|like| self.there(&mut known, &like)).transpose()?.flatten();
                self.make(&mut known, id, &mut above, like)?
            }
        };
        let described = Arc::new(described);
        known.insert(*id, described.clone());
        Ok(described)
    }

    /// A bundle that the server has, if a chain of bundles that need each other may grow by one more.
    fn there(&self, known: &mut Known, id: &BundleId) -> Result<Option<BundleId>, CacheError> {
        let described = match known.get(id).cloned().or_else(|| self.tier.described(id).map(Arc::new)) {
            Some(described) => described,
            None if !self.tier.store.holds_bundle(id) => return Ok(None),
            None => match self.described_before(known, id, &mut vec![*id])? {
                Some(described) => Arc::new(described),
                None => return Ok(None),
            },
        };
        known.insert(*id, described.clone());
        Ok((described.len() < MAX_CHAIN).then_some(*id))
    }

    /// What was thought to be there is not: it is made anew when it is next asked for.
    pub(super) fn forget(&self, id: &BundleId, missing: &[Blob]) {
        lock(&self.described).remove(id);
        lock(&self.present).retain(|digest| !missing.iter().any(|blob| blob.digest == *digest));
    }

    fn describe_in(
        &self,
        known: &mut Known,
        id: &BundleId,
        above: &mut Vec<BundleId>,
    ) -> Result<Arc<Vec<Described>>, CacheError> {
        if let Some(described) = known.get(id) {
            return Ok(described.clone());
        }
        above.push(*id);
        let described = match self.described_before(known, id, above)? {
            Some(described) => described,
            None => self.make(known, id, above, None)?,
        };
        above.pop();
        let described = Arc::new(described);
        known.insert(*id, described.clone());
        Ok(described)
    }

    /// One that an earlier build packed, if the server has all of it.
    fn described_before(
        &self,
        known: &mut Known,
        id: &BundleId,
        above: &mut Vec<BundleId>,
    ) -> Result<Option<Vec<Described>>, CacheError> {
        let key = KeyDigest::from_bytes(*id.as_bytes());
        let remembered = self.tier.store.record_here(PACKS, &key)?;
        let Some(Remembered { pack }) = remembered.and_then(|bytes| serde_json::from_slice(&bytes).ok()) else {
            return Ok(None);
        };
        let blobs: Vec<Blob> = [pack.blob].into_iter().chain(pack.large.iter().map(|large| large.blob)).collect();
        if pack.needs.iter().any(|need| above.contains(need)) || !self.missing(&blobs)?.is_empty() {
            return Ok(None);
        }
        self.with_needs(known, id, pack, above).map(Some)
    }

    fn make(
        &self,
        known: &mut Known,
        id: &BundleId,
        above: &mut Vec<BundleId>,
        like: Option<BundleId>,
    ) -> Result<Vec<Described>, CacheError> {
        let store = &self.tier.store;
        let diff = store.load_bundle(id)?.ok_or(CacheError::NoBundle(*id))?;
        let like = match like {
            Some(like) => store.load_bundle(&like)?.map(|diff| (like, diff)),
            None => None,
        };
        let like = like.as_ref().map(|(like, diff)| (like, &**diff));
        let contents = pack::contents(store, id, &diff, above, like)?;
        let made = pack::write(store, &contents.packed, self.tier.scratch()?.path())?;
        let (blob, large) = (made.blob, self.large(&contents.large)?);
        self.keep(blob, Source::File(made.file));
        let remembered = Remembered { pack: Pack { blob, needs: contents.needs, large } };
        if let Ok(value) = serde_json::to_vec(&remembered) {
            store.record_put(PACKS, &KeyDigest::from_bytes(*id.as_bytes()), &value, &[])?;
        }
        self.with_needs(known, id, remembered.pack, above)
    }

    fn large(&self, contents: &[ContentDigest]) -> Result<Vec<Large>, CacheError> {
        let store = &self.tier.store;
        let key = |content: &ContentDigest| KeyDigest::from_bytes(*content.as_bytes());
        let mut before = Vec::new();
        for content in contents {
            let bytes = store.record_here(FILES, &key(content))?;
            before.push(bytes.and_then(|bytes| serde_json::from_slice::<Large>(&bytes).ok()));
        }
        let blobs: Vec<Blob> = before.iter().flatten().map(|large| large.blob).collect();
        let missing: HashSet<Sha256Digest> = self.missing(&blobs)?.iter().map(|blob| blob.digest).collect();
        let mut out = Vec::new();
        for (content, before) in contents.iter().zip(before) {
            let there = before.filter(|large| large.content == *content && !missing.contains(&large.blob.digest));
            let large = match there {
                Some(large) => large,
                None => {
                    let made = pack::write_large(store, content, self.tier.scratch()?.path())?;
                    self.keep(made.blob, Source::File(made.file));
                    let large = Large { content: *content, blob: made.blob };
                    if let Ok(value) = serde_json::to_vec(&large) {
                        store.record_put(FILES, &key(content), &value, &[])?;
                    }
                    large
                }
            };
            out.push(large);
        }
        Ok(out)
    }

    fn with_needs(
        &self,
        known: &mut Known,
        id: &BundleId,
        pack: Pack,
        above: &mut Vec<BundleId>,
    ) -> Result<Vec<Described>, CacheError> {
        let mut needed: Vec<Described> = Vec::new();
        for need in &pack.needs {
            for described in self.describe_in(known, need, above)?.iter() {
                if !needed.iter().any(|known| known.id == described.id) {
                    needed.push(described.clone());
                }
            }
        }
        let (packed, like) = self.diff(id, &needed)?;
        let diff = match packed.len() <= DIFF_HERE {
            true => DiffAt::Here(packed),
            false => DiffAt::Blob(self.keep_bytes(packed)),
        };
        needed.insert(0, Described { id: *id, diff, like, pack });
        Ok(needed)
    }

    /// A bundle's diff, packed; with the most similar of the bundles that it needs, if that makes a long one shorter.
    fn diff(&self, id: &BundleId, needed: &[Described]) -> Result<(Vec<u8>, Option<Like>), CacheError> {
        let store = &self.tier.store;
        let diff = |id: &BundleId| -> Result<Option<Vec<u8>>, CacheError> {
            Ok(store.load_bundle(id)?.map(|diff| codec::encode(&diff)))
        };
        let io = CacheError::io("a diff");
        let bytes = diff(id)?.ok_or(CacheError::NoBundle(*id))?;
        let alone = delta::pack(&bytes, None).map_err(io)?;
        if alone.len() <= DIFF_HERE {
            return Ok((alone, None));
        }
        let mut best = (alone, None);
        for need in needed.iter().take(MAX_LIKE) {
            let depth = need.like.map_or(0, |like| like.depth) + 1;
            let Some(like) = diff(&need.id)?.filter(|_| depth <= MAX_DEPTH) else { continue };
            let packed = delta::pack(&bytes, Some(&like)).map_err(CacheError::io("a diff"))?;
            if packed.len() < best.0.len() / 2 {
                best = (packed, Some(Like { id: need.id, depth }));
            }
        }
        Ok(best)
    }

    /// Has these bytes at hand as a blob.
    pub(super) fn keep_bytes(&self, bytes: Vec<u8>) -> Blob {
        let blob = Blob { digest: Sha256Digest::of(&bytes), size: bytes.len() as u64 };
        self.keep(blob, Source::Bytes(bytes));
        blob
    }

    fn keep(&self, blob: Blob, source: Source) {
        lock(&self.sources).insert(blob.digest, source);
    }

    /// Those of the blobs that the server does not have.
    pub(super) fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, CacheError> {
        let unknown: Vec<Blob> = {
            let present = lock(&self.present);
            blobs.iter().filter(|blob| !present.contains(&blob.digest)).copied().collect()
        };
        let mut out = Vec::new();
        for some in unknown.chunks(MAX_ASKED) {
            out.extend(self.tier.remote.missing(some)?);
        }
        let lacks: HashSet<Sha256Digest> = out.iter().map(|blob| blob.digest).collect();
        lock(&self.present).extend(unknown.iter().map(|blob| blob.digest).filter(|digest| !lacks.contains(digest)));
        Ok(out)
    }

    /// Sends blobs that were made here.
    pub(super) fn send(&self, blobs: &[Blob]) -> Result<(), CacheError> {
        for blob in blobs {
            let place = self.tier.url().to_owned();
            let source = lock(&self.sources).remove(&blob.digest);
            let source = source.ok_or(CacheError::NoBlob { place, digest: blob.digest })?;
            let sent = self.file(&source).and_then(|mut file| Ok(self.tier.remote.send(blob, &mut file)?));
            match sent {
                Ok(()) => {
                    lock(&self.present).insert(blob.digest);
                }
                Err(e) => {
                    self.keep(*blob, source);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn file(&self, source: &Source) -> Result<File, CacheError> {
        match source {
            Source::File(file) => file.reopen().map_err(CacheError::io(file.path())),
            Source::Bytes(bytes) => {
                let scratch = self.tier.scratch()?;
                let mut file = tempfile::tempfile_in(scratch.path()).map_err(CacheError::io(scratch.path()))?;
                file.write_all(bytes).map_err(CacheError::io(scratch.path()))?;
                Ok(file)
            }
        }
    }
}
