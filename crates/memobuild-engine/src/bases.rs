//! Base images: found for the planner by manifest and config, fetched and imported only when a step or an export needs
//! a byte of them.

use std::{
    error::Error,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use memobuild_observe::{FailureKind, MemoBuildError, Observer, TraceEvent, in_same_span};
use memobuild_oci::{
    image::{self, BaseImage, ImageSource, StoredImage},
    reference::Reference,
    registry::Registries,
};
use memobuild_plan::model::{BaseRequest, BaseResolver, ContextSource, ResolvedBase};
use memobuild_store::{Store, StoreError};
use memobuild_tree::{KeyDigest, KeyHasher, Tree, TreeDigest};

use crate::{
    BuildRequest, EngineError,
    value::{Source, Value},
};

/// Namespace of base images' trees, by their layers.
pub(crate) const TREES: &str = "base-tree";

/// Finds base images and keeps what it found.
pub(crate) struct Bases<'a> {
    store: &'a Store,
    registries: Registries,
    pull: bool,
    found: Mutex<Vec<Arc<BaseImage>>>,
    /// Why the first of those that were not found was not: planning passes on texts alone.
    failure: Mutex<Option<EngineError>>,
}

impl<'a> Bases<'a> {
    pub(crate) fn new(store: &'a Store, request: &BuildRequest) -> Self {
        let registries = Registries::new(request.registries.clone());
        Self { store, registries, pull: request.pull, found: Mutex::default(), failure: Mutex::default() }
    }

    /// Why an image was not found.
    pub(crate) fn failure(&self) -> Option<EngineError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connections, which the build's pushes share.
    pub(crate) fn registries(&self) -> Registries {
        self.registries.clone()
    }

    /// The image that the planner got this handle for.
    pub(crate) fn get(&self, handle: usize) -> Option<Arc<BaseImage>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(handle).cloned()
    }

    fn source(&self, request: &BaseRequest) -> Result<ImageSource, String> {
        let named = |name: &str| -> Result<ImageSource, String> {
            let reference: Reference = name.parse().map_err(|e| format!("{e}"))?;
            if !self.pull && StoredImage::by_tag(self.store, &reference).map_err(|e| e.to_string())?.is_some() {
                return Ok(ImageSource::Stored(reference));
            }
            Ok(ImageSource::Registry(reference))
        };
        match &request.context {
            None => named(&request.name),
            Some(ContextSource::Image(name)) => named(name),
            Some(ContextSource::OciLayout(text)) => Ok(ImageSource::layout(text)),
            Some(other) => Err(format!("{} can't be used as a base image: {other:?}", request.name)),
        }
    }

    fn find(&self, request: &BaseRequest) -> Result<ResolvedBase, String> {
        let source = self.source(request)?;
        let image = image::open(&source, &request.platform, self.store, &self.registries).map_err(|e| {
            let error = known(&e);
            let text = format!("{}: {}", request.name, error.message);
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            text
        })?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let resolved =
            ResolvedBase { handle: found.len(), digest: image.manifest.to_string(), config: image.config.clone() };
        found.push(Arc::new(image));
        Ok(resolved)
    }
}

impl BaseResolver for Bases<'_> {
    fn resolve(&self, requests: &[BaseRequest]) -> Vec<Result<ResolvedBase, String>> {
        match requests {
            [one] => vec![self.find(one)],
            many => std::thread::scope(|scope| {
                let threads: Vec<_> = many.iter().map(|r| scope.spawn(in_same_span(|| self.find(r)))).collect();
                let panicked = |_| Err("looking up the image failed".to_owned());
                threads.into_iter().map(|t| t.join().unwrap_or_else(panicked)).collect()
            }),
        }
    }
}

fn key(image: &BaseImage) -> KeyDigest {
    let mut h = KeyHasher::new("memobuild.base-tree.v1");
    h.u64(image.layers.len() as u64);
    for layer in &image.layers {
        h.value(&layer.diff_id);
    }
    h.finish()
}

/// The record of a base image's tree.
pub(crate) fn record(image: &BaseImage) -> (&'static str, KeyDigest) {
    (TREES, key(image))
}

/// Whether the tree of a base image is known without fetching anything.
pub(crate) fn is_known(store: &Store, image: &BaseImage) -> Result<bool, EngineError> {
    Ok(store.record_get(TREES, &key(image))?.is_some())
}

/// The tree of a base image, by its identity if that is known from an earlier import.
pub(crate) fn value(
    store: &Store,
    name: &str,
    image: &Arc<BaseImage>,
    observer: &Arc<dyn Observer>,
) -> Result<Arc<Value>, EngineError> {
    let key = key(image);
    if let Some(bytes) = store.record_get(TREES, &key)?
        && let Ok(bytes) = <[u8; 32]>::try_from(bytes)
    {
        let (name, image, observer) = (name.to_owned(), image.clone(), observer.clone());
        let make = move || import(&name, &image, &observer);
        return Ok(Value::lazy(TreeDigest::from_bytes(bytes), Source::Deferred(Box::new(make))));
    }
    let tree = import(name, image, observer)?;
    store.record_put(TREES, &key, tree.identity().as_bytes(), &[])?;
    Ok(Value::ready(tree, None))
}

/// Brings contents of a base image whose tree was put together without its layers.
pub(crate) struct Contents {
    pub(crate) name: String,
    pub(crate) image: Arc<BaseImage>,
    pub(crate) observer: Arc<dyn Observer>,
    /// Why one could not be brought, for whoever then fails for want of it.
    pub(crate) failure: Arc<Mutex<Option<EngineError>>>,
}

impl memobuild_store::Provider for Contents {
    fn bring(&self, digest: &memobuild_tree::ContentDigest) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let progress = progress(&self.name, &self.observer);
        self.image.bring(digest, &progress).map_err(|e| {
            let error = failed(&self.name, &e);
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
            error.into()
        })
    }
}

fn progress(name: &str, observer: &Arc<dyn Observer>) -> impl Fn(u64, Option<u64>) + Sync {
    let (what, observer) = (format!("import {name}"), observer.clone());
    move |done, total| {
        let finished = total.is_some_and(|total| done >= total);
        observer.event(TraceEvent::RemoteSync { what: what.clone(), done, total, finished });
    }
}

/// Whether an error comes from a disk, or a quota, that is full.
pub(crate) fn is_no_space(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source())
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// What helps when the cache's disk is full, in the store's own words.
pub(crate) fn make_room() -> String {
    let source = io::ErrorKind::StorageFull.into();
    StoreError::NoSpace { op: "write", path: PathBuf::new(), source }.hint().unwrap_or_default()
}

fn known(e: &image::ImageError) -> EngineError {
    let mut error = EngineError::chain(FailureKind::Registry, e);
    // Whatever is read from a registry or layout, only the cache is written to.
    let no_space = is_no_space(e);
    let of_cache =
        error.cause.as_ref().is_some_and(|cause| matches!(cause.root(), MemoBuildError::StorageError { .. }));
    if no_space || of_cache || matches!(e, image::ImageError::Store(_)) {
        error.kind = FailureKind::Cache;
    }
    if no_space { error.with_hint(make_room()) } else { error }
}

fn failed(name: &str, e: &image::ImageError) -> EngineError {
    let error = known(e);
    EngineError { message: format!("base image {name}: {}", error.message), ..error }
}

fn import(name: &str, image: &BaseImage, observer: &Arc<dyn Observer>) -> Result<Tree, EngineError> {
    image.tree(&progress(name, observer)).map_err(|e| failed(name, &e))
}
