//! A bundle to a layer's blob: a tar that is the same on every machine, compressed, kept, and made only once.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use memobuild_image::Descriptor;
use memobuild_store::{Ref, Store};
use memobuild_tree::{
    BundleId, Change, Diff, DirChange, KeyDigest, KeyHasher, LinkId, Meta, Node, Sha256Digest, SpecialKind, path,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    LayerError,
    compress::{self, Compression, compress},
    decompress::Sniffed,
    tar::{BLOCK, Header, HeaderKind, TarWriter},
};

/// What is done to modification times. Fractions of seconds are always cut off, as containerd does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampPolicy {
    /// They stay.
    Keep,
    /// Those after that second are set to it (`rewrite-timestamp`).
    Clamp(i64),
    /// All are set to that second.
    Set(i64),
}

impl TimestampPolicy {
    fn of(self, secs: i64) -> i64 {
        match self {
            Self::Keep => secs,
            Self::Clamp(epoch) => secs.min(epoch),
            Self::Set(epoch) => epoch,
        }
    }

    fn tag(self) -> (u64, i64) {
        match self {
            Self::Keep => (0, 0),
            Self::Clamp(epoch) => (1, epoch),
            Self::Set(epoch) => (2, epoch),
        }
    }
}

/// A layer as a blob of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportedLayer {
    /// SHA-256 of what the blob unpacks to: of eStargz not the tar alone.
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub diff_id: Sha256Digest,
    /// The blob: OCI media type, digest, size; annotations where the format has some, which must get into the manifest.
    pub blob: Descriptor,
}

fn write_digest<S: serde::Serializer>(digest: &Sha256Digest, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(digest)
}

fn read_digest<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Sha256Digest, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

/// Records of what [`export_layer`] made. To be counted up whenever the bytes it writes change.
const EXPORTED: &str = "oci.exported.v3";
/// Records of diff IDs of plain layers: of the tar alone. To be counted up, as the former, whenever the tar changes.
/// The namespace of diff IDs by bundle.
pub const DIFF_ID: &str = "oci.diff-id.v1";

/// Bytes of files in a layer from which on it is read on one thread and hashed on another.
const WORTH_A_THREAD: u64 = 4 << 20;

/// The blob of a bundle, made now or earlier.
pub fn export_layer(
    store: &Store,
    bundle: &BundleId,
    compression: Compression,
    policy: TimestampPolicy,
) -> Result<ExportedLayer, LayerError> {
    if let Some(known) = known_export(store, bundle, compression, policy)?
        && store.oci_blob_path(&known.blob.digest).is_some()
    {
        return Ok(known);
    }
    let (_, key) = exported_record(bundle, compression, policy);
    let diff = store.load_bundle(bundle)?.ok_or(LayerError::NoBundle(*bundle))?;
    let known = known_diff_id(store, bundle, policy)?;
    let made = compress(store, compression, known, |out| write_layer(&diff, store, policy, out))?;
    if known.is_none() {
        keep_diff_id(store, bundle, policy, made.tar)?;
    }
    let layer = made.layer;
    if let Ok(value) = serde_json::to_vec(&layer) {
        store.record_put(EXPORTED, &key, &value, &[Ref::Oci(layer.blob.digest)])?;
    }
    Ok(layer)
}

/// What [`export_layer`] made at some time, here or on a machine that shares its cache: the blob need not be here.
pub fn known_export(
    store: &Store,
    bundle: &BundleId,
    compression: Compression,
    policy: TimestampPolicy,
) -> Result<Option<ExportedLayer>, LayerError> {
    let (ns, key) = exported_record(bundle, compression, policy);
    Ok(store.record_get(ns, &key)?.and_then(|known| serde_json::from_slice(&known).ok()))
}

/// The record of what [`export_layer`] makes.
pub fn exported_record(
    bundle: &BundleId,
    compression: Compression,
    policy: TimestampPolicy,
) -> (&'static str, KeyDigest) {
    let (kind, level) = compression.tag();
    (EXPORTED, key(EXPORTED, bundle, policy).u64(kind).u64(level).finish())
}

/// The record of what [`layer_diff_id`] gives.
pub fn diff_id_record(bundle: &BundleId, policy: TimestampPolicy) -> (&'static str, KeyDigest) {
    (DIFF_ID, key(DIFF_ID, bundle, policy).finish())
}

/// The diff ID that [`export_layer`] would give the bundle in any form but eStargz, without compressing or keeping
/// anything.
pub fn layer_diff_id(store: &Store, bundle: &BundleId, policy: TimestampPolicy) -> Result<Sha256Digest, LayerError> {
    if let Some(known) = known_diff_id(store, bundle, policy)? {
        return Ok(known);
    }
    let diff = store.load_bundle(bundle)?.ok_or(LayerError::NoBundle(*bundle))?;
    let mut bytes = 0;
    diff.walk(&mut |_, change| {
        if let Change::Put(Node::File(file)) = change {
            bytes += file.size;
        }
    });
    let digest = if bytes > WORTH_A_THREAD {
        compress::digest(|out| write_layer(&diff, store, policy, out))?
    } else {
        let mut hasher = Hasher(Sha256::new());
        write_layer(&diff, store, policy, &mut hasher)?;
        Sha256Digest::from_bytes(hasher.0.finalize().into())
    };
    keep_diff_id(store, bundle, policy, digest)?;
    Ok(digest)
}

