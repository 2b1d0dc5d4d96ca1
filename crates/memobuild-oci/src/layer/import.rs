//! A layer's blob to a bundle, in one streaming pass.
//!
//! Three threads: one reads, hashes and unpacks the blob; one hashes the tar; the caller's takes the tar apart and
//! gives the files to the store. Memory is a few chunks and the diff itself, whatever the size of the layer.

use std::{
    io::{self, Read, Write},
    sync::{Arc, mpsc::Receiver},
    thread,
};

use memobuild_store::{BundleWriter, LARGE_FILE, OciBlobWriter, Store, StoreError};
use memobuild_tree::{BundleId, Diff, Sha256Digest};
use sha2::{Digest as _, Sha256};

use super::{
    LayerError,
    build::{Builder, Rules},
    decompress::{Packing, Sniffed},
    pipe::{Chunk, ChunkReader, Chunks},
    tar::{EntryKind, TarReader},
};

/// What a layer was announced to be; what is `None` is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Option<Sha256Digest>,
    /// SHA-256 and size in bytes of the blob.
    pub blob: Option<(Sha256Digest, u64)>,
}

/// A layer that is now in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLayer {
    /// Its files.
    pub bundle: BundleId,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Sha256Digest,
    /// SHA-256 and size in bytes of the blob as it was read: known where it was checked or kept.
    pub blob: Option<(Sha256Digest, u64)>,
    /// OCI media type, by what the bytes are.
    pub media_type: &'static str,
}

/// Reads a layer (gzip, zstd or plain, told by content) into the store. With `keep_blob` the bytes as they are read are
/// kept as an OCI blob, so that the layer can be passed on unchanged.
///
/// Nothing is left in the store under a final name if it fails. Where the bytes are not those that were announced, that
/// is the error, whatever else they lead to.
pub fn import_layer(
    reader: impl Read + Send,
    expected: &Expected,
    keep_blob: bool,
    store: &Store,
) -> Result<ImportedLayer, LayerError> {
    let writer = store.bundle_writer();
    let keep = keep_blob.then(|| store.oci_blob_writer()).transpose()?;
    let rules = Rules { whiteouts: true, ..Rules::default() };
    let done = read_archive(reader, expected.blob, keep, rules, &writer)?;
    if let Some(expected) = expected.diff_id.filter(|d| *d != done.diff_id) {
        return Err(LayerError::DigestMismatch { what: "diff ID", expected, actual: done.diff_id });
    }
    let media_type = done.packing.media_type().ok_or(LayerError::Invalid {
        what: "a layer is gzip, zstd or plain tar, not bzip2 or xz",
        offset: 0,
        entry: None,
    })?;
    let bundle = writer.finish(&done.diff)?;
    Ok(ImportedLayer { bundle, diff_id: done.diff_id, blob: done.blob, media_type })
}

/// What [`read_archive`] found.
pub(super) struct ReadArchive {
    pub(super) diff: Diff,
    pub(super) diff_id: Sha256Digest,
    pub(super) blob: Option<(Sha256Digest, u64)>,
    /// Bytes read.
    pub(super) read: u64,
    pub(super) packing: Packing,
}

