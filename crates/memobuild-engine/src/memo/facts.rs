//! Results found by facts, in two phases (as BuildXL does it): under what a step is, the path sets that its results had
//! are listed; what is found in a tree at the paths of one of them makes the key of a result.
//!
//! | namespace | key | value |
//! |---|---|---|
//! | `facts.sets.v3` | base key of the step | path sets, most recently useful first, each with the last result's key |
//! | `facts.paths.v3` | digest of the path set | the path set, zstd |
//! | `facts.result.v3` | strong key | the result, and what was found at each path, shortened, for explanations |

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use memobuild_store::{Ref, Store};
use memobuild_tree::{
    BundleId, KeyDigest, PathSetDigest,
    facts::{Glance, Observed, PathSet},
};

use crate::EngineError;

/// Namespaces.
pub(crate) const SETS: &str = "facts.sets.v3";
pub(crate) const PATHS: &str = "facts.paths.v3";
pub(crate) const RESULTS: &str = "facts.result.v3";
/// Version of the encodings below, and of what a step of the same definition yields.
const VERSION: u8 = 3;
/// Path sets kept for one step; the one that was of no use for the longest time goes first.
const MAX_SETS: usize = 24;
/// Results of shared caches that are tried as the one that a new one may be like.
const MAX_TRIED: usize = 4;
/// The longest path set or list of glances that is unpacked, in bytes.
const MAX_UNPACKED: usize = 1 << 30;

/// A path set that results of a step had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub set: PathSetDigest,
    /// The strong key of the last result with it.
    pub last: KeyDigest,
}

/// A result found by facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The change; none: the tree stays as it is.
    pub bundle: Option<BundleId>,
    /// When it was made, seconds since the epoch.
    pub created: i64,
    /// How long that took, in milliseconds.
    pub millis: u64,
    /// What was found at each path of its path set, and whether a file's bytes were read.
    pub glances: Vec<(Glance, bool)>,
}

/// Path sets read in this build.
#[derive(Debug, Default)]
pub struct Sets(Mutex<HashMap<PathSetDigest, Arc<PathSet>>>);

impl Sets {
    /// A path set by its name; `None` if it is not in the store, or damaged.
    ///
    /// # Errors
    /// As the store's records.
    pub fn get(&self, store: &Store, digest: &PathSetDigest) -> Result<Option<Arc<PathSet>>, EngineError> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = known().get(digest) {
            return Ok(Some(set.clone()));
        }
        let Some(bytes) = store.record_get(PATHS, &key_of(digest))? else { return Ok(None) };
        let Some(set) = unpack(&bytes).and_then(|bytes| PathSet::decode(&bytes, digest)) else { return Ok(None) };
        let set = Arc::new(set);
        known().insert(*digest, set.clone());
        Ok(Some(set))
    }
}

/// The key of a path set's record.
pub(crate) fn key_of(digest: &PathSetDigest) -> KeyDigest {
    KeyDigest::from_bytes(*digest.as_bytes())
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    // Compressing into memory fails for no input.
    zstd::bulk::compress(bytes, 3).unwrap_or_default()
}

fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten()?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_UNPACKED)?;
    zstd::bulk::decompress(bytes, size).ok()
}

/// The path sets of a step, most recently useful first: those known here, then those of shared caches.
pub fn known(store: &Store, base: &KeyDigest) -> Result<Vec<Known>, EngineError> {
    let mut out = known_here(store, base)?;
    out.extend(known_elsewhere(store, base, &out));
    Ok(out)
}

/// Those known here.
pub(crate) fn known_here(store: &Store, base: &KeyDigest) -> Result<Vec<Known>, EngineError> {
    Ok(distinct(store.record_here(SETS, base)?.into_iter().collect(), &[]))
}

/// Those of shared caches that are not among these.
pub(crate) fn known_elsewhere(store: &Store, base: &KeyDigest, here: &[Known]) -> Vec<Known> {
    distinct(store.records_upstream(SETS, base), here)
}

fn distinct(lists: Vec<Vec<u8>>, before: &[Known]) -> Vec<Known> {
    let mut out: Vec<Known> = Vec::new();
    for known in lists.iter().filter_map(|bytes| decode_known(bytes)).flatten() {
        if !before.iter().chain(&out).any(|k| k.set == known.set) {
            out.push(known);
        }
    }
    out
}

