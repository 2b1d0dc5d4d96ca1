//! Images as files that other tools read.
#![allow(missing_docs, unused_variables, clippy::todo)]
use crate::reference::Reference;
use memobuild_image::Descriptor;
use memobuild_store::Store;
use memobuild_tree::Tree;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error(transparent)]
    Store(#[from] memobuild_store::StoreError),
}
#[derive(Debug, Clone)]
pub enum Dest {
    File(PathBuf),
    Stdout,
    Dir(PathBuf),
}
/// A manifest or index, in the store with all that it names.
#[derive(Debug, Clone)]
pub struct OutputImage {
    pub root: Descriptor,
    pub names: Vec<Reference>,
    /** RFC 3339 for org.opencontainers.image.created */
    pub created: String,
}
#[derive(Debug, Clone)]
pub struct Assembled {
    pub manifest: Descriptor,
    pub config: Descriptor,
}
/// Puts config and manifest into the store.
pub fn assemble(
    store: &Store,
    config: &[u8],
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    docker_types: bool,
) -> Result<Assembled, OutputError> {
    todo!()
}
/// `type=oci`: tar (File, Stdout) or layout directory (Dir).
pub fn write_oci(store: &Store, image: &OutputImage, dest: &Dest) -> Result<(), OutputError> {
    todo!()
}
/// `type=docker`: OCI layout plus manifest.json.
pub fn write_docker(store: &Store, image: &OutputImage, dest: &Dest) -> Result<(), OutputError> {
    todo!()
}
/// `type=tar`: the root file system.
pub fn write_tar(store: &Store, tree: &Tree, epoch: Option<i64>, dest: &Dest) -> Result<(), OutputError> {
    todo!()
}
/// `type=local`. The warnings say what could not be made.
pub fn write_local(store: &Store, tree: &Tree, epoch: Option<i64>, dir: &Path) -> Result<Vec<String>, OutputError> {
    todo!()
}
