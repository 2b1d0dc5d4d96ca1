//! An image to registries: blobs first, several at a time, then the manifests that name them, then the tags.
//!
//! Layers of a base image that the registry has, or can take over from another repository of its own, are never
//! downloaded.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use memobuild_image::{Descriptor, Index, Manifest, media};
use memobuild_observe::in_same_span;
use memobuild_store::Store;
use memobuild_tree::{BundleId, Sha256Digest};

use super::{AT_ONCE, OutputError, layout::read};
use crate::{
    image::{BaseImage, Progress},
    layer::{Compression, TimestampPolicy, export_layer},
    reference::Reference,
    registry::{Pushed, Registries, RegistryError, SMALL},
};

/// An image to be pushed.
pub struct Push<'a> {
    /// Where its documents are, and all layers that no base image brings.
    pub store: &'a Store,
    /// Connections.
    pub registries: &'a Registries,
    /// The manifest or index; it and all documents below it are in the store.
    pub root: &'a Descriptor,
    /// Images whose layers may lie elsewhere until they are needed.
    pub bases: Vec<&'a BaseImage>,
    /// Layers that are made only if the registry lacks them.
    pub recipes: BTreeMap<Sha256Digest, Recipe>,
    /// Manifests that point to the image or to parts of it, to be pushed behind it.
    pub referrers: Vec<Descriptor>,
}

/// How a layer's blob is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Of what.
    pub bundle: BundleId,
    /// How it is compressed.
    pub compression: Compression,
    /// What is done to times.
    pub policy: TimestampPolicy,
}

/// How much of an image had to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs that were sent.
    pub sent: u64,
    /// Blobs that the registry took over from another repository.
    pub mounted: u64,
    /// Blobs that were there.
    pub present: u64,
    /// Why a registry did not take referrers: the image is there without them.
    pub refused: Option<String>,
}

/// What a root leads to.
#[derive(Default)]
struct Parts {
    /// Children before what names them.
    documents: Vec<Descriptor>,
    blobs: BTreeMap<Sha256Digest, Descriptor>,
}

impl Parts {
    fn add(&mut self, store: &Store, document: &Descriptor) -> Result<(), OutputError> {
        if self.documents.iter().any(|known| known.digest == document.digest) {
            return Ok(());
        }
        let bytes = read(store, &document.digest)?;
        if media::is_index(&document.media_type) {
            for child in serde_json::from_slice::<Index>(&bytes)?.manifests {
                self.add(store, &child)?;
            }
        } else {
            let manifest: Manifest = serde_json::from_slice(&bytes)?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                self.blobs.insert(blob.digest, blob);
            }
        }
        self.documents.push(document.clone());
        Ok(())
    }
}

impl Push<'_> {
    /// Pushes it under each of the names. `progress` is told bytes that are there, of all.
    pub fn to(&self, names: &[Reference], progress: Progress<'_>) -> Result<Report, OutputError> {
        let mut parts = Parts::default();
        parts.add(self.store, self.root)?;
        let mut pointing = Parts::default();
        self.referrers.iter().try_for_each(|referrer| pointing.add(self.store, referrer))?;
        let mut report = Report::default();
        let mut done: Vec<(&str, &str)> = Vec::new();
        for name in names {
            let place = (name.registry.as_str(), name.repository.as_str());
            let first = !done.contains(&place);
            if first {
                self.blobs(&parts, name, &mut report, progress)?;
                done.push(place);
            }
            for document in &parts.documents {
                let bytes = read(self.store, &document.digest)?;
                let tag = name.tag.clone().filter(|_| document.digest == self.root.digest);
                let to = Reference { tag, digest: None, ..name.clone() };
                self.registries.push_manifest(&to, &bytes, document)?;
            }
            if first && let Err(error) = self.point(&pointing, name) {
                report.refused.get_or_insert(error.to_string());
            }
        }
        Ok(report)
    }

    /// Pushes what points to the image, once that is there.
    fn point(&self, pointing: &Parts, name: &Reference) -> Result<(), OutputError> {
        let to = Reference { tag: None, digest: None, ..name.clone() };
        for blob in pointing.blobs.values() {
            self.blob(&to, blob, &|_, _| {})?;
        }
        for document in &pointing.documents {
            self.registries.push_manifest(&to, &read(self.store, &document.digest)?, document)?;
        }
        Ok(())
    }

    fn blobs(
        &self,
        parts: &Parts,
        to: &Reference,
        report: &mut Report,
        progress: Progress<'_>,
    ) -> Result<(), OutputError> {
        let mut blobs: Vec<&Descriptor> = parts.blobs.values().collect();
        // Small ones are over at once, and are the likeliest to be new; then the longest, so that all end together.
        blobs.sort_by_key(|blob| (blob.size > SMALL, std::cmp::Reverse(blob.size)));
        let total: u64 = blobs.iter().map(|blob| blob.size).sum();
        let arrived: Vec<AtomicU64> = blobs.iter().map(|_| AtomicU64::new(0)).collect();
        let (next, outcome) = (AtomicUsize::new(0), Mutex::new(Ok(report.clone())));
        let work = || {
            let outcome = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
            while let (at, Some(blob)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                (at, blobs.get(at))
            } {
                let told = |bytes, _| {
                    if let Some(slot) = arrived.get(at) {
                        slot.store(bytes, Ordering::Relaxed);
                    }
                    progress(arrived.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum(), Some(total));
                };
                match self.blob(to, blob, &told) {
                    Ok(pushed) => {
                        told(blob.size, None);
                        if let Ok(report) = &mut *outcome() {
                            match pushed {
                                Pushed::Present => report.present += 1,
                                Pushed::Mounted => report.mounted += 1,
                                Pushed::Sent => report.sent += 1,
                            }
                        }
                    }
                    Err(error) => {
                        next.store(blobs.len(), Ordering::Relaxed);
                        let mut outcome = outcome();
                        if outcome.is_ok() {
                            *outcome = Err(error);
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(blobs.len()) {
                scope.spawn(in_same_span(work));
            }
            work();
        });
        *report = outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        Ok(())
    }

    fn blob(&self, to: &Reference, blob: &Descriptor, progress: Progress<'_>) -> Result<Pushed, RegistryError> {
        let lies = self.bases.iter().find_map(|base| {
            let at = base.layers.iter().position(|layer| layer.blob.as_ref().is_some_and(|b| b.digest == blob.digest));
            at.map(|at| (*base, at))
        });
        let origin = lies.and_then(|(base, at)| base.layers.get(at)?.origin.as_ref());
        let from = origin.filter(|origin| origin.registry == to.registry && origin.repository != to.repository);
        let from: Vec<&str> = from.iter().map(|origin| origin.repository.as_str()).collect();
        let source = || {
            let broken = |e: Box<dyn std::error::Error + Send + Sync>| RegistryError::Source(e);
            if let Some((base, at)) = lies
                && self.store.oci_blob_path(&blob.digest).is_none()
            {
                base.ensure_blob(at, &|_, _| ()).map_err(|e| broken(e.into()))?;
            } else if let Some(recipe) = self.recipes.get(&blob.digest) {
                let Recipe { bundle, compression, policy } = recipe;
                export_layer(self.store, bundle, *compression, *policy).map_err(|e| broken(e.into()))?;
            }
            let path = self.store.oci_blob_path(&blob.digest);
            let path = path.ok_or_else(|| broken(OutputError::NoBlob(blob.digest).into()))?;
            File::open(&path).map_err(|source| broken(OutputError::Io { path, source }.into()))
        };
        self.registries.push_blob(to, blob, &from, &source, progress)
    }
}
