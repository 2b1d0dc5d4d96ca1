//! What a step yields: a tree whose identity is known at once and which itself is put together only when something
//! looks into it.

use std::sync::{Arc, Mutex, PoisonError};

use memobuild_observe::FailureKind;
use memobuild_store::Store;
use memobuild_tree::{BundleId, Tree, TreeDigest};

use crate::EngineError;

/// A file tree by its identity.
pub(crate) struct Value {
    identity: TreeDigest,
    tree: Mutex<Option<Tree>>,
    source: Source,
    /// What the step changed, and when that was made (seconds since the epoch); none: nothing, or it is no change to
    /// anything (a base, a context).
    pub(crate) change: Option<(BundleId, i64)>,
}

/// How the tree is put together.
pub(crate) enum Source {
    /// It is there from the start.
    Ready,
    /// The bundle's diff over the parent's tree; made at that time, in seconds since the epoch.
    Applied(Arc<Value>, BundleId, i64),
    /// The same tree as the parent's.
    Same(Arc<Value>),
    /// A base image: whatever this gives.
    Deferred(Box<dyn Fn() -> Result<Tree, EngineError> + Send + Sync>),
}

impl Value {
    /// A tree that is there.
    pub(crate) fn ready(tree: Tree, change: Option<(BundleId, i64)>) -> Arc<Self> {
        let identity = tree.identity();
        Arc::new(Self { identity, tree: Mutex::new(Some(tree)), source: Source::Ready, change })
    }

    /// A tree that is known by its identity only.
    pub(crate) fn lazy(identity: TreeDigest, source: Source) -> Arc<Self> {
        let change = match &source {
            Source::Applied(_, bundle, created) => Some((*bundle, *created)),
            _ => None,
        };
        Arc::new(Self { identity, tree: Mutex::new(None), source, change })
    }

    /// What keys use.
    pub(crate) fn identity(&self) -> TreeDigest {
        self.identity
    }

    /// The tree, if it has been put together.
    pub(crate) fn known(&self) -> Option<Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, tree: &Tree) {
        *self.tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree.clone());
    }

    /// The tree itself. Loads tables of contents, never file contents (a base image may be fetched).
    pub(crate) fn tree(&self, store: &Store) -> Result<Tree, EngineError> {
        // From here down to the first tree that is known; then up again, applying one diff after the other.
        let mut todo: Vec<&Self> = Vec::new();
        let mut at = self;
        let mut tree = loop {
            if let Some(tree) = at.known() {
                break tree;
            }
            match &at.source {
                Source::Applied(parent, ..) | Source::Same(parent) => {
                    todo.push(at);
                    at = parent;
                }
                Source::Deferred(make) => {
                    let tree = make()?;
                    at.check(&tree)?;
                    at.remember(&tree);
                    break tree;
                }
                Source::Ready => {
                    return Err(EngineError::new(FailureKind::Cache, "a tree that was there is gone"));
                }
            }
        };
        while let Some(value) = todo.pop() {
            if let Source::Applied(_, bundle, _) = &value.source {
                let diff = store.load_bundle(bundle)?.ok_or_else(|| {
                    EngineError::new(FailureKind::Cache, format!("bundle {bundle} is missing from the cache"))
                        .with_hint("another process may have pruned the cache; run the build again")
                })?;
                tree = diff.apply(&tree).map_err(|e| EngineError::new(FailureKind::Cache, e.to_string()))?;
            }
            value.check(&tree)?;
            value.remember(&tree);
        }
        Ok(tree)
    }

    /// A recorded identity that the tree does not have means that the record is wrong: nothing may be built on it.
    fn check(&self, tree: &Tree) -> Result<(), EngineError> {
        if tree.identity() == self.identity {
            return Ok(());
        }
        Err(EngineError::new(
            FailureKind::Cache,
            format!("the cache is incoherent: a result is recorded as {} but is {}", self.identity, tree.identity()),
        )
        .with_hint("build with --no-cache, and run `memobuild prune --all` to start afresh"))
    }
}
