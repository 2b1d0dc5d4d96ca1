//! A step that was asked to run anew (`--no-cache`) begins a history of its own: what it yielded before is not brought
//! back by a later edit, be it one that makes an older input equal again, or one of something that only the newer run
//! looked at.
//!
//! Under its definition a mark is kept, and all its keys are made of the definition with the mark. Steps that were never
//! asked have none.

use std::time::{SystemTime, UNIX_EPOCH};

use memobuild_store::Store;
use memobuild_tree::{KeyDigest, KeyHasher};

use crate::EngineError;

const MARKS: &str = "renewal.v1";

/// The definition that a step's keys are made of.
pub(crate) fn current(store: &Store, definition: &KeyDigest) -> Result<KeyDigest, EngineError> {
    let mark = store.record_get(MARKS, definition)?;
    Ok(mark.and_then(|bytes| Some(KeyDigest::from_bytes(*bytes.first_chunk()?))).unwrap_or(*definition))
}

/// Another one than ever before. It counts once it is [noted](note).
pub(crate) fn begin(definition: &KeyDigest) -> KeyDigest {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut h = KeyHasher::new("memobuild.step.renewal.v1");
    h.value(definition).u64(now.as_secs()).u64(u64::from(now.subsec_nanos())).u64(u64::from(std::process::id()));
    h.finish()
}

/// From now on the keys of a step with that definition are made of `renewed`.
pub(crate) fn note(store: &Store, definition: &KeyDigest, renewed: &KeyDigest) -> Result<(), EngineError> {
    Ok(store.record_put(MARKS, definition, renewed.as_bytes(), &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_begins_when_it_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let [one, other] = ["one", "other"].map(|name| KeyHasher::new("test").value(name).finish());
        let renewed = begin(&one);
        assert_ne!(renewed, one);
        assert_eq!(current(&store, &one).unwrap(), one);
        note(&store, &one, &renewed).unwrap();
        assert_eq!(current(&store, &one).unwrap(), renewed);
        assert_eq!(current(&store, &other).unwrap(), other);
        assert_ne!(begin(&one), renewed);
    }
}