fn known_diff_id(
    store: &Store,
    bundle: &BundleId,
    policy: TimestampPolicy,
) -> Result<Option<Sha256Digest>, LayerError> {
    let known = store.record_get(DIFF_ID, &key(DIFF_ID, bundle, policy).finish())?;
    Ok(known.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(Sha256Digest::from_bytes))
}

fn keep_diff_id(
    store: &Store,
    bundle: &BundleId,
    policy: TimestampPolicy,
    digest: Sha256Digest,
) -> Result<(), LayerError> {
    store.record_put(DIFF_ID, &key(DIFF_ID, bundle, policy).finish(), digest.as_bytes(), &[])?;
    Ok(())
}

/// Another compression of a layer that is in the store as a blob (`force-compression`): the same tar, and except in
/// eStargz the same diff ID.
pub fn recompress_layer(
    store: &Store,
    blob: &Sha256Digest,
    compression: Compression,
) -> Result<ExportedLayer, LayerError> {
    const RECOMPRESSED: &str = "oci.recompressed.v3";
    let (kind, level) = compression.tag();
    let key = KeyHasher::new(RECOMPRESSED).value(blob).u64(kind).u64(level).finish();
    if let Some(known) = store.record_get(RECOMPRESSED, &key)?
        && let Ok(layer) = serde_json::from_slice::<ExportedLayer>(&known)
        && store.oci_blob_path(&layer.blob.digest).is_some()
    {
        return Ok(layer);
    }
    let missing = || LayerError::Read(io::Error::new(io::ErrorKind::NotFound, format!("no blob {blob} in the store")));
    let path = store.oci_blob_path(blob).ok_or_else(missing)?;
    let file = std::fs::File::open(path).map_err(LayerError::Read)?;
    let mut source = Sniffed::new(file).map_err(LayerError::Read)?;
    let layer = compress(store, compression, None, |out| {
        source.unpack(|stream| io::copy(stream, out)).map(drop).map_err(LayerError::Read)
    })?
    .layer;
    if let Ok(value) = serde_json::to_vec(&layer) {
        store.record_put(RECOMPRESSED, &key, &value, &[Ref::Oci(layer.blob.digest)])?;
    }
    Ok(layer)
}

