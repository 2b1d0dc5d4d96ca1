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
};

/// Bytes of input in a gzip member, and in what is handed from thread to thread.
const BLOCK: usize = 1 << 20;
/// More workers than this cost memory and gain nothing: reading and hashing are then the bottleneck.
const MAX_WORKERS: usize = 4;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, level 0 to 9.
    Gzip {
        /// Level; pigz's and BuildKit's default is 6.
        level: u32,
    },
    /// Zstandard, level 1 to 22.
    Zstd {
        /// Level; the usual one is 3.
        level: u32,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: 6 }
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
            "gzip" | "" => Some(Self::Gzip { level: level(6, 0, 9) }),
            "zstd" => Some(Self::Zstd { level: level(3, 1, 22) }),
            _ => None,
        }
    }

    /// The media type of such a layer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => media::LAYER,
            Self::Gzip { .. } => media::LAYER_GZIP,
            Self::Zstd { .. } => media::LAYER_ZSTD,
        }
    }

    /// Kind and level as numbers, for keys.
    pub(super) fn tag(self) -> (u64, u64) {
        match self {
            Self::None => (0, 0),
            Self::Gzip { level } => (1, u64::from(level)),
            Self::Zstd { level } => (2, u64::from(level)),
        }
    }
}

/// Runs `produce` with a stream to write an uncompressed tar to; what it writes ends up compressed in the store. A
/// diff ID that is known from an earlier time is taken over, not computed again.
pub(super) fn compress(
    store: &Store,
    compression: Compression,
    diff_id: Option<Sha256Digest>,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<ExportedLayer, LayerError> {
    let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS);
    compress_on(workers, store, compression, diff_id, produce)
}

/// [`compress`] on a given number of workers, which makes no difference to what comes out.
pub(super) fn compress_on(
    workers: usize,
    store: &Store,
    compression: Compression,
    diff_id: Option<Sha256Digest>,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<ExportedLayer, LayerError> {
    let blob = store.oci_blob_writer()?;
    let (to, mut from) = Chunks::new(if diff_id.is_some() { 1 } else { 2 });
    let (pack_end, hash_end) = (from.pop(), from.pop());
    thread::scope(|scope| {
        let hashed = hash_end.map(|blocks| scope.spawn(move || sha256(&blocks)));
        let packed = scope.spawn(move || match (pack_end, compression) {
            (None, _) => Ok(blob),
            (Some(blocks), Compression::None) => copy(&blocks, blob),
            (Some(blocks), Compression::Gzip { level }) => gzip(blocks, blob, level, workers),
            (Some(blocks), Compression::Zstd { level }) => zstd(&blocks, blob, level, workers),
        });
        let mut out = Splitter { block: to.buffer(), to };
        let produced = produce(&mut out).and_then(|()| out.flush().map_err(LayerError::Write));
        drop(out);
        let panicked = |_| LayerError::Write(io::Error::other("a worker thread panicked"));
        let hashed = hashed.map(|thread| thread.join().map_err(panicked)).transpose()?;
        // The worker's error says why the producer could not go on.
        let blob = packed.join().map_err(panicked)?.map_err(LayerError::Write)?;
        produced?;
        let (digest, size) = blob.finish(None)?;
        let diff_id = diff_id.or(hashed).ok_or_else(|| LayerError::Write(io::Error::other("nothing was hashed")))?;
        Ok(ExportedLayer { diff_id, blob: Descriptor::new(compression.media_type(), digest, size) })
    })
}

/// The digest of what `produce` writes, taken on a thread of its own.
pub(super) fn digest(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<Sha256Digest, LayerError> {
    let (to, from) = Chunks::new(1);
    thread::scope(|scope| {
        let hashed = from.into_iter().next().map(|blocks| scope.spawn(move || sha256(&blocks)));
        let mut out = Splitter { block: to.buffer(), to };
        let produced = produce(&mut out).and_then(|()| out.flush().map_err(LayerError::Write));
        drop(out);
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
