//! What can be wrong with a layer or archive.

use std::io;

use memobuild_store::StoreError;
use memobuild_tree::{BundleId, Sha256Digest, path::display};

/// A layer or archive that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source of the bytes failed, or its compression is damaged.
    #[error("could not read the layer")]
    Read(#[source] io::Error),
    /// The stream can't be written on.
    #[error("could not write the layer")]
    Write(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("the archive is cut short (in the entry at byte {offset})")]
    Truncated {
        /// Where the entry starts in the uncompressed stream.
        offset: u64,
    },
    /// Something that is no tar, or a tar that no tool should make.
    #[error("invalid archive: {what} (in the entry at byte {offset}{})", entry.as_ref().map(|e| format!(", {}", display(e))).unwrap_or_default())]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Where the entry starts in the uncompressed stream.
        offset: u64,
        /// The name in the entry, where it is known.
        entry: Option<Vec<u8>>,
    },
    /// The bytes are not those that were announced.
    #[error("{what} mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// `digest` (as stored or sent) or `diff ID` (uncompressed).
        what: &'static str,
        /// Announced.
        expected: Sha256Digest,
        /// Found.
        actual: Sha256Digest,
    },
    /// There are more or fewer bytes than were announced.
    #[error("size mismatch: expected {expected} bytes, got {actual}{}", if actual > expected { " or more" } else { "" })]
    SizeMismatch {
        /// Announced.
        expected: u64,
        /// Found.
        actual: u64,
    },
    /// Something can't be said in a layer.
    #[error("{} can't be written to a layer: {why}", display(path))]
    Unrepresentable {
        /// The path in the image.
        path: Vec<u8>,
        /// Why not.
        why: &'static str,
    },
    /// The bundle to be exported is not in the store.
    #[error("no bundle {0} in the store")]
    NoBundle(BundleId),
    /// A compression level out of range, or a compressor that refuses to start.
    #[error("could not compress the layer: {0}")]
    Compress(String),
}

impl LayerError {
    /// Whether the layer itself is at fault, and not this machine: asking the same source again is of no use.
    pub fn is_bad_input(&self) -> bool {
        matches!(
            self,
            Self::Truncated { .. } | Self::Invalid { .. } | Self::DigestMismatch { .. } | Self::SizeMismatch { .. }
        )
    }
}
