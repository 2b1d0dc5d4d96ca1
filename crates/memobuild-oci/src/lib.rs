//! Images in and out: config, manifest, layers as tar, layouts, archives, registries.
#![forbid(unsafe_code)]
