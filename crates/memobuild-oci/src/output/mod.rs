//! Images as other tools read them: as files (`type=oci`, `docker`, `tar` and `local`) and on registries.
//!
//! In: a manifest in the store (made by [`assemble`]) or a tree. Out: a file, a directory or standard output. Files get
//! their names only when they are whole. Called by the engine. Never: writes through a symbolic link.

mod dest;
mod early;
mod error;
mod fresh;
mod layout;
mod local;
mod push;
mod rootfs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use memobuild_image::{Descriptor, Index, Manifest, json, media};
use memobuild_store::Store;

pub use dest::Dest;
pub use early::Early;
pub use error::OutputError;
pub(crate) use layout::{LAYOUT, Saved, entries};
pub use layout::{write_docker, write_oci};
pub use local::write_local;
pub use push::{Push, Recipe, Report};
pub use rootfs::write_tar;

/// Blobs on their way to a repository at once: as many as skopeo and podman send.
const AT_ONCE: usize = 6;

use crate::reference::Reference;

/// What is written: a manifest or index that is in the store with all that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputImage {
    /// The manifest or index; its annotations are passed on to `index.json`.
    pub root: Descriptor,
    /// The image's names, with tags.
    pub names: Vec<Reference>,
    /// RFC 3339 time for `org.opencontainers.image.created`, which BuildKit sets on the entry in `index.json`.
    pub created: Option<String>,
}

/// What [`assemble`] made.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
}

/// Puts a config and the manifest of an image into the store. The layers must be there when the image is written.
/// With `docker_types` (`oci-mediatypes=false`) Docker's media types are used, and no annotations.
pub fn assemble(
    store: &Store,
    config: &[u8],
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    docker_types: bool,
) -> Result<Assembled, OutputError> {
    let config_descriptor = Descriptor::of(media::CONFIG, config);
    let mut manifest = Manifest::new(config_descriptor, layers.to_vec());
    manifest.annotations.clone_from(annotations);
    if docker_types {
        manifest = manifest.into_docker();
    }
    store.oci_blob_put(config)?;
    let bytes = json::pretty(&manifest)?;
    store.oci_blob_put(&bytes)?;
    Ok(Assembled { manifest: Descriptor::of(&manifest.media_type, &bytes), config: manifest.config })
}

/// Puts an index of several manifests into the store (`--platform a,b`); each descriptor carries its platform.
pub fn assemble_index(
    store: &Store,
    manifests: Vec<Descriptor>,
    annotations: &BTreeMap<String, String>,
    docker_types: bool,
) -> Result<Descriptor, OutputError> {
    let mut index = Index::new(manifests);
    index.annotations.clone_from(annotations);
    if docker_types {
        index.media_type = media::DOCKER_INDEX.into();
        index.annotations.clear();
    }
    let bytes = json::pretty(&index)?;
    store.oci_blob_put(&bytes)?;
    Ok(Descriptor::of(&index.media_type, &bytes))
}
