//! Results as records: what an executed step yielded, found again under its key.

use memobuild_store::{Ref, Store};
use memobuild_tree::{BundleId, KeyDigest, PathSetDigest, TreeDigest};

use super::facts::Known;
use crate::EngineError;

/// Version of the encoding below and of the semantics of step results: raised whenever a step of the same definition
/// could yield something else than before.
pub(crate) const VERSION: u8 = 3;
/// Namespace of results.
pub(crate) const RESULTS: &str = "result";
/// Namespace of what definitions were seen with.
pub(crate) const SEEN: &str = "seen";

/// What a step yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memo {
    /// The change; none: the tree stayed as it was.
    pub(crate) bundle: Option<BundleId>,
    /// Identity of the resulting tree.
    pub(crate) identity: TreeDigest,
    /// When it was made, seconds since the epoch.
    pub(crate) created: i64,
    /// How long that took, in milliseconds.
    pub(crate) millis: u64,
    /// What it is by its facts, where those are known.
    pub(crate) seen: Option<Known>,
    /// The changes below, and the order of the files that it looked at (`step::past`). Where the former are others now,
    /// the latter must be the same.
    pub(crate) past: KeyDigest,
    pub(crate) order: KeyDigest,
}

impl Memo {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.bundle.is_some()) | u8::from(self.seen.is_some()) << 1];
        out.extend([self.identity.as_bytes(), self.past.as_bytes(), self.order.as_bytes()].into_iter().flatten());
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.millis.to_le_bytes());
        out.extend(self.bundle.iter().flat_map(|b| b.as_bytes()));
        out.extend(self.seen.iter().flat_map(|known| [known.set.as_bytes(), known.last.as_bytes()]).flatten());
        out
    }

    /// `None`: another version, or damage; both are a miss.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, has], rest) = bytes.split_first_chunk::<2>()?;
        let (identity, rest) = rest.split_first_chunk::<32>()?;
        let (past, rest) = rest.split_first_chunk::<32>()?;
        let (order, rest) = rest.split_first_chunk::<32>()?;
        let (created, rest) = rest.split_first_chunk::<8>()?;
        let (millis, mut rest) = rest.split_first_chunk::<8>()?;
        let mut take = |wanted: bool| -> Option<Option<[u8; 32]>> {
            if !wanted {
                return Some(None);
            }
            let (digest, after) = rest.split_first_chunk::<32>()?;
            rest = after;
            Some(Some(*digest))
        };
        let bundle = take(has & 1 != 0)?.map(BundleId::from_bytes);
        let (set, last) = (take(has & 2 != 0)?, take(has & 2 != 0)?);
        let seen = set
            .zip(last)
            .map(|(set, last)| Known { set: PathSetDigest::from_bytes(set), last: KeyDigest::from_bytes(last) });
        (version == VERSION && has < 4 && rest.is_empty()).then_some(Self {
            bundle,
            identity: TreeDigest::from_bytes(*identity),
            created: i64::from_le_bytes(*created),
            millis: u64::from_le_bytes(*millis),
            seen,
            past: KeyDigest::from_bytes(*past),
            order: KeyDigest::from_bytes(*order),
        })
    }
}

/// The result under a key, if there is one and its bundle is there.
pub(crate) fn find(store: &Store, key: &KeyDigest) -> Result<Option<Memo>, EngineError> {
    let whole = |memo: &Memo| memo.bundle.is_none_or(|bundle| store.has_bundle(&bundle));
    let first = |all: &[Vec<u8>]| all.iter().filter_map(|bytes| Memo::decode(bytes)).find(whole);
    if let Some(memo) = first(&Vec::from_iter(store.record_here(RESULTS, key)?)) {
        return Ok(Some(memo));
    }
    // Others are asked only if there is none here: they may be far away.
    Ok(first(&store.records_upstream(RESULTS, key)))
}

/// Records a result under its keys. A result that is known already is replaced: this one was made later, on demand. One
/// whose change is not here is not recorded: it is found again where it came from.
pub(crate) fn record(store: &Store, keys: &[KeyDigest], memo: &Memo) -> Result<(), EngineError> {
    if memo.bundle.is_some_and(|bundle| !store.holds_bundle(&bundle)) {
        return Ok(());
    }
    let refs: Vec<Ref> = memo.bundle.map(Ref::Bundle).into_iter().collect();
    for key in keys {
        store.record_put(RESULTS, key, &memo.encode(), &refs)?;
    }
    Ok(())
}

/// What a definition was last seen with: for explaining a miss, never for a hit.
pub(crate) fn last_seen(store: &Store, definition: &KeyDigest) -> Result<Option<Vec<TreeDigest>>, EngineError> {
    let bytes = store.record_get(SEEN, definition)?;
    Ok(bytes.map(|b| b.chunks_exact(32).filter_map(|c| Some(TreeDigest::from_bytes(c.try_into().ok()?))).collect()))
}

/// Notes what a definition was seen with.
pub(crate) fn note_seen(store: &Store, definition: &KeyDigest, inputs: &[TreeDigest]) -> Result<(), EngineError> {
    let bytes: Vec<u8> = inputs.iter().flat_map(|i| *i.as_bytes()).collect();
    store.record_put(SEEN, definition, &bytes, &[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memos_round_trip_and_damage_is_a_miss() {
        let known = Known { set: PathSetDigest::from_bytes([5; 32]), last: KeyDigest::from_bytes([6; 32]) };
        let bundle = Some(BundleId::from_bytes([7; 32]));
        for (bundle, seen) in [(None, None), (bundle, None), (None, Some(known)), (bundle, Some(known))] {
            let (past, order) = (KeyDigest::from_bytes([3; 32]), KeyDigest::from_bytes([4; 32]));
            let identity = TreeDigest::from_bytes([9; 32]);
            let memo = Memo { bundle, identity, created: -5, millis: 77, seen, past, order };
            let bytes = memo.encode();
            assert_eq!(Memo::decode(&bytes), Some(memo));
            for cut in 0..bytes.len() {
                assert_eq!(Memo::decode(&bytes[..cut]), None);
            }
            let mut other = bytes.clone();
            other[0] += 1;
            assert_eq!(Memo::decode(&other), None);
        }
    }
}
