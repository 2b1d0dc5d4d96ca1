//! A repository of a registry.

use std::path::{Path, PathBuf};

use memobuild_image::Descriptor;
use memobuild_oci::{
    reference::Reference,
    registry::{Pushed, Registries},
};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use super::Depot;
use crate::{
    CacheError,
    directory::{Blob, PACK},
};

pub(super) struct Repository {
    registries: Registries,
    reference: Reference,
}

impl Repository {
    pub(super) fn new(registries: &Registries, reference: &Reference) -> Self {
        Self { registries: registries.clone(), reference: reference.clone().with_default_tag() }
    }
}

impl Depot for Repository {
    fn manifest(&self) -> Result<Option<Vec<u8>>, CacheError> {
        Ok(self.registries.find_manifest(&self.reference)?.map(|found| found.bytes))
    }

    fn manifest_of(&self, digest: &Sha256Digest) -> Result<Vec<u8>, CacheError> {
        Ok(self.registries.manifest_by_digest(&self.reference, *digest)?.bytes)
    }

    fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, CacheError> {
        Ok(self.registries.read_blob(&self.reference, blob, limit)?)
    }

    fn fetch(&self, blob: Blob, store: &Store) -> Result<PathBuf, CacheError> {
        self.registries.blob(&self.reference, &blob.as_descriptor(PACK), store, &|_, _| {})?;
        let place = || self.reference.familiar();
        store.oci_blob_path(&blob.digest).ok_or_else(|| CacheError::NoBlob { place: place(), digest: blob.digest })
    }

    fn has(&self, digest: &Sha256Digest) -> Result<bool, CacheError> {
        Ok(self.registries.has_blob(&self.reference, digest)?)
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<(Descriptor, bool), CacheError> {
        let (descriptor, pushed) = self.registries.push_bytes(&self.reference, media_type, bytes)?;
        Ok((descriptor, pushed == Pushed::Sent))
    }

    fn put_file(&self, blob: &Descriptor, path: &Path) -> Result<(), CacheError> {
        self.registries.push_file(&self.reference, blob, path)?;
        Ok(())
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError> {
        self.registries.put_manifest(&self.reference, media_type, bytes)?;
        Ok(())
    }
}
