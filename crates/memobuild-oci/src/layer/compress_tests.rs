use std::io::{Read as _, Write as _};

use memobuild_store::Store;
use memobuild_tree::{Change, Diff, File, Meta, Mtime, Node, Sha256Digest};

use super::{compress::compress_on, *};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// Text of a few hundred words in no order, the same at every call.
fn text(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 16);
    let mut state = 7_u64;
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 33) % 700;
        write!(out, "{:x} ", word * word * word).unwrap();
        if word < 40 {
            out.extend_from_slice(&state.to_be_bytes());
        }
    }
    out.truncate(length);
    out
}

fn blob(store: &Store, layer: &ExportedLayer) -> Vec<u8> {
    std::fs::read(store.oci_blob_path(&layer.blob.digest).unwrap()).unwrap()
}

/// What is made of those bytes, written in pieces of another size than the blocks'.
fn made(store: &Store, workers: usize, compression: Compression, bytes: &[u8]) -> ExportedLayer {
    compress_on(workers, store, compression, None, |out| {
        bytes.chunks(300_007).try_for_each(|piece| out.write_all(piece)).map_err(LayerError::Write)
    })
    .unwrap()
    .layer
}

#[test]
fn the_number_of_workers_makes_no_difference() {
    let (_keep, store) = store();
    // More than a block of gzip's and a job of zstd's, and not a whole number of either.
    let mut bytes = text(6_500_000);
    // A stretch that nothing can be saved in, across two blocks.
    for (n, part) in bytes[900_000..1_500_000].chunks_exact_mut(32).enumerate() {
        part.copy_from_slice(Sha256Digest::of(&n.to_le_bytes()).as_bytes());
    }
    for compression in [Compression::Gzip { level: 6 }, Compression::Zstd { level: 1 }] {
        let one = made(&store, 1, compression, &bytes);
        for workers in [2, 3, 7] {
            assert_eq!(made(&store, workers, compression, &bytes), one);
        }
        assert_eq!(one.diff_id, Sha256Digest::of(&bytes));
        let mut back = Vec::new();
        match compression {
            Compression::Zstd { .. } => back = zstd::decode_all(&*blob(&store, &one)).unwrap(),
            _ => drop(flate2::read::MultiGzDecoder::new(&*blob(&store, &one)).read_to_end(&mut back).unwrap()),
        }
        assert!(back == bytes);
    }
}

#[test]
fn nothing_is_a_stream_too() {
    let (_keep, store) = store();
    let gzip = made(&store, 2, Compression::Gzip { level: 6 }, b"");
    assert_eq!(gzip.diff_id, Sha256Digest::of(b""));
    let mut back = Vec::new();
    flate2::read::MultiGzDecoder::new(&*blob(&store, &gzip)).read_to_end(&mut back).unwrap();
    assert!(back.is_empty() && gzip.blob.size > 0);
}

#[test]
fn a_failing_producer_leaves_no_blob() {
    let (_keep, store) = store();
    for compression in [Compression::None, Compression::Gzip { level: 1 }, Compression::Zstd { level: 1 }] {
        let failed = compress_on(2, &store, compression, None, |out| {
            out.write_all(&text(3_000_000)).map_err(LayerError::Write)?;
            Err(LayerError::Read(std::io::Error::other("gone")))
        });
        assert!(matches!(failed, Err(LayerError::Read(_))), "{failed:?}");
    }
    let blobs = std::fs::read_dir(store.dir().join("oci/sha256")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0);
}

#[test]
fn levels_mean_what_they_mean_to_gzip() {
    let (_keep, store) = store();
    let bytes = text(2_000_000);
    let mut last = u64::from(u32::MAX);
    for level in 0..=9 {
        let ours = made(&store, 2, Compression::Gzip { level }, &bytes).blob.size;
        // Neighbours may be as good as each other.
        assert!(ours * 100 <= last * 101, "level {level}: {ours} bytes after {last}");
        last = ours;
        let mut zlib = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        zlib.write_all(&bytes).unwrap();
        let zlib = zlib.finish().unwrap().len() as u64;
        assert!(ours * 100 <= zlib * 103, "level {level}: {ours} bytes, zlib {zlib}");
    }
}

#[test]
fn a_known_diff_id_changes_nothing() {
    let mut layers = Vec::new();
    for named_before in [false, true] {
        let (_keep, store) = store();
        let writer = store.bundle_writer();
        let mut diff = Diff::default();
        for (name, length) in [("/large", 3_000_000), ("/small", 300)] {
            let meta = Meta::new(0o644, Mtime::pinned(5, 0));
            let content = writer.add_bytes(&text(length)).unwrap();
            diff.set(name.as_bytes(), Change::Put(Node::File(File { meta, size: length as u64, content, link: None })));
        }
        let bundle = writer.finish(&diff).unwrap();
        let before = named_before.then(|| layer_diff_id(&store, &bundle, TimestampPolicy::Keep).unwrap());
        let layer = export_layer(&store, &bundle, Compression::None, TimestampPolicy::Keep).unwrap();
        // A plain tar is its own diff.
        assert_eq!(layer.diff_id, layer.blob.digest);
        assert_eq!(before.unwrap_or(layer.diff_id), layer.diff_id);
        // Other times make another tar, whose diff ID is not the one that is known.
        let other = export_layer(&store, &bundle, Compression::None, TimestampPolicy::Set(1)).unwrap();
        assert_eq!(other.diff_id, other.blob.digest);
        assert_ne!(other.diff_id, layer.diff_id);
        layers.push((bundle, layer));
    }
    assert_eq!(layers[0], layers[1]);
}
