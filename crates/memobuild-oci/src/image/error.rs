//! Why an image can't be had.

use std::{io, path::PathBuf};

use memobuild_image::Platform;
use memobuild_store::StoreError;
use memobuild_tree::{ApplyError, Sha256Digest};

use crate::{layer::LayerError, reference::Reference, registry::RegistryError};

/// An image that can't be opened or imported.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer is damaged or can't be written.
    #[error("layer {diff_id} of {image}")]
    Layer {
        /// The image, as it was asked for.
        image: String,
        /// Which layer.
        diff_id: Sha256Digest,
        /// What is wrong with it.
        #[source]
        source: Box<LayerError>,
    },
    /// A layer does not fit those below it.
    #[error("layer {diff_id} of {image}")]
    Apply {
        /// The image, as it was asked for.
        image: String,
        /// Which layer.
        diff_id: Sha256Digest,
        /// What does not fit.
        #[source]
        source: ApplyError,
    },
    /// A file can't be read.
    #[error("could not read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The path leads to no image.
    #[error("{} is no image: {why}", path.display())]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// What lacks.
        why: String,
    },
    /// No image of that tag or digest is there.
    #[error("{image}: {wanted} not found{}", list(.have))]
    NotFound {
        /// Where was looked.
        image: String,
        /// Tag or digest.
        wanted: String,
        /// The tags that are there.
        have: Vec<String>,
    },
    /// Several images, and nothing to choose by.
    #[error("{image} holds several images: name one{}", list(.have))]
    Ambiguous {
        /// Where was looked.
        image: String,
        /// The tags that are there.
        have: Vec<String>,
    },
    /// The image is not there for the platform.
    #[error("{image} has no image for {wanted}{}", list(.have))]
    NoPlatform {
        /// The image, as it was asked for.
        image: String,
        /// The platform wanted.
        wanted: Box<Platform>,
        /// Those that are there.
        have: Vec<String>,
    },
    /// A manifest, index or config that makes no sense.
    #[error("{image}: invalid {what}: {why}")]
    Invalid {
        /// The image, as it was asked for.
        image: String,
        /// Which document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that are not those that were announced.
    #[error("{image}: digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The image, as it was asked for.
        image: String,
        /// Announced.
        expected: Sha256Digest,
        /// Found.
        actual: Sha256Digest,
    },
    /// No image of that name has been built or pulled.
    #[error("no image {} in the store", .0.familiar())]
    NotStored(Reference),
}

fn list(have: &[String]) -> String {
    if have.is_empty() { String::new() } else { format!(" (there: {})", have.join(", ")) }
}

impl ImageError {
    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::Layer { source, .. } if source.is_bad_input() => {
                Some("the image is damaged: fetch or make it anew".into())
            }
            Self::DigestMismatch { .. } => Some("the image is damaged: fetch or make it anew".into()),
            Self::NoPlatform { .. } => Some("choose another with --platform".into()),
            Self::NotStored(_) => Some("`memobuild images` lists those that are there".into()),
            _ => None,
        }
    }
}
