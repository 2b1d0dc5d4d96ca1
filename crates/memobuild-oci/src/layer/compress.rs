//! Compression of a stream on several threads, into an OCI blob, with both digests taken on the way.
//!
//! Equal input gives equal output on every machine, whatever the number of its processors: gzip is made of members of
//! at most 1 MiB of input each (RFC 1952 allows any number of members; Go, zlib's gunzip, containerd and docker read
//! them as one stream), and zstd's multi-threaded format does not depend on the number of workers.

use std::{
    io::{self, Write},
    sync::{Arc, mpsc::Receiver},
    thread,
};

use memobuild_image::{Descriptor, media};
use memobuild_store::{OciBlobWriter, Store};
use memobuild_tree::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::{
    ExportedLayer, LayerError,
    gzip::gzip,
    pipe::{Chunk, Chunks, Gone},
    seekable::{self, Format},
};

/// Bytes of input in a gzip member, and in what is handed from thread to thread.
const BLOCK: usize = 1 << 20;
/// More workers than this cost memory and gain nothing: reading and hashing are then the bottleneck.
const MAX_WORKERS: usize = 4;

/// The level of gzip where none is asked for. What comes out is about as large as what buildah and BuildKit write by
/// default (with both compressed by the same library; 400 MB of Debian's programs: 2% larger, generated files: 1%), and
/// takes three quarters of the time of our level 6, whose output is 3.5% smaller than theirs.
pub(super) const DEFAULT_GZIP: u32 = 1;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, level 0 to 9.
    Gzip {
        /// Level; the default is 1, which comes out about as large as the default of buildah and BuildKit.
        level: u32,
    },
    /// Zstandard, level 1 to 22.
    Zstd {
        /// Level; the usual one is 3.
        level: u32,
    },
    /// eStargz: gzip, level 0 to 9, whose files lazy runtimes can read one by one. The diff ID differs from that of the
    /// other forms.
    Estargz {
        /// Level of gzip; the default is 6.
        level: u32,
    },
    /// zstd:chunked: Zstandard, level 1 to 22, of which containers/storage pulls the parts that it lacks.
    ZstdChunked {
        /// Level of Zstandard; the default is 3.
        level: u32,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: DEFAULT_GZIP }
    }
}

impl Compression {
    /// What `compression=` and `compression-level=` of an output say. Levels out of range are brought into it; `-1`
    /// means the default.
    pub fn parse(name: &str, level: Option<i32>) -> Option<Self> {
        let level = |default: u32, least: i32, most: i32| match level {
            None | Some(-1) => default,
            Some(level) => level.clamp(least, most).unsigned_abs(),
        };
        match name {
            "uncompressed" => Some(Self::None),
            "gzip" | "" => Some(Self::Gzip { level: level(DEFAULT_GZIP, 0, 9) }),
            "zstd" => Some(Self::Zstd { level: level(3, 1, 22) }),
            "estargz" => Some(Self::Estargz { level: level(6, 0, 9) }),
            "zstd:chunked" => Some(Self::ZstdChunked { level: level(3, 1, 22) }),
            _ => None,
        }
    }

    /// The media type of such a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => media::LAYER,
            Self::Gzip { .. } | Self::Estargz { .. } => media::LAYER_GZIP,
            Self::Zstd { .. } | Self::ZstdChunked { .. } => media::LAYER_ZSTD,
        }
    }

    /// Whether it is worth nothing without the annotations of the layer's descriptor, which Docker's own manifests
    /// don't have.
    pub fn needs_annotations(self) -> bool {
        self.seekable().is_some()
    }

    /// Says so where a layer that was to be read in part became an ordinary one: what is in it can't be told by a table
    /// of contents.
    pub fn shortfall(self, layer: &Descriptor) -> Option<String> {
        let name = match self {
            Self::Estargz { .. } => "eStargz",
            Self::ZstdChunked { .. } => "zstd:chunked",
            Self::None | Self::Gzip { .. } | Self::Zstd { .. } => return None,
        };
        let digest = &layer.digest;
        (!self.is_that_of(layer)).then(|| {
            format!("layer {digest} is an ordinary one: {name} can't list what is in it (RUST_LOG=warn says why)")
        })
    }

    fn seekable(self) -> Option<(Format, u32)> {
        match self {
            Self::Estargz { level } => Some((Format::Estargz, level)),
            Self::ZstdChunked { level } => Some((Format::ZstdChunked, level)),
            Self::None | Self::Gzip { .. } | Self::Zstd { .. } => None,
        }
    }

    /// Whether a layer with that descriptor is one of these already, of whatever level.
    pub fn is_that_of(self, layer: &Descriptor) -> bool {
        let has = |key| layer.annotations.contains_key(key);
        layer.media_type == self.media_type()
            && match self {
                Self::Estargz { .. } => has(seekable::ESTARGZ_MARK),
                Self::ZstdChunked { .. } => has(seekable::ZSTD_CHUNKED_MARK),
                Self::None | Self::Gzip { .. } | Self::Zstd { .. } => true,
            }
    }

    /// Kind and level as numbers, for keys.
    pub(super) fn tag(self) -> (u64, u64) {
        match self {
            Self::None => (0, 0),
            Self::Gzip { level } => (1, u64::from(level)),
            Self::Zstd { level } => (2, u64::from(level)),
            Self::Estargz { level } => (3, u64::from(level)),
            Self::ZstdChunked { level } => (4, u64::from(level)),
        }
    }
}

/// A layer, and the digest of the tar that it was made of, which is its diff ID except in eStargz.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compressed {
    pub(super) layer: ExportedLayer,
    pub(super) tar: Sha256Digest,
}