/// A list of one path set.
pub(crate) fn listed(known: &Known) -> Vec<u8> {
    encode_known(std::slice::from_ref(known))
}

fn encode_known(list: &[Known]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for Known { set, last } in list {
        bytes.extend_from_slice(set.as_bytes());
        bytes.extend_from_slice(last.as_bytes());
    }
    bytes
}

fn decode_known(bytes: &[u8]) -> Option<Vec<Known>> {
    let (chunks, rest) = bytes.strip_prefix(&[VERSION])?.as_chunks::<64>();
    let one = |chunk: &[u8; 64]| {
        let (set, last) = (chunk.first_chunk::<32>()?, chunk.last_chunk::<32>()?);
        Some(Known { set: PathSetDigest::from_bytes(*set), last: KeyDigest::from_bytes(*last) })
    };
    rest.is_empty().then(|| chunks.iter().filter_map(one).collect())
}

/// Puts a path set in front of the list, with the key of its last result.
pub fn prefer(store: &Store, base: &KeyDigest, used: Known) -> Result<(), EngineError> {
    let here = store.record_here(SETS, base)?;
    let mut list = here.and_then(|bytes| decode_known(&bytes)).unwrap_or_default();
    if list.first() == Some(&used) {
        return Ok(());
    }
    list.retain(|k| k.set != used.set);
    list.insert(0, used);
    list.truncate(MAX_SETS);
    Ok(store.record_put(SETS, base, &encode_known(&list), &[])?)
}

/// A result whose facts hold.
#[derive(Debug)]
pub struct Match<T> {
    /// Its key.
    pub strong: KeyDigest,
    /// Its path set.
    pub set: PathSetDigest,
    /// What was recorded.
    pub found: Found,
    /// What `accept` made of it.
    pub accepted: T,
}

/// Looks for a result whose facts hold in these trees, path set after path set; `weak` is what it depends on besides,
/// the order of the path set's files included.
/// The first that is accepted is taken, and its path set preferred from then on.
///
/// # Errors
/// As [`Store`]'s records, and as `accept`.
pub fn search<T>(
    store: &Store,
    sets: &Sets,
    base: &KeyDigest,
    known: &[Known],
    weak: &dyn Fn(&PathSet) -> KeyDigest,
    observed: &Observed<'_>,
    accept: impl Fn(&KeyDigest, &Found) -> Result<Option<T>, EngineError>,
) -> Result<Option<Match<T>>, EngineError> {
    for Known { set: digest, .. } in known {
        let Some(set) = sets.get(store, digest)? else { continue };
        let Some(strong) = observed.strong_key(&weak(&set), &set) else { continue };
        let Some(found) = find(store, &strong)? else { continue };
        if let Some(accepted) = accept(&strong, &found)? {
            prefer(store, base, Known { set: *digest, last: strong })?;
            return Ok(Some(Match { strong, set: *digest, found, accepted }));
        }
    }
    Ok(None)
}

/// The result under a strong key. Whether its bundle is there is not looked at.
pub fn find(store: &Store, strong: &KeyDigest) -> Result<Option<Found>, EngineError> {
    Ok(store.record_get(RESULTS, strong)?.and_then(|bytes| Found::decode(&bytes)))
}

/// A bundle that earlier results of a step had: that of `last`, or one of shared caches, unless it is this one.
pub(crate) fn earlier_bundle(
    store: &Store,
    base: &KeyDigest,
    last: Option<KeyDigest>,
    but: &BundleId,
) -> Option<BundleId> {
    let bundle = |strong: &KeyDigest| find(store, strong).ok()??.bundle.filter(|bundle| bundle != but);
    let elsewhere = || known_elsewhere(store, base, &[]);
    last.as_ref().and_then(bundle).or_else(|| elsewhere().iter().take(MAX_TRIED).find_map(|known| bundle(&known.last)))
}

