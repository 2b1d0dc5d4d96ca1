//! An image to build upon, whose layers are fetched and imported when they are needed.

use std::{
    io::{self, Read, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use memobuild_image::{Descriptor, ImageConfig, Index, Platform, media};
use memobuild_store::{Ref, Store};
use memobuild_tree::{BundleId, ContentDigest, Diff, KeyHasher, Sha256Digest, Tree, codec};

use super::{
    BaseLayer, ImageError, ImageSource, Pick, Progress, StoredImage, choose, docker_archive,
    place::{Opened, Place, TarFile},
};
use crate::{
    layer::{
        Compression, Expected, LayerError, TimestampPolicy, apply_layer, decompress::Sniffed, export_layer,
        import_layer,
    },
    reference::Reference,
    registry::Registries,
};

/// Records of imported layers: diff ID to bundle. A layer's diff does not depend on those below it, so the diff ID
/// alone is key enough.
const IMPORTED: &str = "oci.imported.v1";
/// Records of layers' diffs by diff ID, packed: with one, a layer's files are known by name and digest, and its bytes
/// need not be here until something reads them.
pub const CONTENTS: &str = "oci.layer-contents.v1";
/// The longest packed diff that is read, unpacked, in bytes.
const MAX_CONTENTS: usize = 1 << 30;

/// An image, its config read and its layers named. Nothing of the layers has been fetched by then.
#[derive(Debug)]
pub struct BaseImage {
    /// The config, byte for byte.
    pub config_bytes: Vec<u8>,
    /// The config, read.
    pub config: ImageConfig,
    /// What it runs on, as its config says.
    pub platform: Platform,
    /// Digest of the manifest; of the config where the source has no manifests (docker archives, own images).
    pub manifest: Sha256Digest,
    /// The manifest, byte for byte, where the source has one.
    pub manifest_bytes: Option<Vec<u8>>,
    /// Digest of what the reference itself names: the index where there is one.
    pub pinned: Sha256Digest,
    /// Layers, lowest first, as the source describes them.
    pub layers: Vec<BaseLayer>,
    name: String,
    store: Store,
    registries: Registries,
    place: Place,
    /// For docker archives: the layers' files.
    files: Vec<String>,
    /// Bundles by layer; the lock makes two threads wait for one import.
    imported: Vec<Mutex<Option<BundleId>>>,
    /// Layers of [`BaseImage::tree`] that are known by their diffs alone.
    absent: Mutex<Vec<(usize, Arc<Diff>)>>,
}

/// Opens an image: reads what names its layers, and no layer.
pub fn open(
    source: &ImageSource,
    platform: &Platform,
    store: &Store,
    registries: &Registries,
) -> Result<BaseImage, ImageError> {
    match source {
        ImageSource::Path { path, pick } => open_path(path, pick, platform, store, registries),
        ImageSource::Registry(reference) => {
            let fetched = registries.manifest(reference)?;
            let root = Descriptor::new(&fetched.media_type, fetched.digest, fetched.bytes.len() as u64);
            let place = Place::Registry(registries.clone(), reference.clone());
            from_manifest(place, &root, Some(fetched.bytes), platform, store, registries)
        }
        ImageSource::Stored(reference) => {
            let image =
                StoredImage::by_tag(store, reference)?.ok_or_else(|| ImageError::NotStored(reference.clone()))?;
            from_stored(&image, &reference.familiar(), store, registries)
        }
    }
}

/// The image of a record. Layers that were never fetched are, from where they came, when they are needed.
pub fn from_stored(
    image: &StoredImage,
    name: &str,
    store: &Store,
    registries: &Registries,
) -> Result<BaseImage, ImageError> {
    let config_bytes = Place::Store.document(&image.config, store)?;
    let config = parse_config(&Place::Store, &config_bytes)?;
    let manifest = image.manifest.as_ref().map_or(image.config.digest, |m| m.digest);
    let known = Known { name: name.into(), config, config_bytes, manifest, layers: image.layers.clone() };
    let mut base = BaseImage::new(Place::Store, known, store, registries);
    base.check()?;
    base.pinned = manifest;
    Ok(base)
}

fn open_path(
    path: &Path,
    pick: &Pick,
    platform: &Platform,
    store: &Store,
    registries: &Registries,
) -> Result<BaseImage, ImageError> {
    let meta = std::fs::metadata(path).map_err(|source| ImageError::Io { path: path.to_path_buf(), source })?;
    let place = match meta.is_dir() {
        true => Place::Dir(path.to_path_buf()),
        false => Place::Tar(Arc::new(TarFile::open(path, store)?)),
    };
    if let Some(bytes) = place.read_file("index.json")? {
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| place.invalid("index.json", &e.to_string()))?;
        let (root, bytes) = choose::from_layout(&place, &index, pick, store)?;
        return from_manifest(place, &root, bytes, platform, store, registries);
    }
    if place.open_file("manifest.json")?.is_none() {
        let why = "neither an OCI layout (index.json) nor a docker archive (manifest.json)".into();
        return Err(ImageError::NotAnImage { path: path.to_path_buf(), why });
    }
    let found = docker_archive::find(&place, pick, platform)?;
    let layer = |diff_id: &Sha256Digest| BaseLayer { diff_id: *diff_id, blob: None, bundle: None, origin: None };
    let layers = found.config.rootfs.diff_ids.iter().map(layer).collect();
    let manifest = Sha256Digest::of(&found.config_bytes);
    let (config, config_bytes) = (found.config, found.config_bytes);
    let known = Known { name: place.shown(), config, config_bytes, manifest, layers };
    let mut base = BaseImage::new(place, known, store, registries);
    base.files = found.layers;
    base.check()?;
    Ok(base)
}

fn from_manifest(
    place: Place,
    root: &Descriptor,
    bytes: Option<Vec<u8>>,
    platform: &Platform,
    store: &Store,
    registries: &Registries,
) -> Result<BaseImage, ImageError> {
    let chosen = choose::for_platform(&place, root, bytes, platform, store)?;
    let (ids, blobs) = (&chosen.config.rootfs.diff_ids, chosen.manifest.layers);
    if ids.len() != blobs.len() {
        let why = format!("the config names {} layers, the manifest {}", ids.len(), blobs.len());
        return Err(place.invalid("image", &why));
    }
    let origin = match &place {
        Place::Registry(_, reference) => Some(Reference { tag: None, digest: None, ..reference.clone() }),
        _ => None,
    };
    let layer = |(diff_id, mut blob): (&Sha256Digest, Descriptor)| {
        blob.media_type = media::oci_layer(&blob.media_type).into();
        BaseLayer { diff_id: *diff_id, blob: Some(blob), bundle: None, origin: origin.clone() }
    };
    let layers = ids.iter().zip(blobs).map(layer).collect();
    let (config, config_bytes, manifest) = (chosen.config, chosen.config_bytes, chosen.digest);
    let known = Known { name: place.shown(), config, config_bytes, manifest, layers };
    let mut base = BaseImage::new(place, known, store, registries);
    base.pinned = root.digest;
    base.manifest_bytes = Some(chosen.manifest_bytes);
    Ok(base)
}

fn parse_config(place: &Place, bytes: &[u8]) -> Result<ImageConfig, ImageError> {
    serde_json::from_slice(bytes).map_err(|e| place.invalid("config", &e.to_string()))
}

/// What is known of an image once it is opened.
struct Known {
    name: String,
    config: ImageConfig,
    config_bytes: Vec<u8>,
    manifest: Sha256Digest,
    layers: Vec<BaseLayer>,
}

impl BaseImage {
    fn new(place: Place, known: Known, store: &Store, registries: &Registries) -> Self {
        let Known { name, config, config_bytes, manifest, layers } = known;
        let imported = layers.iter().map(|l| Mutex::new(l.bundle)).collect();
        Self {
            platform: config.platform.clone(),
            config,
            config_bytes,
            manifest,
            manifest_bytes: None,
            pinned: manifest,
            layers,
            name,
            store: store.clone(),
            registries: registries.clone(),
            place,
            files: Vec::new(),
            imported,
            absent: Mutex::default(),
        }
    }

    fn check(&self) -> Result<(), ImageError> {
        let ids: Vec<_> = self.layers.iter().map(|l| l.diff_id).collect();
        let files = matches!(self.place, Place::Dir(_) | Place::Tar(_)) && self.files.len() != ids.len();
        if ids != self.config.rootfs.diff_ids || files {
            return Err(self.place.invalid("image", "the config names other layers than there are"));
        }
        Ok(())
    }

    /// The image as it was asked for, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bundle of a layer, if it has been imported before: nothing is fetched.
    pub fn known_layer(&self, layer: usize) -> Result<Option<BundleId>, ImageError> {
        let Some(slot) = self.imported.get(layer) else { return Err(self.no_layer(layer)) };
        self.known(layer, &mut slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self, layer: usize, slot: &mut Option<BundleId>) -> Result<Option<BundleId>, ImageError> {
        if let Some(bundle) = *slot
            && self.store.has_bundle(&bundle)
        {
            return Ok(Some(bundle));
        }
        let diff_id = self.layer(layer)?.diff_id;
        let found = self.store.record_get(IMPORTED, &key(&diff_id))?;
        let bundle = found.and_then(|v| <[u8; 32]>::try_from(v.as_slice()).ok()).map(BundleId::from_bytes);
        *slot = bundle.filter(|b| self.store.has_bundle(b));
        Ok(*slot)
    }

    /// The bundle of a layer, fetched and imported now if it never was. `progress` is told bytes of the blob.
    pub fn ensure_layer(&self, layer: usize, progress: Progress<'_>) -> Result<BundleId, ImageError> {
        let Some(slot) = self.imported.get(layer) else { return Err(self.no_layer(layer)) };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known(layer, &mut slot)? {
            return Ok(known);
        }
        let BaseLayer { diff_id, blob, .. } = self.layer(layer)?;
        let (opened, verified) = self.open_layer(layer, progress)?;
        let blob = blob.as_ref().filter(|_| !verified).map(|b| (b.digest, b.size));
        let expected = Expected { diff_id: Some(*diff_id), blob };
        let reader = Counted { reader: opened.reader, read: 0, size: opened.size, progress };
        let imported = import_layer(reader, &expected, false, &self.store).map_err(|e| self.bad(diff_id, e))?;
        self.store.record_put(IMPORTED, &key(diff_id), imported.bundle.as_bytes(), &[Ref::Bundle(imported.bundle)])?;
        *slot = Some(imported.bundle);
        self.note_contents(layer, &imported.bundle)?;
        Ok(imported.bundle)
    }

    /// Writes a layer's diff down apart from its bundle, which may be collected.
    fn note_contents(&self, layer: usize, bundle: &BundleId) -> Result<(), ImageError> {
        let diff_id = &self.layer(layer)?.diff_id;
        if let Some(diff) = self.store.load_bundle(bundle)? {
            let packed = zstd::bulk::compress(&codec::encode(&diff), 3);
            let packed = packed.map_err(|e| self.bad(diff_id, LayerError::Read(e)))?;
            self.store.record_put(CONTENTS, &key(diff_id), &packed, &[])?;
        }
        Ok(())
    }

    /// The diff of a layer: from its bundle or its record, else the layer is fetched and imported.
    fn diff(&self, layer: usize, progress: Progress<'_>) -> Result<Arc<Diff>, ImageError> {
        if self.known_layer(layer)?.is_none()
            && let Some(packed) = self.store.record_get(CONTENTS, &key(&self.layer(layer)?.diff_id))?
            && let Some(diff) = unpack(&packed)
        {
            let diff = Arc::new(diff);
            self.absent().push((layer, diff.clone()));
            return Ok(diff);
        }
        let bundle = self.ensure_layer(layer, progress)?;
        Ok(self.store.load_bundle(&bundle)?.ok_or(memobuild_store::StoreError::MissingBundle(bundle))?)
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, Vec<(usize, Arc<Diff>)>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches and imports the layers that hold this content and that [`BaseImage::tree`] went without. Says whether
    /// there was one.
    pub fn bring(&self, digest: &ContentDigest, progress: Progress<'_>) -> Result<bool, ImageError> {
        let mut brought = false;
        // The lock is held on purpose: whoever else misses the same content waits for it.
        let mut absent = self.absent();
        while let Some(at) = absent.iter().position(|(_, diff)| diff.holds(digest)) {
            let (layer, _) = absent.swap_remove(at);
            let bundle = self.ensure_layer(layer, progress)?;
            self.store.load_bundle(&bundle)?.ok_or(memobuild_store::StoreError::MissingBundle(bundle))?;
            brought = true;
        }
        Ok(brought)
    }

    /// The blob of a layer in the store, unchanged where the image came with one (so that it is passed on as it is);
    /// made with the default compression for layers that are only known as bundles.
    pub fn ensure_blob(&self, layer: usize, progress: Progress<'_>) -> Result<Descriptor, ImageError> {
        let BaseLayer { diff_id, blob, .. } = self.layer(layer)?;
        if let Some(blob) = blob
            && self.store.oci_blob_path(&blob.digest).is_some()
        {
            return Ok(blob.clone());
        }
        if blob.is_none() && self.files.is_empty() {
            let bundle = self.ensure_layer(layer, progress)?;
            let made = export_layer(&self.store, &bundle, Compression::default(), TimestampPolicy::Keep);
            let made = made.map_err(|e| self.bad(diff_id, e))?;
            if made.diff_id != *diff_id {
                return Err(self.bad(
                    diff_id,
                    LayerError::DigestMismatch { what: "diff ID", expected: *diff_id, actual: made.diff_id },
                ));
            }
            return Ok(made.blob);
        }
        let (opened, verified) = self.open_layer(layer, progress)?;
        if let (Some(blob), true) = (blob, verified) {
            return Ok(blob.clone());
        }
        let mut out = self.store.oci_blob_writer()?;
        let reader = Counted { reader: opened.reader, read: 0, size: opened.size, progress };
        let io_error = |source| self.bad(diff_id, LayerError::Read(source));
        let mut source = Sniffed::new(Tee { reader, out: &mut out }).map_err(io_error)?;
        let packing = source.packing;
        source.drain().map_err(io_error)?;
        let (digest, size) = out.finish(blob.as_ref().map(|b| b.digest))?;
        let media_type = packing.media_type().unwrap_or(media::LAYER);
        Ok(blob.clone().unwrap_or_else(|| Descriptor::new(media_type, digest, size)))
    }

    /// All layers applied. Those that are known by their diffs are not fetched ([`BaseImage::bring`] does so when their
    /// bytes are needed), the others are imported; several threads fetch.
    pub fn tree(&self, progress: Progress<'_>) -> Result<Tree, ImageError> {
        self.fetch_unknown(progress)?;
        (0..self.layers.len()).try_fold(Tree::default(), |tree, i| self.with_layer(&tree, i, progress))
    }

    /// What the layers below layer `index` make, with that layer applied; it is imported if need be.
    pub fn with_layer(&self, below: &Tree, index: usize, progress: Progress<'_>) -> Result<Tree, ImageError> {
        let diff = self.diff(index, progress)?;
        apply_layer(below, &diff).map_err(|source| ImageError::Apply {
            image: self.name.clone(),
            diff_id: self.layers[index].diff_id,
            source,
        })
    }

    /// Downloads every layer's blob that is not here, several at once. `progress` is told the sum.
    pub fn pull(&self, progress: Progress<'_>) -> Result<(), ImageError> {
        let wanted = self.layers.iter().filter_map(|layer| layer.origin.as_ref().zip(layer.blob.as_ref()));
        self.fetch(&wanted.collect::<Vec<_>>(), progress)
    }

    /// Downloads what is on a registry and not known in any form, several layers at once: importing each is quick beside
    /// that. `progress` is told the sum.
    pub fn fetch_unknown(&self, progress: Progress<'_>) -> Result<(), ImageError> {
        let mut wanted = Vec::new();
        for i in 0..self.layers.len() {
            let noted = || self.store.record_get(CONTENTS, &key(&self.layer(i)?.diff_id)).map_err(ImageError::from);
            if self.known_layer(i)?.is_none() && noted()?.is_none() {
                let layer = self.layer(i)?;
                wanted.extend(layer.origin.as_ref().zip(layer.blob.as_ref()));
            }
        }
        self.fetch(&wanted, progress)
    }

    fn fetch(&self, wanted: &[(&Reference, &Descriptor)], progress: Progress<'_>) -> Result<(), ImageError> {
        let total: u64 = wanted.iter().map(|(_, blob)| blob.size).sum();
        let done: Vec<_> = wanted.iter().map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let fetch = || {
                use std::sync::atomic::Ordering::Relaxed;
                while let (i, Some((origin, blob))) = {
                    let i = next.fetch_add(1, Relaxed);
                    (i, wanted.get(i))
                } {
                    self.registries.blob(origin, blob, &self.store, &|bytes, _| {
                        if let Some(slot) = done.get(i) {
                            slot.store(bytes, Relaxed);
                        }
                        progress(done.iter().map(|d| d.load(Relaxed)).sum(), Some(total));
                    })?;
                }
                Ok::<_, ImageError>(())
            };
            let workers: Vec<_> =
                (0..wanted.len().min(4)).map(|_| scope.spawn(memobuild_observe::in_same_span(fetch))).collect();
            let panicked = || self.place.invalid("download", "a worker thread panicked");
            workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| Err(panicked())))
        })
    }

    fn open_layer(&self, layer: usize, progress: Progress<'_>) -> Result<(Opened, bool), ImageError> {
        let described = self.layer(layer)?;
        if let Some(file) = self.files.get(layer) {
            let opened = self.place.open_file(file)?;
            return Ok((opened.ok_or_else(|| self.place.invalid(file, "it is not there"))?, false));
        }
        let blob = described.blob.as_ref();
        let blob =
            blob.ok_or_else(|| self.place.invalid(&described.diff_id.to_string(), "the layer is not in the store"))?;
        if let Some(origin) = &described.origin {
            self.registries.blob(origin, blob, &self.store, progress)?;
        }
        self.place.open_blob(blob, &self.store, progress)
    }

    fn layer(&self, layer: usize) -> Result<&BaseLayer, ImageError> {
        self.layers.get(layer).ok_or_else(|| self.no_layer(layer))
    }

    fn no_layer(&self, layer: usize) -> ImageError {
        self.place.invalid("image", &format!("there is no layer {layer}"))
    }

    fn bad(&self, diff_id: &Sha256Digest, source: LayerError) -> ImageError {
        ImageError::Layer { image: self.name.clone(), diff_id: *diff_id, source: Box::new(source) }
    }
}