/// The pipeline itself: bytes to a diff whose contents are in `writer`.
pub(super) fn read_archive(
    reader: impl Read + Send,
    expected: Option<(Sha256Digest, u64)>,
    keep: Option<OciBlobWriter>,
    rules: Rules<'_>,
    writer: &BundleWriter,
) -> Result<ReadArchive, LayerError> {
    let (chunks, mut ends) = Chunks::new(2);
    let (Some(to_hash), Some(to_parse)) = (ends.pop(), ends.pop()) else {
        return Err(LayerError::Read(io::Error::other("no pipe")));
    };
    // A blob that is kept is hashed by the store.
    let hasher = (keep.is_none() && expected.is_some()).then(Sha256::new);
    let mut source = Source { reader, hasher, count: 0, limit: expected.map(|(_, size)| size), keep };
    let (unpacked, diff_id, parsed) = thread::scope(|scope| {
        let hash = scope.spawn(move || hash(to_hash));
        let unpack = scope.spawn(|| unpack(&mut source, chunks, expected.is_some()));
        let parsed = parse(ChunkReader::new(to_parse), rules, writer);
        (join(unpack), join(hash), parsed)
    });
    let (packing, complete) = unpacked??;
    let read = source.count;
    if let Some((_, expected)) = expected.filter(|(_, size)| complete && *size != read) {
        return Err(LayerError::SizeMismatch { expected, actual: read });
    }
    if let (Some(expected), Some(hasher), true) = (expected, source.hasher, complete) {
        let actual = Sha256Digest::from_bytes(hasher.finalize().into());
        if actual != expected.0 {
            return Err(LayerError::DigestMismatch { what: "digest", expected: expected.0, actual });
        }
    }
    let sound = packing.is_ok() && parsed.is_ok();
    let mut blob = expected;
    if let (Some(keep), true) = (source.keep, complete && (sound || expected.is_some())) {
        // What was announced is kept, and a wrong digest found out, even where the archive in it is of no use.
        blob = Some(keep.finish(expected.map(|(digest, _)| digest)).map_err(|e| match e {
            StoreError::DigestMismatch { expected, actual, .. } => {
                LayerError::DigestMismatch { what: "digest", expected, actual }
            }
            other => other.into(),
        })?);
    }
    let (packing, diff) = (packing?, parsed?);
    Ok(ReadArchive { diff, diff_id: diff_id?, blob, read, packing })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> Result<T, LayerError> {
    handle.join().map_err(|_| LayerError::Read(io::Error::other("a worker thread panicked")))
}

fn hash(from: Receiver<Arc<Chunk>>) -> Sha256Digest {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = from.recv() {
        hasher.update(&**chunk);
    }
    Sha256Digest::from_bytes(hasher.finalize().into())
}

/// How the source was packed or why it can't be unpacked, and whether it was read to its end, without which its digest
/// says nothing. The outer error is the source's own.
type Unpacked = Result<(Result<Packing, LayerError>, bool), LayerError>;

/// Unpacks the source into the pipe.
fn unpack<R: Read>(source: &mut Source<R>, chunks: Chunks, check: bool) -> Unpacked {
    let mut sniffed = Sniffed::new(&mut *source).map_err(LayerError::Read)?;
    let packing = sniffed.packing;
    let pumped = sniffed.unpack(|stream| chunks.pump(stream));
    drop(chunks);
    let unpacked = match pumped {
        Ok(Ok(())) => Ok(packing),
        // The parser has gone with an error of its own, which is what counts.
        Ok(Err(_)) => Ok(packing),
        Err(e) => Err(LayerError::Read(e)),
    };
    // With a digest to check, the rest is read even after an error: a wrong blob is to be called that.
    let complete = if check || unpacked.is_ok() { sniffed.drain().is_ok() } else { false };
    Ok((unpacked, complete))
}

/// The blob on its way in: hashed, counted, kept.
struct Source<R> {
    reader: R,
    hasher: Option<Sha256>,
    count: u64,
    limit: Option<u64>,
    keep: Option<OciBlobWriter>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // One byte over the announced size settles the matter; a source without end must not be read for ever.
        if self.limit.is_some_and(|limit| self.count > limit) {
            return Ok(0);
        }
        let count = self.reader.read(out)?;
        let bytes = out.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.count += count as u64;
        if let Some(keep) = &mut self.keep {
            keep.write_all(bytes)?;
        }
        Ok(count)
    }
}

/// Takes the tar apart.
fn parse(stream: ChunkReader, rules: Rules<'_>, writer: &BundleWriter) -> Result<Diff, LayerError> {
    let mut tar = TarReader::new(stream);
    let mut builder = Builder::new(rules);
    let mut small = Vec::new();
    while let Some(entry) = tar.next()? {
        let content = if entry.kind != EntryKind::File {
            None
        } else if entry.size <= LARGE_FILE {
            small.clear();
            let read = (&mut tar).take(entry.size).read_to_end(&mut small).map_err(|e| data_error(e, entry.offset))?;
            if read as u64 != entry.size {
                return Err(LayerError::Truncated { offset: entry.offset });
            }
            Some(writer.add_bytes(&small)?)
        } else {
            let mut data = Data { tar: &mut tar, failed: None };
            let added = writer.add_reader(&mut data, entry.size);
            if let Some(e) = data.failed {
                return Err(data_error(e, entry.offset));
            }
            let (content, size) = added?;
            if size != entry.size {
                return Err(LayerError::Truncated { offset: entry.offset });
            }
            Some(content)
        };
        builder.add(&entry, content)?;
    }
    let diff = builder.finish();
    // Padding behind the end mark belongs to the diff ID.
    tar.into_inner().drain();
    diff
}

fn data_error(e: io::Error, offset: u64) -> LayerError {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::Truncated { offset },
        _ => LayerError::Read(e),
    }
}

/// Remembers the archive's own error, which the store would report as one of its writing.
struct Data<'a, R> {
    tar: &'a mut TarReader<R>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.tar.read(out).map_err(|e| {
            let copy = io::Error::new(e.kind(), e.to_string());
            self.failed = Some(e);
            copy
        })
    }
}

/// For a fuzz target and tests: any bytes as an uncompressed layer, contents thrown away.
#[doc(hidden)]
pub fn parse_only(bytes: &[u8]) -> Result<Diff, LayerError> {
    let mut tar = TarReader::new(bytes);
    let mut builder = Builder::new(Rules { whiteouts: true, ..Rules::default() });
    while let Some(entry) = tar.next()? {
        let content = match entry.kind {
            EntryKind::File => {
                let mut data = Vec::new();
                (&mut tar).take(1 << 20).read_to_end(&mut data).map_err(|e| data_error(e, entry.offset))?;
                Some(memobuild_tree::ContentDigest::of(&data))
            }
            _ => None,
        };
        builder.add(&entry, content)?;
    }
    builder.finish()
}