/// Records a result. Unless it is to replace what is there, the first one stays: says whether this one was it.
pub fn put(
    store: &Store,
    base: &KeyDigest,
    strong: &KeyDigest,
    set: &PathSet,
    found: &Found,
    replace: bool,
) -> Result<bool, EngineError> {
    let digest = set.digest();
    store.record_put_new(PATHS, &key_of(&digest), &pack(&set.encode()), &[])?;
    let refs: Vec<Ref> = found.bundle.map(Ref::Bundle).into_iter().collect();
    let bytes = found.encode();
    let first = match replace {
        true => store.record_put(RESULTS, strong, &bytes, &refs).map(|()| true)?,
        false => store.record_put_new(RESULTS, strong, &bytes, &refs)?,
    };
    prefer(store, base, Known { set: digest, last: *strong })?;
    Ok(first)
}

/// Forgets a result whose bundle is gone.
pub fn forget(store: &Store, strong: &KeyDigest) -> Result<(), EngineError> {
    store.record_delete(RESULTS, strong)?;
    Ok(())
}

impl Found {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.bundle.is_some())];
        out.extend_from_slice(self.bundle.map_or([0; 32], |bundle| *bundle.as_bytes()).as_slice());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.millis.to_le_bytes());
        out.extend(pack(&Glance::encode_all(&self.glances)));
        out
    }

    /// `None`: another version, or damage; both are a miss.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, has_bundle], rest) = bytes.split_first_chunk::<2>()?;
        let (bundle, rest) = rest.split_first_chunk::<32>()?;
        let (created, rest) = rest.split_first_chunk::<8>()?;
        let (millis, rest) = rest.split_first_chunk::<8>()?;
        (version == VERSION && has_bundle <= 1).then_some(())?;
        Some(Self {
            bundle: (has_bundle == 1).then(|| BundleId::from_bytes(*bundle)),
            created: i64::from_le_bytes(*created),
            millis: u64::from_le_bytes(*millis),
            glances: Glance::decode_all(&unpack(rest)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::{
        KeyHasher,
        facts::{Look, Looks},
    };

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn key(name: &str) -> KeyDigest {
        KeyHasher::new("test").value(name).finish()
    }

    fn set(path: &str) -> PathSet {
        let mut looks = Looks::default();
        looks.add(path.as_bytes(), Look::NODE);
        PathSet::of(&[looks])
    }

    fn result(millis: u64) -> Found {
        Found { bundle: None, created: 5, millis, glances: vec![] }
    }

    #[test]
    fn results_round_trip_and_damage_is_a_miss() {
        let found = Found { bundle: Some(BundleId::from_bytes([7; 32])), ..result(3) };
        let bytes = found.encode();
        assert_eq!(Found::decode(&bytes), Some(found));
        assert!((0..bytes.len()).all(|cut| Found::decode(&bytes[..cut]).is_none()));
    }

    #[test]
    fn the_first_result_stays_unless_it_is_replaced() {
        let (_dir, store) = store();
        let (base, strong, paths) = (key("base"), key("strong"), set("/a"));
        assert!(put(&store, &base, &strong, &paths, &result(1), false).unwrap());
        assert!(!put(&store, &base, &strong, &paths, &result(2), false).unwrap());
        assert_eq!(find(&store, &strong).unwrap(), Some(result(1)));
        assert!(put(&store, &base, &strong, &paths, &result(3), true).unwrap());
        assert_eq!(find(&store, &strong).unwrap(), Some(result(3)));
        let listed = known(&store, &base).unwrap();
        assert_eq!(listed, [Known { set: paths.digest(), last: strong }]);
        assert_eq!(*Sets::default().get(&store, &listed[0].set).unwrap().unwrap(), paths);
    }

    #[test]
    fn path_sets_are_bounded_and_the_useful_ones_stay() {
        let (_dir, store) = store();
        let base = key("base");
        let used = |n: usize| Known { set: set(&format!("/{n}")).digest(), last: key("x") };
        prefer(&store, &base, used(0)).unwrap();
        for n in 1..=MAX_SETS + 3 {
            prefer(&store, &base, used(n)).unwrap();
            prefer(&store, &base, used(0)).unwrap();
        }
        let listed = known(&store, &base).unwrap();
        assert_eq!(listed.len(), MAX_SETS);
        assert_eq!(listed[..2], [used(0), used(MAX_SETS + 3)]);
    }
}
