//! Base images, wherever they are.
#![allow(missing_docs, unused_variables, clippy::todo)]
use crate::{reference::Reference, registry::Registries};
use memobuild_image::{Descriptor, ImageConfig, Platform};
use memobuild_store::Store;
use memobuild_tree::{BundleId, Sha256Digest, Tree};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Store(#[from] memobuild_store::StoreError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    Any,
    Tag(String),
    Digest(Sha256Digest),
}
#[derive(Debug, Clone)]
pub enum ImageSource {
    /// OCI layout (directory or tar) or docker archive, told by content.
    Path {
        path: PathBuf,
        pick: Pick,
    },
    Registry(Reference),
    /// An image of memobuild's own store, by tag.
    Stored(Reference),
}
#[derive(Debug)]
pub struct BaseImage {
    pub config_bytes: Vec<u8>,
    pub config: ImageConfig,
    pub platform: Platform,
    /** digest of the manifest (of the index where there is one: `pinned`) */
    pub manifest: Sha256Digest,
    pub layers: Vec<BaseLayer>,
}
#[derive(Debug, Clone, PartialEq)]
pub struct BaseLayer {
    pub diff_id: Sha256Digest,
    /** absent: an own layer not yet exported */
    pub blob: Option<Descriptor>,
    pub bundle: Option<BundleId>,
}
pub type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

pub fn open(
    source: &ImageSource,
    platform: &Platform,
    store: &Store,
    registries: &Registries,
) -> Result<BaseImage, ImageError> {
    todo!()
}
impl BaseImage {
    /// Imports (fetching where needed) layer `i`.
    pub fn ensure_layer(&self, i: usize, progress: Progress<'_>) -> Result<BundleId, ImageError> {
        todo!()
    }
    /// The compressed blob in the store, as it came (or exported now).
    pub fn ensure_blob(&self, i: usize, progress: Progress<'_>) -> Result<Descriptor, ImageError> {
        todo!()
    }
    /// All layers applied.
    pub fn tree(&self, progress: Progress<'_>) -> Result<Tree, ImageError> {
        todo!()
    }
}

/// An image in the store under tags.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImage {
    /** config blob in the store; its digest is the image id */
    pub config: Descriptor,
    pub layers: Vec<BaseLayer>,
    /** set once exported */
    pub manifest: Option<Descriptor>,
    pub created_secs: i64,
}
impl StoredImage {
    pub fn tag(&self, store: &Store, names: &[Reference]) -> Result<(), ImageError> {
        todo!()
    }
    pub fn by_tag(store: &Store, name: &Reference) -> Result<Option<Self>, ImageError> {
        todo!()
    }
    pub fn all(store: &Store) -> Result<Vec<(Reference, Self)>, ImageError> {
        todo!()
    }
}
