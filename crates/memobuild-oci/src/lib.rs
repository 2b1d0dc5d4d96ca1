//! Images in and out: layers as tar, layouts, archives, registries.
//!
//! The JSON types (config, manifest, index, descriptor, platform, media types) are in `memobuild-image`, one floor
//! down, since the planner needs them too; they are re-exported here as [`model`]. Extend them there.
#![forbid(unsafe_code)]

pub use memobuild_image as model;
