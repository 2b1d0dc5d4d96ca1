//! Annotations by where they are put (`--annotation`, `annotation-LEVEL.KEY=` of an output), as buildx has them.

use std::collections::BTreeMap;

use memobuild_image::Platform;

/// The document that an annotation stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The image's manifest.
    Manifest,
    /// The entry of the manifest in the index.
    ManifestDescriptor,
    /// The index, where there is one.
    Index,
    /// The entry of the image in a layout's `index.json`.
    IndexDescriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where.
    pub level: Level,
    /// For the image of that platform only.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Those of one level, for the image of a platform. Later ones win.
pub(crate) fn of(all: &[Annotation], level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
    let meant = |a: &&Annotation| a.level == level && (a.platform.is_none() || a.platform.as_ref() == platform);
    all.iter().filter(meant).map(|a| (a.key.clone(), a.value.clone())).collect()
}
