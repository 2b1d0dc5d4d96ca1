//! One layer: a tar stream and the [`Diff`](memobuild_tree::Diff) that it stands for.
#![allow(missing_docs, unused_variables, clippy::todo)]
use memobuild_image::Descriptor;
use memobuild_store::{BundleWriter, Store};
use memobuild_tree::{ApplyError, BundleId, Diff, Dir, DirChange, Sha256Digest, Tree};
use std::io::{Read, Write};

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Store(#[from] memobuild_store::StoreError),
}

#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub diff_id: Option<Sha256Digest>,
    pub blob: Option<(Sha256Digest, u64)>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLayer {
    pub bundle: BundleId,
    pub diff_id: Sha256Digest,
    pub blob: (Sha256Digest, u64),
}
/// One pass: decompress (by content), check both digests, parse, write the bundle; with `keep_blob` the bytes as read are kept as an OCI blob.
pub fn import_layer(
    reader: impl Read + Send,
    expected: &Expected,
    keep_blob: bool,
    store: &Store,
) -> Result<ImportedLayer, LayerError> {
    todo!()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip { level: u32 },
    Zstd { level: u32 },
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampPolicy {
    Keep,
    Clamp(i64),
    Set(i64),
}
#[derive(Debug, Clone, PartialEq)]
pub struct ExportedLayer {
    pub diff_id: Sha256Digest,
    /** media type, digest, size of the OCI blob in the store */
    pub blob: Descriptor,
}
pub fn export_layer(
    store: &Store,
    bundle: &BundleId,
    compression: Compression,
    policy: TimestampPolicy,
) -> Result<ExportedLayer, LayerError> {
    todo!()
}
/// The diff ID only: nothing is compressed or kept.
pub fn layer_diff_id(store: &Store, bundle: &BundleId, policy: TimestampPolicy) -> Result<Sha256Digest, LayerError> {
    todo!()
}
/// `Diff::apply` but with containerd's rule for parents that are links in a lower layer.
pub fn apply_layer(tree: &Tree, diff: &Diff) -> Result<Tree, ApplyError> {
    todo!()
}

pub mod archive {
    use super::*;
    #[derive(Debug, Clone, Default)]
    pub struct ExtractOptions<'a> {
        /** absolute path of the destination in the image */
        pub dest: &'a [u8],
        /** what stands there now */
        pub below: Option<&'a Dir>,
        pub owner: Option<(u32, u32)>,
    }
    /// gzip, bzip2, xz, zstd or plain, told by content, and then a tar header.
    pub fn is_archive(reader: &mut dyn Read) -> bool {
        todo!()
    }
    /// The changes to the directory at `dest`.
    pub fn extract(
        reader: impl Read + Send,
        writer: &BundleWriter,
        options: &ExtractOptions<'_>,
    ) -> Result<DirChange, LayerError> {
        todo!()
    }
}
