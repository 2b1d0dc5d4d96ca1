//! Layers that lazy runtimes read in part: eStargz (`compression=estargz`) and zstd:chunked.
//!
//! Both are ordinary gzip or zstd streams, cut so that each chunk of each file can be decompressed by itself, with a
//! table of contents at the end whose digest stands in the annotations of the layer's descriptor. A table can't tell
//! everything that a tar can: where it can't (a name that is not UTF-8, an entry that stands there twice), the layer is
//! an ordinary one, without annotations.
//!
//! Four kinds of threads: the caller's makes the tar, one takes it apart ([`scan`]), several compress, and the one that
//! writes; a fifth hashes the tar where its digest is not known.

mod chunked;
mod estargz;
mod rolling;
mod scan;
mod tar_split;
#[cfg(test)]
mod tests;
mod toc;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use memobuild_store::OciBlobWriter;
use memobuild_tree::Sha256Digest;
use sha2::{Digest as _, Sha256};

use self::{
    scan::{Item, Piece},
    toc::Placed,
};
use super::{compress::Blocks, gzip::Compressors, pipe::ChunkReader, pool};

/// The name of eStargz's table of contents in the tar (`docs/estargz.md`).
const TOC_NAME: &[u8] = b"stargz.index.json";
/// The file that says that nothing is to be fetched ahead.
const LANDMARK: &[u8] = b".no.prefetch.landmark";
/// Its counterpart, which is never written here.
const PREFETCH_LANDMARK: &[u8] = b".prefetch.landmark";

/// Annotation of every eStargz layer, and of no other.
pub(super) const ESTARGZ_MARK: &str = estargz::TOC_DIGEST;
/// Annotation of every zstd:chunked layer, and of no other.
pub(super) const ZSTD_CHUNKED_MARK: &str = chunked::MANIFEST_CHECKSUM;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// gzip.
    Estargz,
    /// zstd.
    ZstdChunked,
}

/// A blob that has been written.
pub(super) struct Made {
    pub(super) blob: OciBlobWriter,
    /// Digest of what the blob unpacks to.
    pub(super) diff_id: Sha256Digest,
    /// Digest of the tar that came in.
    pub(super) tar: Sha256Digest,
    /// For the layer's descriptor; empty where it is an ordinary layer.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Writes the layer. `tar` is the digest of the tar, where it is known already: eStargz needs to hash it all the same.
pub(super) fn write(
    blocks: Blocks,
    blob: OciBlobWriter,
    (format, level): (Format, u32),
    tar: Option<Sha256Digest>,
    workers: usize,
) -> io::Result<Made> {
    let (to_pack, pieces) = sync_channel(2);
    let (to_hash, to_be_hashed) = sync_channel(2);
    let hash = tar.is_none() || format == Format::Estargz;
    let mut to = vec![to_pack];
    to.extend(hash.then_some(to_hash));
    let mut out = Out { blob, at: 0, placed: Vec::new() };
    let (packed, scanned, hashed) = thread::scope(|scope| {
        let scanned = scope.spawn(move || scan::scan(ChunkReader::new(blocks), format, level, to));
        let hashed = scope.spawn(move || Hashed::of(&to_be_hashed));
        let packed = pack(pieces, &mut out, format, level, workers);
        (packed, scanned.join(), hashed.join())
    });
    let panicked = |_| io::Error::other("a worker thread panicked");
    // The writer's error says why the others could not go on.
    packed?;
    let (scan, hashed) = (scanned.map_err(panicked)??, hashed.map_err(panicked)?);
    let mut made = Made {
        blob: out.blob,
        diff_id: tar.unwrap_or(hashed.tar),
        tar: tar.unwrap_or(hashed.tar),
        annotations: BTreeMap::new(),
    };
    let layer = Layer { at: out.at, placed: &out.placed, level };
    match (scan.items, scan.tar_split, format) {
        (Ok(items), None, Format::Estargz) => estargz::finish(&layer, &items, hashed, &mut made)?,
        (Ok(items), Some(split), Format::ZstdChunked) => chunked::finish(&layer, &items, split, &mut made)?,
        (Err(why), ..) => tracing::warn!("an ordinary layer is made, which can't be pulled in part: {why}"),
        (Ok(_), ..) => return Err(io::Error::other("tar-split goes with zstd:chunked")),
    }
    Ok(made)
}

/// The layer's chunks as they were written.
struct Layer<'a> {
    /// Bytes in the blob so far.
    at: u64,
    placed: &'a [Placed],
    level: u32,
}

impl Layer<'_> {
    fn toc(&self, format: Format, items: &[Item], tar_split: Option<Sha256Digest>) -> io::Result<Vec<u8>> {
        toc::toc(format, items, self.placed, tar_split)
    }
}

/// The blob under way.
struct Out {
    blob: OciBlobWriter,
    at: u64,
    placed: Vec<Placed>,
}

/// Compresses the pieces and writes them in order.
fn pack(pieces: Receiver<Arc<Piece>>, out: &mut Out, format: Format, level: u32, workers: usize) -> io::Result<()> {
    let pack = |packer: &mut io::Result<Packer>, piece: Arc<Piece>| {
        let packer = packer.as_mut().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        let contents = piece.bytes.get(..piece.contents).filter(|contents| !contents.is_empty());
        Ok((packer.pack(&piece.bytes)?, contents.map(Sha256Digest::of)))
    };
    pool::in_order(
        workers,
        pieces,
        || Packer::new(format, level),
        pack,
        |(bytes, digest)| {
            out.blob.write_all(&bytes)?;
            let offset = out.at;
            out.at += bytes.len() as u64;
            out.placed.extend(digest.map(|digest| Placed { offset, end: out.at, digest }));
            Ok(())
        },
    )
}

/// Makes members or frames, each of which says nothing but what is in it.
enum Packer {
    Gzip(Compressors),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Packer {
    fn new(format: Format, level: u32) -> io::Result<Self> {
        Ok(match format {
            Format::Estargz => Self::Gzip(Compressors::of_level(level)?),
            Format::ZstdChunked => {
                let mut compressor = zstd::bulk::Compressor::new(level as i32)?;
                compressor.include_checksum(true)?;
                Self::Zstd(compressor)
            }
        })
    }

    fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(compressors) => compressors.member(bytes),
            Self::Zstd(compressor) => compressor.compress(bytes),
        }
    }
}

/// Digests of the uncompressed stream.
struct Hashed {
    /// Of the tar that came in.
    tar: Sha256Digest,
    /// Of what the blob unpacks to so far.
    all: Sha256,
    /// Its bytes.
    size: u64,
}

impl Hashed {
    fn of(pieces: &Receiver<Arc<Piece>>) -> Self {
        let (mut all, mut size, mut tar) = (Sha256::new(), 0, None);
        let digest = |hasher: &Sha256| Sha256Digest::from_bytes(hasher.clone().finalize().into());
        while let Ok(piece) = pieces.recv() {
            if piece.added && tar.is_none() {
                tar = Some(digest(&all));
            }
            all.update(&piece.bytes);
            size += piece.bytes.len() as u64;
        }
        Self { tar: tar.unwrap_or_else(|| digest(&all)), all, size }
    }
}
