//! A cache that machines share, as the store sees it: records and diffs that are not here and can be had.
//!
//! What an upstream knows is used for a build without being written down: nothing here refers to what may never come.
//! Contents are brought through [`crate::Provider`], when something reads them.

use std::sync::Arc;

use memobuild_tree::{BundleId, ContentDigest, Diff, KeyDigest};

use crate::{Store, error::Result};

/// Someone who knows results of other machines. It answers from memory or from far away, and a failure of its own is
/// "not known": it has to tell its users by other means, and calls [`Store::note_lost`] if it had offered more.
pub trait Upstream: Send + Sync {
    /// The values of a record, best first.
    fn records(&self, ns: &str, key: &KeyDigest) -> Vec<Vec<u8>>;

    /// Whether a bundle can be had. Cheap.
    fn offers(&self, id: &BundleId) -> bool;

    /// What a bundle changes.
    fn diff(&self, id: &BundleId) -> Option<Arc<Diff>>;
}

/// An upstream is asked as long as this lives.
#[must_use]
pub struct Joined {
    store: Store,
    upstream: Arc<dyn Upstream>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.store.with_upstreams(|all| all.retain(|u| !Arc::ptr_eq(u, &self.upstream)));
    }
}

impl Store {
    /// Adds someone to be asked for records and bundles that are not here.
    pub fn add_upstream(&self, upstream: Arc<dyn Upstream>) -> Joined {
        self.with_upstreams(|all| all.push(upstream.clone()));
        Joined { store: self.clone(), upstream }
    }

    fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        self.with_upstreams(|all| all.clone())
    }

    /// Every value that upstreams have of that key. For records that may be here without what they name, and for lists
    /// that are to be read together.
    pub fn records_upstream(&self, ns: &str, key: &KeyDigest) -> Vec<Vec<u8>> {
        self.upstreams().iter().flat_map(|upstream| upstream.records(ns, key)).collect()
    }

    pub(crate) fn record_upstream(&self, ns: &str, key: &KeyDigest) -> Option<Vec<u8>> {
        self.upstreams().iter().find_map(|upstream| upstream.records(ns, key).into_iter().next())
    }

    pub(crate) fn is_offered(&self, id: &BundleId) -> bool {
        self.upstreams().iter().any(|upstream| upstream.offers(id))
    }

    pub(crate) fn diff_upstream(&self, id: &BundleId) -> Option<Arc<Diff>> {
        self.upstreams().iter().filter(|upstream| upstream.offers(id)).find_map(|upstream| upstream.diff(id))
    }

    /// Something that was offered can't be had after all. Counts as damage that was set aside: whoever fails for it may
    /// try again.
    pub fn note_lost(&self) {
        self.count_set_aside();
    }
}

impl Store {
    /// The bundle that holds a small content, among those that are loaded.
    pub fn bundle_of(&self, digest: &ContentDigest) -> Option<BundleId> {
        self.bundles().find(digest).map(|(bundle, _)| bundle.id)
    }

    /// Bytes of the small contents that a bundle holds itself. None if it is not here.
    pub fn bundle_bytes(&self, id: &BundleId) -> Result<Option<u64>> {
        Ok(self.bundle_tables(id)?.map(|bundle| bundle.tables.iter().map(|entry| u64::from(entry.len)).sum()))
    }
}
