//! Compression of a stream on several threads, into an OCI blob, with both digests taken on the way.
//!
//! Equal input gives equal output on every machine, whatever the number of its processors: gzip is made of members of
//! 1 MiB of input each (RFC 1952 allows any number of members; Go, zlib's gunzip, containerd and docker read them as
//! one stream), and zstd's multi-threaded format does not depend on the number of workers.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use memobuild_image::{Descriptor, media};
use memobuild_store::{OciBlobWriter, Store};
use memobuild_tree::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::{ExportedLayer, LayerError};

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

type Block = Arc<Vec<u8>>;

/// Runs `produce` with a stream to write an uncompressed tar to; what it writes ends up compressed in the store.
pub(super) fn compress(
    store: &Store,
    compression: Compression,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), LayerError>,
) -> Result<ExportedLayer, LayerError> {
    let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS);
    let blob = store.oci_blob_writer()?;
    let (to_hash, hash_end) = sync_channel::<Block>(4);
    let (to_pack, pack_end) = sync_channel::<Block>(2 * workers);
    thread::scope(|scope| {
        let hashed = scope.spawn(move || {
            let mut hasher = Sha256::new();
            while let Ok(block) = hash_end.recv() {
                hasher.update(&**block);
            }
            Sha256Digest::from_bytes(hasher.finalize().into())
        });
        let packed = scope.spawn(move || match compression {
            Compression::None => copy(pack_end, blob),
            Compression::Gzip { level } => gzip(pack_end, blob, level, workers),
            Compression::Zstd { level } => zstd(pack_end, blob, level, workers),
        });
        let mut out = Splitter { to: [to_hash, to_pack], block: Vec::with_capacity(BLOCK) };
        let produced = produce(&mut out).and_then(|()| out.flush().map_err(LayerError::Write));
        drop(out);
        let panicked = |_| LayerError::Write(io::Error::other("a worker thread panicked"));
        let diff_id = hashed.join().map_err(panicked)?;
        // The worker's error says why the producer could not go on.
        let blob = packed.join().map_err(panicked)?.map_err(LayerError::Write)?;
        produced?;
        let (digest, size) = blob.finish(None)?;
        Ok(ExportedLayer { diff_id, blob: Descriptor::new(compression.media_type(), digest, size) })
    })
}

/// Cuts the stream into blocks and hands each to both consumers.
struct Splitter {
    to: [SyncSender<Block>; 2],
    block: Vec<u8>,
}

impl Write for Splitter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        for to in &self.to {
            to.send(block.clone()).map_err(|_| io::Error::other("the compressor has stopped"))?;
        }
        Ok(())
    }
}

fn copy(from: Receiver<Block>, mut sink: OciBlobWriter) -> io::Result<OciBlobWriter> {
    while let Ok(block) = from.recv() {
        sink.write_all(&block)?;
    }
    Ok(sink)
}

fn zstd(from: Receiver<Block>, sink: OciBlobWriter, level: u32, workers: usize) -> io::Result<OciBlobWriter> {
    let mut encoder = zstd::Encoder::new(sink, level as i32)?;
    encoder.include_checksum(true)?;
    // One worker too: its output is that of many, and not that of none.
    encoder.multithread(workers as u32)?;
    while let Ok(block) = from.recv() {
        encoder.write_all(&block)?;
    }
    encoder.finish()
}

type Job = (Block, SyncSender<io::Result<Vec<u8>>>);

fn gzip(from: Receiver<Block>, mut sink: OciBlobWriter, level: u32, workers: usize) -> io::Result<OciBlobWriter> {
    let level = libdeflater::CompressionLvl::new(level as i32).map_err(|_| io::Error::other("no such gzip level"))?;
    let (to_work, jobs) = sync_channel::<Job>(2 * workers);
    let jobs = Mutex::new(jobs);
    // Blocks come back in order because their answers wait in order.
    let (to_write, answers) = sync_channel::<Receiver<io::Result<Vec<u8>>>>(2 * workers);
    let jobs = &jobs;
    // Moved in, so that an error here drops `answers` and thereby stops the others.
    thread::scope(move |scope| {
        for _ in 0..workers {
            scope.spawn(move || work(jobs, level));
        }
        scope.spawn(move || {
            let mut empty = true;
            while let Ok(block) = from.recv() {
                empty = false;
                if !submit(block, &to_work, &to_write) {
                    return;
                }
            }
            if empty {
                submit(Block::default(), &to_work, &to_write);
            }
        });
        let gone = || io::Error::other("a worker thread panicked");
        while let Ok(answer) = answers.recv() {
            sink.write_all(&answer.recv().map_err(|_| gone())??)?;
        }
        Ok(sink)
    })
}

fn submit(block: Block, to_work: &SyncSender<Job>, to_write: &SyncSender<Receiver<io::Result<Vec<u8>>>>) -> bool {
    let (answer, receiver) = sync_channel(1);
    to_work.send((block, answer)).is_ok() && to_write.send(receiver).is_ok()
}

fn work(jobs: &Mutex<Receiver<Job>>, level: libdeflater::CompressionLvl) {
    let mut compressor = libdeflater::Compressor::new(level);
    loop {
        let job = match jobs.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let Ok((block, answer)) = job else { return };
        let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
        let result = compressor.gzip_compress(&block, &mut out).map(|length| {
            out.truncate(length);
            out
        });
        // Fails only where the writer has met an error and gone.
        let _ = answer.send(result.map_err(|e| io::Error::other(e.to_string())));
    }
}