/// Runs `produce` with a stream to write an uncompressed tar to; what it writes ends up compressed in the store. A
/// digest of the tar that is known from an earlier time is taken over, not computed again.
pub(super) fn compress(
    store: &Store,
    compression: Compression,
    tar: Option<Sha256Digest>,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Compressed, LayerError> {
    let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS);
    compress_on(workers, store, compression, tar, produce)
}

/// [`compress`] on a given number of workers, which makes no difference to what comes out.
pub(super) fn compress_on(
    workers: usize,
    store: &Store,
    compression: Compression,
    tar: Option<Sha256Digest>,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Compressed, LayerError> {
    if let Some(format) = compression.seekable() {
        return compress_seekable(workers, store, (compression, format), tar, produce);
    }
    let blob = store.oci_blob_writer()?;
    let (to, mut from) = Chunks::new(if tar.is_some() { 1 } else { 2 });
    let (pack_end, hash_end) = (from.pop(), from.pop());
    thread::scope(|scope| {
        let hashed = hash_end.map(|blocks| scope.spawn(move || sha256(&blocks)));
        let packed = scope.spawn(move || match (pack_end, compression) {
            (None, _) => Ok(blob),
            (Some(blocks), Compression::Gzip { level } | Compression::Estargz { level }) => {
                gzip(blocks, blob, level, workers)
            }
            (Some(blocks), Compression::Zstd { level } | Compression::ZstdChunked { level }) => {
                zstd(&blocks, blob, level, workers)
            }
            (Some(blocks), Compression::None) => copy(&blocks, blob),
        });
        let produced = produce_into(to, produce);
        let hashed = hashed.map(|thread| thread.join().map_err(panicked)).transpose()?;
        // The worker's error says why the producer could not go on.
        let blob = packed.join().map_err(panicked)?.map_err(LayerError::Write)?;
        produced?;
        let (digest, size) = blob.finish(None)?;
        let tar = tar.or(hashed).ok_or_else(|| LayerError::Write(io::Error::other("nothing was hashed")))?;
        let blob = Descriptor::new(compression.media_type(), digest, size);
        Ok(Compressed { layer: ExportedLayer { diff_id: tar, blob }, tar })
    })
}

/// The formats whose files can be read one by one.
fn compress_seekable(
    workers: usize,
    store: &Store,
    (compression, format): (Compression, (Format, u32)),
    tar: Option<Sha256Digest>,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Compressed, LayerError> {
    let blob = store.oci_blob_writer()?;
    let (to, mut from) = Chunks::new(1);
    let Some(blocks) = from.pop() else { return Err(LayerError::Write(io::Error::other("no pipe"))) };
    thread::scope(|scope| {
        let written = scope.spawn(move || seekable::write(blocks, blob, format, tar, workers));
        let produced = produce_into(to, produce);
        // The worker's error says why the producer could not go on.
        let made = written.join().map_err(panicked)?.map_err(LayerError::Write)?;
        produced?;
        let (digest, size) = made.blob.finish(None)?;
        let mut blob = Descriptor::new(compression.media_type(), digest, size);
        blob.annotations = made.annotations;
        Ok(Compressed { layer: ExportedLayer { diff_id: made.diff_id, blob }, tar: made.tar })
    })
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> LayerError {
    LayerError::Write(io::Error::other("a worker thread panicked"))
}

/// Runs `produce`, and hands what it writes to the pipe, whose end the consumers then see.
fn produce_into(to: Chunks, produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>) -> Result<(), LayerError> {
    let mut out = Splitter { block: to.buffer(), to };
    produce(&mut out).and_then(|()| out.flush().map_err(LayerError::Write))
}

/// The digest of what `produce` writes, taken on a thread of its own.
pub(super) fn digest(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Sha256Digest, LayerError> {
    let (to, from) = Chunks::new(1);
    thread::scope(|scope| {
        let hashed = from.into_iter().next().map(|blocks| scope.spawn(move || sha256(&blocks)));
        let produced = produce_into(to, produce);
        let hashed = hashed.and_then(|thread| thread.join().ok());
        produced?;
        hashed.ok_or_else(|| LayerError::Write(io::Error::other("a worker thread panicked")))
    })
}

/// Cuts the stream into blocks and hands each to all consumers.
struct Splitter {
    to: Chunks,
    block: Vec<u8>,
}

impl Write for Splitter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.reserve_exact(BLOCK - self.block.len());
        let room = BLOCK - self.block.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.block.extend_from_slice(taken);
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, self.to.buffer());
        self.to.send(block).map_err(|Gone| io::Error::other("the compressor has stopped"))
    }
}

pub(super) type Blocks = Receiver<Arc<Chunk>>;

fn sha256(from: &Blocks) -> Sha256Digest {
    let mut hasher = Sha256::new();
    while let Ok(block) = from.recv() {
        hasher.update(&**block);
    }
    Sha256Digest::from_bytes(hasher.finalize().into())
}

fn copy(from: &Blocks, mut sink: OciBlobWriter) -> io::Result<OciBlobWriter> {
    while let Ok(block) = from.recv() {
        sink.write_all(&block)?;
    }
    Ok(sink)
}

fn zstd(from: &Blocks, sink: OciBlobWriter, level: u32, workers: usize) -> io::Result<OciBlobWriter> {
    let mut encoder = zstd::Encoder::new(sink, level as i32)?;
    encoder.include_checksum(true)?;
    // One worker too: its output is that of many, and not that of none.
    encoder.multithread(workers as u32)?;
    while let Ok(block) = from.recv() {
        encoder.write_all(&block)?;
    }
    encoder.finish()
}
