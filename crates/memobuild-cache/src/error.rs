//! What can go wrong with a shared cache. None of it fails a build.

use std::{io, path::PathBuf};

use memobuild_oci::{layer::LayerError, registry::RegistryError};
use memobuild_store::StoreError;
use memobuild_tree::{BundleId, Sha256Digest};

use crate::remote::RemoteError;

/// A failure of a shared cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is no cache of that name.
    #[error("{place}: there is no cache yet")]
    Absent {
        /// Where it was looked for.
        place: String,
    },
    /// What is there is not a cache, or one of another version.
    #[error("{place}: {why}")]
    Invalid {
        /// Where it was read.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer of an image that carries its cache.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob that the directory names is not there.
    #[error("{place}: blob {digest} is not there")]
    NoBlob {
        /// Where it was looked for.
        place: String,
        /// Which.
        digest: Sha256Digest,
    },
    /// A bundle was pruned while it was to be exported.
    #[error("bundle {0} is not in the store any more")]
    NoBundle(BundleId),
    /// A server.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl CacheError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
