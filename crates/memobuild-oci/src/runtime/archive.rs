//! The archive that a runtime is sent: made while it is sent, in one of two forms.
//!
//! In: an image of the store, and what the runtime has of it. Out: a tar on any stream. Layers that were built here go
//! as plain tar where the runtime unpacks them anyway: they are then neither compressed nor kept on disk. Layers of a
//! base image that is still at its registry are fetched when their turn comes, and not at all when they are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Write},
};

use memobuild_image::{Descriptor, Index, json, media};
use memobuild_store::Store;
use memobuild_tree::{BundleId, Sha256Digest};

use super::RuntimeError;
use crate::{
    image::{BaseImage, Progress},
    layer::{
        LayerError, TimestampPolicy,
        decompress::Sniffed,
        layer_diff_id, layer_size,
        tar::{Header, HeaderKind, TarWriter},
        write_layer,
    },
    output::{self, LAYOUT, OutputImage, Saved, entries},
    reference::Reference,
};

/// An image of the store that a runtime is to have.
pub struct LoadImage<'a> {
    /// Where it is.
    pub store: &'a Store,
    /// The image, opened. Layers that lie on a registry are fetched when they have to be sent.
    pub image: &'a BaseImage,
    /// The names that the runtime gives it, with tags.
    pub names: Vec<Reference>,
}

impl LoadImage<'_> {
    /// The config's digest, by which docker and podman know an image.
    pub fn id(&self) -> Sha256Digest {
        Sha256Digest::of(&self.image.config_bytes)
    }

    /// The layers' diff IDs, lowest first.
    pub(super) fn diff_ids(&self) -> &[Sha256Digest] {
        &self.image.config.rootfs.diff_ids
    }
}

/// An image's manifest, which is in the store.
pub(super) struct Manifest {
    pub(super) root: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// An archive that has not been written.
pub(super) struct Archive<'a> {
    image: &'a LoadImage<'a>,
    parts: Vec<Part>,
    /// Layers in it.
    pub(super) layers: usize,
}

struct Part {
    name: String,
    size: u64,
    source: Source,
}

enum Source {
    Bytes(Vec<u8>),
    /// The blob of a layer, which may have to be fetched.
    Blob {
        layer: usize,
        digest: Sha256Digest,
    },
    /// The same, unpacked on the way.
    Unpacked {
        layer: usize,
        digest: Sha256Digest,
    },
    /// A layer as plain tar.
    Tar(BundleId),
}