fn key(domain: &str, bundle: &BundleId, policy: TimestampPolicy) -> KeyHasher {
    let mut h = KeyHasher::new(domain);
    let (tag, epoch) = policy.tag();
    h.value(bundle).u64(tag).value(&epoch);
    h
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the tar of a diff: siblings in byte order of their names, directories before what is in them, whiteouts where
/// the name would stand. Directories that are only on the way have no entry, nor has the root.
pub fn write_layer(diff: &Diff, store: &Store, policy: TimestampPolicy, out: &mut dyn Write) -> Result<(), LayerError> {
    write(diff, store, policy, out, true)
}

/// The same for a whole root file system, where names that start with `.wh.` are names like others.
pub(crate) fn write_rootfs(
    diff: &Diff,
    store: &Store,
    policy: TimestampPolicy,
    out: &mut dyn Write,
) -> Result<(), LayerError> {
    write(diff, store, policy, out, false)
}

fn write(
    diff: &Diff,
    store: &Store,
    policy: TimestampPolicy,
    out: &mut dyn Write,
    whiteouts: bool,
) -> Result<(), LayerError> {
    let mut export =
        Export { tar: TarWriter::new(out), store, policy, whiteouts, first: HashMap::new(), unwritten: None };
    export.dir(&diff.root, &mut Vec::new())?;
    export.tar.finish().map(drop).map_err(LayerError::Write)
}

/// Bytes that [`write_layer`] would write. No file is read for it.
pub(crate) fn layer_size(diff: &Diff, store: &Store, policy: TimestampPolicy) -> Result<u64, LayerError> {
    let mut heads = Length(0);
    let mut export = Export {
        tar: TarWriter::new(&mut heads),
        store,
        policy,
        whiteouts: true,
        first: HashMap::new(),
        unwritten: Some(0),
    };
    export.dir(&diff.root, &mut Vec::new())?;
    let data = export.unwritten.unwrap_or_default();
    export.tar.finish().map(drop).map_err(LayerError::Write)?;
    Ok(heads.0 + data)
}

struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Export<'a, 'w> {
    tar: TarWriter<&'w mut dyn Write>,
    store: &'a Store,
    policy: TimestampPolicy,
    whiteouts: bool,
    /// The first path of each group of hard links.
    first: HashMap<LinkId, Vec<u8>>,
    /// Only lengths are wanted: bytes of file data so far, padding included, that were left out.
    unwritten: Option<u64>,
}

impl Export<'_, '_> {
    fn dir(&mut self, dir: &DirChange, at: &mut Vec<u8>) -> Result<(), LayerError> {
        if dir.opaque {
            self.whiteout(at, b".wh..opq")?;
        }
        for (name, change) in &dir.entries {
            if self.whiteouts && name.starts_with(b".wh.") {
                let why = "names that start with .wh. mean removals there (image-spec, layer.md)";
                return Err(LayerError::Unrepresentable { path: [b"/", at.as_slice(), name].concat(), why });
            }
            let length = at.len();
            at.extend_from_slice(name);
            match change {
                Change::Remove => {
                    at.truncate(length);
                    self.whiteout(at, name)?;
                }
                Change::Dir(sub) => {
                    at.push(b'/');
                    if let Some(meta) = &sub.meta {
                        let header = self.with_meta(at, HeaderKind::Dir, meta);
                        self.tar.header(&header).map_err(|e| cannot(at, e))?;
                    }
                    self.dir(sub, at)?;
                }
                Change::Put(node) => self.node(node, at)?,
                Change::LinkTo(_) => {
                    let why = "it is a hard link into a layer below, whose metadata are not known here";
                    return Err(LayerError::Unrepresentable { path: [b"/", at.as_slice()].concat(), why });
                }
            }
            at.truncate(length);
        }
        Ok(())
    }

    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let path = [dir, b".wh.", name].concat();
        self.tar.header(&Header::new(&path, HeaderKind::File, 0)).map_err(|e| cannot(&path, e))
    }

    fn node(&mut self, node: &Node, at: &mut Vec<u8>) -> Result<(), LayerError> {
        match node {
            Node::File(file) => return self.file(file, at),
            Node::Dir(dir) => {
                let made = DirChange { opaque: true, ..DirChange::creating(dir) };
                at.push(b'/');
                let header = self.with_meta(at, HeaderKind::Dir, dir.meta());
                self.tar.header(&header).map_err(|e| cannot(at, e))?;
                return self.dir(&made, at);
            }
            Node::Symlink(link) => {
                let header = Header { link: &link.target, ..self.with_meta(at, HeaderKind::Symlink, &link.meta) };
                self.tar.header(&header)
            }
            Node::Special(special) => {
                let kind = match special.kind {
                    SpecialKind::Fifo => HeaderKind::Fifo,
                    SpecialKind::Char => HeaderKind::Char,
                    SpecialKind::Block => HeaderKind::Block,
                };
                let header = Header { rdev: special.rdev, ..self.with_meta(at, kind, &special.meta) };
                self.tar.header(&header)
            }
        }
        .map_err(|e| cannot(at, e))
    }

    fn file(&mut self, file: &memobuild_tree::File, at: &[u8]) -> Result<(), LayerError> {
        if let Some(first) = file.link.and_then(|id| self.first.get(&id)) {
            let header = Header { link: first, ..self.with_meta(at, HeaderKind::Link, &file.meta) };
            return self.tar.header(&header).map_err(|e| cannot(at, e));
        }
        if let Some(id) = file.link {
            self.first.insert(id, at.to_vec());
        }
        let header = Header { size: file.size, ..self.with_meta(at, HeaderKind::File, &file.meta) };
        self.tar.header(&header).map_err(|e| cannot(at, e))?;
        if file.size == 0 {
            return Ok(());
        }
        if let Some(unwritten) = &mut self.unwritten {
            *unwritten += file.size.next_multiple_of(BLOCK as u64);
            return Ok(());
        }
        let content = self.store.content(&file.content)?;
        if content.len() != file.size {
            let why = "its contents in the store have another length";
            return Err(LayerError::Unrepresentable { path: [b"/", at].concat(), why });
        }
        self.tar.data(&mut content.reader(), file.size).map_err(LayerError::Write)
    }

    fn with_meta<'h>(&self, path: &'h [u8], kind: HeaderKind, meta: &'h Meta) -> Header<'h> {
        // Of all attributes containerd's writer of layers, which is BuildKit's, takes this one only.
        let xattrs =
            meta.xattrs.as_deref().into_iter().flatten().filter(|(name, _)| &***name == b"security.capability");
        Header {
            uid: meta.uid,
            gid: meta.gid,
            mtime: self.policy.of(meta.mtime.secs),
            xattrs: xattrs.map(|(name, value)| (&**name, &**value)).collect(),
            ..Header::new(path, kind, meta.mode & 0o7777)
        }
    }
}

/// Errors of the header itself name the path; those of the stream don't.
fn cannot(at: &[u8], e: io::Error) -> LayerError {
    match e.kind() {
        io::ErrorKind::InvalidInput => LayerError::Write(io::Error::other(format!("/{}: {e}", path::display(at)))),
        _ => LayerError::Write(e),
    }
}
