//! One layer: a tar stream, compressed or not, and the [`Diff`](memobuild_tree::Diff) that it stands for.
//!
//! In: blobs ([`import_layer`]), local archives ([`archive`]), bundles ([`export_layer`]). Out: bundles and blobs in the
//! store. Called by [`crate::image`], [`crate::output`] and the engine. Never: a file on disk per file in a layer, or
//! memory that grows with the size of a file.

mod apply;
pub mod archive;
mod build;
mod compress;
pub(crate) mod decompress;
mod dense;
mod error;
mod export;
mod gzip;
mod import;
mod pipe;
mod pool;
mod seekable;
pub(crate) mod tar;

#[cfg(test)]
mod compress_tests;
#[cfg(test)]
mod tests;

pub use apply::apply_layer;
pub use compress::Compression;
pub use error::LayerError;
pub use export::{
    DIFF_ID, ExportedLayer, TimestampPolicy, diff_id_record, export_layer, exported_record, known_export,
    layer_diff_id, recompress_layer, write_layer,
};
pub(crate) use export::{layer_size, write_rootfs};
pub use import::{Expected, ImportedLayer, import_layer, parse_only};