fn path(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What docker's image store and podman read: `manifest.json`, the config and the layers, without the lowest `present`
/// layers, which the runtime has.
pub(super) fn docker<'a>(image: &'a LoadImage<'a>, present: usize) -> Result<Archive<'a>, RuntimeError> {
    let mut parts = Parts::default();
    let mut names = Vec::new();
    let mut layers = 0;
    for (at, layer) in image.image.layers.iter().enumerate() {
        if at < present {
            // The name is as good as any: nobody opens the file.
            names.push(path(&layer.diff_id));
            continue;
        }
        let part = match &layer.blob {
            // Daemons older than version 23 can't read it.
            Some(blob) if blob.media_type == media::LAYER_ZSTD => unpacked(image, at, &layer.diff_id, &blob.digest)?,
            Some(blob) => Part {
                name: path(&blob.digest),
                size: blob.size,
                source: Source::Blob { layer: at, digest: blob.digest },
            },
            None => built(image, at, &layer.diff_id)?,
        };
        names.push(part.name.clone());
        layers += 1;
        parts.add(part);
    }
    let config = path(&image.id());
    parts.add(Part::bytes(&config, image.image.config_bytes.clone()));
    parts.add(saved(image, config, names)?);
    Ok(Archive { image, parts: parts.list, layers })
}

/// A layer that has no blob yet, as plain tar.
fn built(image: &LoadImage<'_>, at: usize, diff_id: &Sha256Digest) -> Result<Part, RuntimeError> {
    let policy = TimestampPolicy::Keep;
    let bundle = image.image.ensure_layer(at, &|_, _| {})?;
    let actual = layer_diff_id(image.store, &bundle, policy)?;
    if actual != *diff_id {
        // It came from elsewhere, as a tar that is written differently here.
        return Err(LayerError::DigestMismatch { what: "diff ID", expected: *diff_id, actual }.into());
    }
    let diff = image.store.load_bundle(&bundle)?.ok_or(LayerError::NoBundle(bundle))?;
    let size = layer_size(&diff, image.store, policy)?;
    Ok(Part { name: path(diff_id), size, source: Source::Tar(bundle) })
}

/// A layer as plain tar that is there compressed.
fn unpacked(
    image: &LoadImage<'_>,
    layer: usize,
    diff_id: &Sha256Digest,
    digest: &Sha256Digest,
) -> Result<Part, RuntimeError> {
    let read = |e| RuntimeError::Layer(LayerError::Read(e));
    let mut source = Sniffed::new(blob(image, layer, digest)?).map_err(read)?;
    // The length stands before the bytes in a tar: it is counted first.
    let size = source.unpack(|plain| io::copy(plain, &mut io::sink())).map_err(read)?;
    Ok(Part { name: path(diff_id), size, source: Source::Unpacked { layer, digest: *digest } })
}

/// An OCI layout with a `manifest.json` besides, as containerd writes it. Layers whose blobs `present` holds are left
/// out.
pub(super) fn oci<'a>(
    image: &'a LoadImage<'a>,
    manifest: &Manifest,
    present: &BTreeSet<Sha256Digest>,
) -> Result<Archive<'a>, RuntimeError> {
    let mut parts = Parts::default();
    let mut layers = 0;
    for (at, blob) in manifest.layers.iter().enumerate().filter(|(_, blob)| !present.contains(&blob.digest)) {
        layers += 1;
        let source = Source::Blob { layer: at, digest: blob.digest };
        parts.add(Part { name: path(&blob.digest), size: blob.size, source });
    }
    let config = path(&image.id());
    parts.add(Part::bytes(&config, image.image.config_bytes.clone()));
    parts.add(Part::bytes(&path(&manifest.root.digest), document(image.store, &manifest.root.digest)?));
    let created = image.image.config.created.clone();
    let root = OutputImage { root: manifest.root.clone(), names: image.names.clone(), created };
    parts.add(Part::bytes("index.json", json::compact(&Index::new(entries(&root)))?));
    parts.add(saved(image, config, manifest.layers.iter().map(|blob| path(&blob.digest)).collect())?);
    parts.add(Part::bytes("oci-layout", LAYOUT.to_vec()));
    Ok(Archive { image, parts: parts.list, layers })
}

/// The image's manifest, put into the store. Layers that were built here are compressed and kept, as for a push; those of
/// a base image are named as they are, wherever they lie.
pub(super) fn manifest(image: &LoadImage<'_>) -> Result<Manifest, RuntimeError> {
    let mut layers = Vec::new();
    for (at, layer) in image.image.layers.iter().enumerate() {
        layers.push(match &layer.blob {
            Some(blob) => blob.clone(),
            None => image.image.ensure_blob(at, &|_, _| {})?,
        });
    }
    let made = output::assemble(image.store, &image.image.config_bytes, &layers, &BTreeMap::new(), false)?;
    Ok(Manifest { root: made.manifest, layers })
}

/// The blob of a layer, fetched where it lacks.
fn blob(image: &LoadImage<'_>, layer: usize, digest: &Sha256Digest) -> Result<File, RuntimeError> {
    if image.store.oci_blob_path(digest).is_none() {
        image.image.ensure_blob(layer, &|_, _| {})?;
    }
    let path = image.store.oci_blob_path(digest).ok_or(output::OutputError::NoBlob(*digest))?;
    File::open(&path).map_err(|source| RuntimeError::Read { path, source })
}

