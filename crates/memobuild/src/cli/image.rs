//! Images of memobuild's own store, as the commands that look at them find them.

use std::sync::Arc;

use memobuild_cache::{Importer, Place, RemoteCache};
use memobuild_image::Platform;
use memobuild_observe::FailureKind;
use memobuild_oci::{
    image::{BaseImage, ImageError, StoredImage, from_stored},
    reference::Reference,
    registry::Registries,
};
use memobuild_store::{Joined, Provided, Store};
use memobuild_tree::{BundleId, Change, Node, Sha256Digest};

use super::{Failure, config, env};

/// An image with the name under which it was found.
pub(crate) struct Named {
    pub(crate) name: Reference,
    pub(crate) image: StoredImage,
}

/// The image of that name, or whose ID (or the beginning of it, 4 digits at least) that is.
pub(crate) fn find(store: &Store, text: &str) -> Result<Named, Failure> {
    let reference = text.parse::<Reference>();
    if let Ok(name) = &reference
        && let Some(image) = StoredImage::by_tag(store, name).map_err(failure)?
    {
        return Ok(Named { name: name.clone(), image });
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        let all = StoredImage::all(store).map_err(failure)?;
        let mut found = all.into_iter().filter(|(_, image)| image.config.digest.hex().starts_with(hex));
        if let Some((name, image)) = found.next() {
            return match found.find(|(_, other)| other.config.digest != image.config.digest) {
                Some(_) => Err(Failure::usage(format!("several images have an ID that begins with {text}"))),
                None => Ok(Named { name, image }),
            };
        }
    }
    if let Err(error) = reference
        && !text.starts_with("sha256:")
    {
        return Err(Failure::usage(error.to_string()));
    }
    Err(missing(store, text))
}

fn missing(store: &Store, text: &str) -> Failure {
    let names: Vec<String> =
        StoredImage::all(store).unwrap_or_default().iter().map(|(name, _)| short_name(name)).collect();
    let failure = Failure::usage(format!("no image {text} in memobuild's store"));
    match memobuild_dockerfile::diagnostic::nearest(text, names.iter().map(String::as_str), false) {
        Some(near) => failure.with_hint(format!("did you mean {near}?")),
        None => failure.with_hint("`memobuild images` lists what is there; `memobuild build -t NAME` makes one"),
    }
}

/// As a person writes it: `:latest` goes without saying.
fn short_name(name: &Reference) -> String {
    let name = name.familiar();
    name.strip_suffix(":latest").map_or(name.clone(), str::to_owned)
}

/// The store, which must be there already.
pub(crate) fn store_with(text: &str) -> Result<Store, Failure> {
    env::existing_store()?.ok_or_else(|| {
        Failure::usage(format!("no image {text}: memobuild's store is empty"))
            .with_hint("`memobuild build -t NAME` makes an image")
    })
}

/// Connections to registries, with the user's settings and credentials.
pub(crate) fn registries() -> Result<Registries, Failure> {
    Ok(Registries::new(config::registries()?))
}

/// The image with its layers, those that lie on a registry or in a shared cache included.
pub(crate) fn opened(store: &Store, named: &Named, registries: &Registries) -> Result<Opened, Failure> {
    opened_as(store, &named.image, &named.name.familiar(), registries)
}

/// The same of an image without a name of its own; `shown` is for messages.
pub(crate) fn opened_as(
    store: &Store,
    image: &StoredImage,
    shown: &str,
    registries: &Registries,
) -> Result<Opened, Failure> {
    let caches = join_caches(store, image, registries);
    let base = from_stored(image, shown, store, registries).map_err(failure)?;
    let base = Arc::new(base);
    Ok(Opened { _layers: store.add_provider(base.clone()), base, _caches: caches })
}

/// An image, and what brings what is not here of it.
pub(crate) struct Opened {
    base: Arc<BaseImage>,
    _layers: Provided,
    _caches: Vec<(Joined, Provided)>,
}

impl std::ops::Deref for Opened {
    type Target = BaseImage;

    fn deref(&self) -> &BaseImage {
        &self.base
    }
}

/// Has the store ask the caches that the image was built from for what is not here.
fn join_caches(store: &Store, image: &StoredImage, registries: &Registries) -> Vec<(Joined, Provided)> {
    let absent = |bundle: &BundleId| !store.holds_bundle(bundle);
    if !image.layers.iter().filter_map(|layer| layer.bundle.as_ref()).any(absent) {
        return Vec::new();
    }
    let join = |place: Place| {
        let importer = Arc::new(Importer::new(place, &Platform::default(), registries, store));
        (store.add_upstream(importer.clone()), store.add_provider(importer))
    };
    let ask = |url: &str| {
        // Without it the command says what it lacks.
        let options = config::remote(Some(url)).ok()??;
        let server = Arc::new(RemoteCache::new(&options, Vec::new(), store, |_| ()));
        Some((store.add_upstream(server.clone()), store.add_provider(server)))
    };
    let servers = image.caches.iter().filter_map(|spec| ask(RemoteCache::parse_spec(spec)?));
    let places = image.caches.iter().filter_map(|spec| Place::parse_spec(spec)).map(join);
    places.chain(servers).collect()
}

/// The bytes of a small blob of the store: a config or manifest.
pub(crate) fn blob(store: &Store, digest: &Sha256Digest) -> Result<Vec<u8>, Failure> {
    let path = store.oci_blob_path(digest).ok_or_else(|| {
        Failure::new(FailureKind::Cache, format!("{digest} is not in the store any more"))
            .with_hint("build the image again")
    })?;
    std::fs::read(&path).map_err(|e| Failure::file(format!("cannot read {}", path.display()), &e))
}

/// Bytes of all files in all layers, before compression. None where a layer was never imported.
pub(crate) fn unpacked_size(store: &Store, image: &StoredImage) -> Result<Option<u64>, Failure> {
    let mut total = 0;
    for layer in &image.layers {
        let Some(bundle) = layer.bundle else { return Ok(None) };
        let Some(bytes) = bundle_size(store, &bundle)? else { return Ok(None) };
        total += bytes;
    }
    Ok(Some(total))
}

/// Bytes of all files that a bundle puts in place. None if it is gone.
pub(crate) fn bundle_size(store: &Store, bundle: &BundleId) -> Result<Option<u64>, Failure> {
    let Some(diff) = store.load_bundle(bundle)? else { return Ok(None) };
    let mut total = 0;
    diff.walk(&mut |_, change| {
        if let Change::Put(Node::File(file)) = change {
            total += file.size;
        }
    });
    Ok(Some(total))
}

/// The first twelve digits, as docker shows an image's ID.
pub(crate) fn short(digest: &Sha256Digest) -> String {
    digest.hex().chars().take(12).collect()
}

/// An error of the image crate, with its hint.
pub(crate) fn failure(error: ImageError) -> Failure {
    let kind = match &error {
        ImageError::Registry(_) => FailureKind::Registry,
        ImageError::NotStored(_) => FailureKind::Usage,
        _ => FailureKind::Cache,
    };
    let failure = Failure::caused(kind, &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
