//! Images to build upon, wherever they are: OCI layouts, docker archives, registries, the store.
//!
//! In: an [`ImageSource`] and a platform. Out: a [`BaseImage`], whose layers become bundles when they are asked for, and
//! whose compressed blobs are passed on unchanged. Called by the engine. Never: unpacks a layer to disk.

use std::path::PathBuf;

use memobuild_image::Descriptor;
use memobuild_tree::{BundleId, Sha256Digest};

mod base;
mod choose;
mod docker_archive;
mod error;
mod place;
mod stored;
#[cfg(test)]
mod tests;

pub use base::{BaseImage, CONTENTS, contents_record, from_stored, open, stored_diff};
pub use error::ImageError;
pub use stored::StoredImage;

use crate::reference::Reference;

/// Is told how far a transfer has come: bytes, and of how many where that is known.
pub type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// Which image of a layout or archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The only one, or the one that is called `latest`.
    Any,
    /// The one of that tag or full name.
    Tag(String),
    /// The one of that manifest digest (config digest in a docker archive).
    Digest(Sha256Digest),
}

/// Where an image is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// An OCI layout (directory or tar, compressed or not) or docker archive, told by content.
    Path {
        /// Where it is.
        path: PathBuf,
        /// Which image of it.
        pick: Pick,
    },
    /// A registry.
    Registry(Reference),
    /// An image of memobuild's own store, by tag.
    Stored(Reference),
}

impl ImageSource {
    /// What stands behind `oci-layout://`: a path, then `:tag` or `@digest`.
    pub fn layout(text: &str) -> Self {
        if let Some((path, digest)) = text.rsplit_once('@')
            && let Ok(digest) = digest.parse()
        {
            // A tag beside a digest says nothing more.
            let path = path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(path, |(path, _)| path);
            return Self::Path { path: path.into(), pick: Pick::Digest(digest) };
        }
        match text.rsplit_once(':') {
            Some((path, tag)) if !tag.is_empty() && !tag.contains('/') && !path.is_empty() => {
                Self::Path { path: path.into(), pick: Pick::Tag(tag.into()) }
            }
            _ => Self::Path { path: text.into(), pick: Pick::Any },
        }
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseLayer {
    /// SHA-256 of its uncompressed tar.
    pub diff_id: Sha256Digest,
    /// Its blob, under OCI's media type; `None` for layers that have none yet.
    pub blob: Option<Descriptor>,
    /// Its bundle, where it is known.
    pub bundle: Option<BundleId>,
    /// The repository from which the blob can be fetched, of a layer that came from a registry.
    pub origin: Option<Reference>,
}