fn saved(image: &LoadImage<'_>, config: String, layers: Vec<String>) -> Result<Part, RuntimeError> {
    let names: Vec<String> = image.names.iter().map(|n| n.clone().with_default_tag().familiar()).collect();
    let saved = Saved { config, repo_tags: (!names.is_empty()).then_some(names), layers };
    Ok(Part::bytes("manifest.json", json::compact(&[saved])?))
}

fn document(store: &Store, digest: &Sha256Digest) -> Result<Vec<u8>, RuntimeError> {
    let path = store.oci_blob_path(digest).ok_or(output::OutputError::NoBlob(*digest))?;
    std::fs::read(&path).map_err(|source| RuntimeError::Read { path, source })
}

impl Part {
    fn bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), size: bytes.len() as u64, source: Source::Bytes(bytes) }
    }
}

/// Equal layers are one file.
#[derive(Default)]
struct Parts {
    list: Vec<Part>,
    names: BTreeSet<String>,
}

impl Parts {
    fn add(&mut self, part: Part) {
        if self.names.insert(part.name.clone()) {
            self.list.push(part);
        }
    }
}

impl Archive<'_> {
    /// Writes it; how many bytes that were. `progress` is told bytes of the files.
    pub(super) fn write(&self, out: &mut dyn Write, progress: Progress<'_>) -> Result<u64, RuntimeError> {
        let total = self.parts.iter().map(|part| part.size).sum();
        let mut out = Told { out, sent: 0, total, progress };
        let mut tar = TarWriter::new(&mut out);
        let send = RuntimeError::Send;
        tar.header(&Header::new(b"blobs/", HeaderKind::Dir, 0o755)).map_err(send)?;
        tar.header(&Header::new(b"blobs/sha256/", HeaderKind::Dir, 0o755)).map_err(send)?;
        for part in &self.parts {
            let header = Header { size: part.size, ..Header::new(part.name.as_bytes(), HeaderKind::File, 0o644) };
            match &part.source {
                Source::Bytes(bytes) => tar.file(&header, bytes).map_err(send)?,
                Source::Blob { layer, digest } => {
                    // Fetched before its header is written: what can't be had is not begun.
                    let file = blob(self.image, *layer, digest)?;
                    tar.header(&header).map_err(send)?;
                    tar.data(&mut file.take(part.size), part.size).map_err(send)?;
                }
                Source::Unpacked { layer, digest } => {
                    let mut packed = Sniffed::new(blob(self.image, *layer, digest)?).map_err(send)?;
                    tar.header(&header).map_err(send)?;
                    tar.data_by(part.size, |out| packed.unpack(|plain| io::copy(plain, out))).map_err(send)?;
                }
                Source::Tar(bundle) => {
                    tar.header(&header).map_err(send)?;
                    self.layer(bundle, part.size, &mut tar)?;
                }
            }
        }
        tar.finish().map_err(send)?.flush().map_err(send)?;
        (progress)(total, Some(total));
        Ok(out.sent)
    }

    fn layer<W: Write>(&self, bundle: &BundleId, size: u64, tar: &mut TarWriter<W>) -> Result<(), RuntimeError> {
        let store = self.image.store;
        let diff = store.load_bundle(bundle)?.ok_or(LayerError::NoBundle(*bundle))?;
        let mut failed = None;
        let sent = tar.data_by(size, |out| {
            let mut counted = Counted { out, count: 0 };
            let written = write_layer(&diff, store, TimestampPolicy::Keep, &mut counted);
            let count = counted.count;
            written.map(|()| count).map_err(|error| {
                failed = Some(error);
                io::Error::other("the layer could not be written")
            })
        });
        match failed {
            Some(error) => Err(error.into()),
            None => sent.map_err(RuntimeError::Send),
        }
    }
}

struct Counted<'a, W> {
    out: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells how far it is.
struct Told<'a> {
    out: &'a mut dyn Write,
    sent: u64,
    total: u64,
    progress: Progress<'a>,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.sent += count as u64;
        // Headers count as well: what is told must not go past the end.
        (self.progress)(self.sent.min(self.total.saturating_sub(1)), Some(self.total));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
