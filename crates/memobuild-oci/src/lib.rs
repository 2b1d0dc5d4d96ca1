//! Images in and out: layers as tar, layouts, archives, registries.
//!
//! In: references, paths and blobs. Out: [`image::BaseImage`] (config, and layers imported when they are needed) and
//! files in the formats that other tools read ([`output`]), or images in a container runtime ([`runtime`]). Called by the
//! engine and the command line. Knows nothing of building.
//!
//! The JSON types (config, manifest, index, descriptor, platform, media types) are in `memobuild-image`, one floor
//! down, since the planner needs them too; they are re-exported here as [`model`]. Extend them there.
#![forbid(unsafe_code)]

pub use memobuild_image as model;

pub mod http;
pub mod image;
pub mod layer;
pub mod output;
pub mod reference;
pub mod registry;
pub mod runtime;
