//! OCI image layouts (image-spec, image-layout.md), as tar or directory, and docker archives, which are such layouts
//! with a `manifest.json` besides: the files and order of containerd's exporter, which BuildKit uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use memobuild_image::{Descriptor, Index, Manifest, json, media};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;
use serde::Serialize;

use super::{Dest, OutputError, OutputImage, dest::Sink, fresh::Fresh};
use crate::layer::tar::{Header, HeaderKind, TarWriter};

/// What stands in `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const CREATED: &str = "org.opencontainers.image.created";

/// An image in `manifest.json` of a docker archive.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// Writes an OCI layout: a tar, or a directory, into whose `index.json` the image is put beside those that are there.
pub fn write_oci(store: &Store, image: &OutputImage, dest: &Dest) -> Result<(), OutputError> {
    match dest {
        Dest::Dir(dir) => write_dir(store, image, dir),
        _ => write_tar(store, image, None, dest),
    }
}

/// Writes what `docker load` reads: an OCI layout with a `manifest.json`, as a tar.
pub fn write_docker(store: &Store, image: &OutputImage, dest: &Dest) -> Result<(), OutputError> {
    if media::is_index(&image.root.media_type) {
        return Err(OutputError::ManyPlatforms);
    }
    let manifest: Manifest = serde_json::from_slice(&read(store, &image.root.digest)?)?;
    let path = |d: &Descriptor| format!("blobs/sha256/{}", d.digest.hex());
    let tags: Vec<_> = image.names.iter().map(|n| n.clone().with_default_tag().familiar()).collect();
    let saved = Saved {
        config: path(&manifest.config),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: manifest.layers.iter().map(path).collect(),
    };
    if let Dest::Dir(dir) = dest {
        write_dir(store, image, dir)?;
        return put(dir, "manifest.json", &json::compact(&[saved])?);
    }
    write_tar(store, image, Some(&json::compact(&[saved])?), dest)
}

fn write_tar(store: &Store, image: &OutputImage, saved: Option<&[u8]>, dest: &Dest) -> Result<(), OutputError> {
    let blobs = blobs(store, &image.root)?;
    let index = json::compact(&Index::new(entries(image)))?;
    let mut sink = Sink::open(dest)?;
    let written = (|| {
        let mut tar = TarWriter::new(&mut sink);
        tar.header(&Header::new(b"blobs/", HeaderKind::Dir, 0o755))?;
        tar.header(&Header::new(b"blobs/sha256/", HeaderKind::Dir, 0o755))?;
        for (digest, path) in &blobs {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            let name = format!("blobs/sha256/{}", digest.hex());
            tar.header(&Header { size, ..Header::new(name.as_bytes(), HeaderKind::File, 0o444) })?;
            tar.data_by(size, |sink| sink.copy(&file, size))?;
        }
        tar.file(&Header::new(b"index.json", HeaderKind::File, 0o644), &index)?;
        if let Some(saved) = saved {
            tar.file(&Header::new(b"manifest.json", HeaderKind::File, 0o644), saved)?;
        }
        tar.file(&Header::new(b"oci-layout", HeaderKind::File, 0o444), LAYOUT)?;
        tar.finish().map(drop)
    })();
    written.map_err(|e: io::Error| sink.error(e))?;
    sink.finish()
}

fn write_dir(store: &Store, image: &OutputImage, dir: &Path) -> Result<(), OutputError> {
    let error = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OutputError::Io { path, source }
    };
    let target = dir.join("blobs/sha256");
    fs::create_dir_all(&target).map_err(error(&target))?;
    for (digest, path) in blobs(store, &image.root)? {
        let to = target.join(digest.hex());
        if fs::metadata(&to).is_ok_and(|m| fs::metadata(&path).is_ok_and(|n| m.len() == n.len())) {
            continue;
        }
        let fresh = Fresh::create_in(&target, 0o644).map_err(error(&to))?;
        // Within the kernel, which shares the bytes where the file system can. Not `fs::copy`: it cuts the file to
        // nothing first, after which ext4 writes all of it to the disk before it is closed.
        let copied = File::open(&path).and_then(|mut from| io::copy(&mut from, &mut fresh.file()));
        copied.map_err(error(&to))?;
        fresh.file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(error(&to))?;
        fresh.give(&to).map_err(error(&to))?;
    }
    put(dir, "oci-layout", LAYOUT)?;
    let known = fs::read(dir.join("index.json")).ok();
    let mut index: Index =
        known.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_else(|| Index::new(Vec::new()));
    let mut new = entries(image);
    if image.names.is_empty() {
        // A layout can be asked for its `latest`; BuildKit's client names it so.
        for entry in &mut new {
            entry.annotations.insert(REF_NAME.into(), "latest".into());
        }
    }
    let name = |d: &Descriptor| (d.annotations.get(CONTAINERD_NAME).cloned(), d.annotations.get(REF_NAME).cloned());
    index.manifests.retain(|old| !new.iter().any(|n| name(n) == name(old)));
    index.manifests.extend(new);
    put(dir, "index.json", &json::compact(&index)?)
}

/// Replaces a small file as a whole.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
    let path = dir.join(name);
    let mut sink = Sink::open(&Dest::File(path))?;
    sink.write_all(bytes).map_err(|e| sink.error(e))?;
    sink.finish()
}

/// The entries in `index.json`: one for each name.
pub(crate) fn entries(image: &OutputImage) -> Vec<Descriptor> {
    let mut root = image.root.clone();
    if let Some(created) = &image.created {
        root.annotations.entry(CREATED.into()).or_insert_with(|| created.clone());
    }
    if image.names.is_empty() {
        return vec![root];
    }
    let named = |name: &crate::reference::Reference| {
        let name = name.clone().with_default_tag();
        let tag = name.tag.clone().unwrap_or_else(|| name.to_string());
        let mut entry = root.clone();
        entry.annotations.extend([(CONTAINERD_NAME.into(), name.to_string()), (REF_NAME.into(), tag)]);
        entry
    };
    image.names.iter().map(named).collect()
}

/// Every blob under a manifest or index, by digest, and where it lies.
fn blobs(store: &Store, root: &Descriptor) -> Result<BTreeMap<Sha256Digest, std::path::PathBuf>, OutputError> {
    let mut todo = vec![(root.digest, root.media_type.clone())];
    let mut seen = BTreeSet::new();
    let mut out = BTreeMap::new();
    while let Some((digest, media_type)) = todo.pop() {
        if !seen.insert(digest) {
            continue;
        }
        let path = store.oci_blob_path(&digest).ok_or(OutputError::NoBlob(digest))?;
        out.insert(digest, path);
        if media::is_index(&media_type) {
            let index: Index = serde_json::from_slice(&read(store, &digest)?)?;
            todo.extend(index.manifests.into_iter().map(|m| (m.digest, m.media_type)));
        } else if media::is_manifest(&media_type) {
            let manifest: Manifest = serde_json::from_slice(&read(store, &digest)?)?;
            todo.push((manifest.config.digest, manifest.config.media_type));
            todo.extend(manifest.layers.into_iter().map(|l| (l.digest, String::new())));
        }
    }
    Ok(out)
}

/// A document of the image.
pub(super) fn read(store: &Store, digest: &Sha256Digest) -> Result<Vec<u8>, OutputError> {
    let path = store.oci_blob_path(digest).ok_or(OutputError::NoBlob(*digest))?;
    fs::read(&path).map_err(|source| OutputError::Io { path, source })
}