fn key(diff_id: &Sha256Digest) -> memobuild_tree::KeyDigest {
    KeyHasher::new(IMPORTED).value(diff_id).finish()
}

/// For those who read an image's tree without a build around it.
impl memobuild_store::Provider for BaseImage {
    fn bring(&self, digest: &ContentDigest) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self::bring(self, digest, &|_, _| {})?)
    }
}

/// The record of a layer's table of contents.
pub fn contents_record(diff_id: &Sha256Digest) -> (&'static str, memobuild_tree::KeyDigest) {
    (CONTENTS, key(diff_id))
}

/// The diff of a layer that was imported at some time, as far as it is still known here. Nothing is fetched.
pub fn stored_diff(store: &Store, diff_id: &Sha256Digest) -> Result<Option<Arc<Diff>>, ImageError> {
    let key = key(diff_id);
    let bundle = store.record_get(IMPORTED, &key)?.and_then(|v| <[u8; 32]>::try_from(v.as_slice()).ok());
    if let Some(bundle) = bundle.map(BundleId::from_bytes)
        && store.has_bundle(&bundle)
        && let Some(diff) = store.load_bundle(&bundle)?
    {
        return Ok(Some(diff));
    }
    Ok(store.record_get(CONTENTS, &key)?.and_then(|packed| unpack(&packed)).map(Arc::new))
}

fn unpack(packed: &[u8]) -> Option<Diff> {
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten()?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_CONTENTS)?;
    codec::decode(&zstd::bulk::decompress(packed, size).ok()?).ok()
}

/// Tells how far reading has come.
struct Counted<'a> {
    reader: Box<dyn Read + Send>,
    read: u64,
    size: u64,
    progress: Progress<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(out)?;
        self.read += count as u64;
        (self.progress)(self.read, Some(self.size));
        Ok(count)
    }
}

/// Writes down what is read.
struct Tee<'a, R> {
    reader: R,
    out: &'a mut memobuild_store::OciBlobWriter,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(out)?;
        self.out.write_all(out.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}
