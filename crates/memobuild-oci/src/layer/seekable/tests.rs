//! Blobs read back by the two specifications alone, with nothing of what wrote them.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memobuild_store::Store;
use memobuild_tree::{BundleId, Change, Diff, File, Meta, Mtime, Node, Sha256Digest};
use proptest::prelude::*;
use serde_json::Value;

use super::{
    super::{
        compress::{Compressed, compress_on},
        tar::{Entry, EntryKind, Header, HeaderKind, TarReader, TarWriter},
        tests::{build, fix_checksum, name, part, sayable, store, tar},
        *,
    },
    rolling::CHUNK,
};

const ESTARGZ: Compression = Compression::Estargz { level: 6 };
const CHUNKED: Compression = Compression::ZstdChunked { level: 3 };
const KEEP: TimestampPolicy = TimestampPolicy::Keep;

fn blob(store: &Store, layer: &ExportedLayer) -> Vec<u8> {
    std::fs::read(store.oci_blob_path(&layer.blob.digest).unwrap()).unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// Bytes from the start of a gzip member, of which there must be enough.
fn gunzip_some(bytes: &[u8], length: u64) -> Vec<u8> {
    let mut out = vec![0; length as usize];
    flate2::read::MultiGzDecoder::new(bytes).read_exact(&mut out).unwrap();
    out
}

fn unzstd(bytes: &[u8]) -> Vec<u8> {
    zstd::decode_all(bytes).unwrap()
}

fn number(entry: &Value, key: &str) -> u64 {
    entry.get(key).map_or(0, |value| value.as_u64().unwrap())
}

fn text<'v>(entry: &'v Value, key: &str) -> &'v str {
    entry.get(key).map_or("", |value| value.as_str().unwrap())
}

/// All entries of a tar, with their contents.
fn entries(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = TarReader::new(tar);
    let mut out = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut contents = Vec::new();
        reader.read_to_end(&mut contents).unwrap();
        out.push((entry, contents));
    }
    out
}

/// Compares what a table says of an entry with the entry.
fn same(said: &Value, entry: &Entry, contents: &[u8]) {
    let (kind, link) = match &entry.kind {
        EntryKind::File => ("reg", &b""[..]),
        EntryKind::Link(target) => ("hardlink", target.as_slice()),
        EntryKind::Symlink(target) => ("symlink", target.as_slice()),
        EntryKind::Char => ("char", &b""[..]),
        EntryKind::Block => ("block", &b""[..]),
        EntryKind::Dir => ("dir", &b""[..]),
        EntryKind::Fifo => ("fifo", &b""[..]),
    };
    assert_eq!((text(said, "type"), text(said, "linkName").as_bytes()), (kind, link));
    assert_eq!(text(said, "name").as_bytes(), entry.path);
    assert_eq!(number(said, "size"), contents.len() as u64);
    let owner = (number(said, "mode"), number(said, "uid"), number(said, "gid"));
    assert_eq!(owner, (entry.mode.into(), entry.uid.into(), entry.gid.into()));
    let device = (number(said, "devMajor"), number(said, "devMinor"));
    assert_eq!(device, (entry.rdev.0.into(), entry.rdev.1.into()));
    assert_eq!(memobuild_image::time::parse_rfc3339(text(said, "modtime")), Some(entry.mtime));
    let xattrs = said.get("xattrs").and_then(Value::as_object);
    assert_eq!(xattrs.map_or(0, serde_json::Map::len), entry.xattrs.len());
    for (name, value) in &entry.xattrs {
        let said = xattrs.unwrap()[std::str::from_utf8(name).unwrap()].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(said).unwrap(), *value);
    }
}

/// The table's entries, each with the further chunks of it.
fn grouped(toc: &Value) -> Vec<Vec<&Value>> {
    assert_eq!(toc["version"], 1);
    let mut out: Vec<Vec<&Value>> = Vec::new();
    for entry in toc["entries"].as_array().unwrap() {
        match text(entry, "type") {
            "chunk" => out.last_mut().unwrap().push(entry),
            _ => out.push(vec![entry]),
        }
    }
    out
}

/// Reads an eStargz blob as `docs/estargz.md` says, and compares it with the plain tar.
fn check_estargz(blob: &[u8], layer: &ExportedLayer, plain: &[u8]) {
    let all = gunzip(blob);
    assert_eq!(layer.diff_id, Sha256Digest::of(&all));
    assert_eq!(layer.blob.annotations["io.containers.estargz.uncompressed-size"], all.len().to_string());
    // Who knows nothing of eStargz unpacks the plain tar; what is added stands behind its end mark.
    let added = all.strip_prefix(plain).unwrap();
    let footer = &blob[blob.len() - 51..];
    assert_eq!(&footer[..16], b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
    assert_eq!(&footer[32..38], b"STARGZ");
    let offset = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap();
    let [(entry, toc)] = entries(&gunzip(&blob[offset..])).try_into().unwrap();
    assert_eq!(entry.path, b"stargz.index.json");
    assert_eq!(layer.blob.annotations["containerd.io/snapshot/stargz/toc.digest"], Sha256Digest::of(&toc).to_string());
    assert_eq!(layer.blob.annotations.len(), 2);
    let toc: Value = serde_json::from_slice(&toc).unwrap();
    let groups = grouped(&toc);
    let (landmark, rest) = entries(added).into_iter().next().map(|first| (first, entries(added).len())).unwrap();
    // The landmark, and the table itself.
    assert_eq!(
        (landmark.0.path.as_slice(), landmark.1.as_slice(), rest),
        (&b".no.prefetch.landmark"[..], &[0xf][..], 2)
    );
    let mut want = entries(plain);
    want.push(landmark);
    assert_eq!(groups.len(), want.len());
    for (group, (entry, contents)) in groups.iter().zip(&want) {
        same(group[0], entry, contents);
        if entry.kind == EntryKind::File {
            assert_eq!(text(group[0], "digest"), Sha256Digest::of(contents).to_string());
        }
        let mut back = Vec::new();
        for (index, chunk) in group.iter().enumerate().filter(|_| !contents.is_empty()) {
            let last = index + 1 == group.len();
            assert_eq!(number(chunk, "chunkOffset"), back.len() as u64);
            assert_eq!(number(chunk, "chunkSize") == 0, last);
            let size = if last { contents.len() - back.len() } else { number(chunk, "chunkSize") as usize };
            assert!(size <= CHUNK);
            let bytes = gunzip_some(&blob[number(chunk, "offset") as usize..], size as u64);
            assert_eq!(text(chunk, "chunkDigest"), Sha256Digest::of(&bytes).to_string());
            back.extend(bytes);
        }
        assert!(back == *contents);
    }
}

/// Reads a zstd:chunked blob as containers/storage does, and compares it with the plain tar.
fn check_chunked(blob: &[u8], layer: &ExportedLayer, plain: &[u8]) {
    assert!(unzstd(blob) == plain);
    assert_eq!(layer.diff_id, Sha256Digest::of(plain));
    let annotation = |key: &str| &layer.blob.annotations[&format!("io.github.containers.zstd-chunked.{key}")];
    let numbers = |key: &str| -> Vec<u64> { annotation(key).split(':').map(|n| n.parse().unwrap()).collect() };
    let (manifest, split) = (numbers("manifest-position"), numbers("tarsplit-position"));
    let footer = &blob[blob.len() - 64..];
    let in_footer: Vec<u64> = footer.as_chunks::<8>().0.iter().map(|n| u64::from_le_bytes(*n)).collect();
    assert_eq!(in_footer[..7], [manifest.as_slice(), &split].concat());
    assert_eq!(&footer[56..], b"GNUlInUx");
    let frame = |at: u64, length: u64| {
        let frame = &blob[at as usize - 8..(at + length) as usize];
        assert_eq!(frame[..8], [[0x50, 0x2a, 0x4d, 0x18], (length as u32).to_le_bytes()].concat());
        &frame[8..]
    };
    let packed = frame(manifest[0], manifest[1]);
    assert_eq!(*annotation("manifest-checksum"), Sha256Digest::of(packed).to_string());
    let toc = unzstd(packed);
    assert_eq!((toc.len() as u64, manifest[3]), (manifest[2], 1));
    let toc: Value = serde_json::from_slice(&toc).unwrap();
    let packed = frame(split[0], split[1]);
    assert_eq!(text(&toc, "tarSplitDigest"), Sha256Digest::of(packed).to_string());
    assert_eq!(text(&toc, "tarSplitDigest"), annotation("tarsplit-checksum"));
    let lines = unzstd(packed);
    assert_eq!(lines.len() as u64, split[2]);
    let (groups, want) = (grouped(&toc), entries(plain));
    assert_eq!(groups.len(), want.len());
    for (group, (entry, contents)) in groups.iter().zip(&want) {
        same(group[0], entry, contents);
        let digest = Sha256Digest::of(contents).to_string();
        assert_eq!(text(group[0], "digest"), if contents.is_empty() { "" } else { &digest });
        let end = number(group[0], "endOffset") as usize;
        let mut back = Vec::new();
        for (index, chunk) in group.iter().enumerate().filter(|_| !contents.is_empty()) {
            let next = group.get(index + 1).map_or(end, |next| number(next, "offset") as usize);
            let bytes = unzstd(&blob[number(chunk, "offset") as usize..next]);
            if group.len() > 1 {
                let place = (number(chunk, "chunkOffset"), number(chunk, "chunkSize"));
                assert_eq!(place, (back.len() as u64, bytes.len() as u64));
                assert_eq!(text(chunk, "chunkDigest"), Sha256Digest::of(&bytes).to_string());
                assert_eq!(text(chunk, "chunkType") == "zeros", bytes.iter().all(|b| *b == 0));
            }
            back.extend(bytes);
        }
        assert!(back == *contents);
    }
    // Its lines and the contents are the tar again.
    let mut contents = want.iter();
    let mut back = Vec::new();
    for (position, line) in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let line: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(number(&line, "position"), position as u64);
        if number(&line, "type") == 2 {
            back.extend(BASE64_STANDARD.decode(text(&line, "payload")).unwrap());
            continue;
        }
        let (entry, bytes) = contents.next().unwrap();
        assert_eq!(
            (text(&line, "name").as_bytes(), number(&line, "size")),
            (entry.path.as_slice(), bytes.len() as u64)
        );
        assert_eq!(line["payload"].is_null(), bytes.is_empty());
        back.extend_from_slice(bytes);
    }
    assert!(back == plain);
}

/// Neither text nor noise alone, with a hole; the same at every call.
fn contents(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    let mut state = 3_u64;
    while out.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match out.len() % 300_000 {
            0..100_000 => write!(out, "{:x} ", (state >> 40) % 1000).unwrap(),
            100_000..110_000 => out.extend_from_slice(&[0; 64]),
            _ => out.extend_from_slice(&state.to_be_bytes()),
        }
    }
    out.truncate(length);
    out
}

fn file(name: &[u8], bytes: &[u8], diff: &mut Diff, writer: &memobuild_store::BundleWriter) {
    let content = writer.add_reader(&mut &*bytes, bytes.len() as u64).unwrap().0;
    let meta = Meta::new(0o644, Mtime::pinned(5, 0));
    diff.set(name, Change::Put(Node::File(File { meta, size: bytes.len() as u64, content, link: None })));
}

/// A layer with files over, at and around the size of a chunk.
fn large(store: &Store) -> (BundleId, Vec<u8>) {
    let writer = store.bundle_writer();
    let mut diff = Diff::default();
    let bytes = contents(2 * CHUNK + 70_001);
    file(b"/a/two-and-more", &bytes, &mut diff, &writer);
    file(b"/a/whole", &bytes[..CHUNK], &mut diff, &writer);
    file(b"/a/one-more", &bytes[..CHUNK + 1], &mut diff, &writer);
    file(b"/b/empty", b"", &mut diff, &writer);
    file(b"/b/one", b"1", &mut diff, &writer);
    file(b"/zeros", &[0; 5000], &mut diff, &writer);
    let bundle = writer.finish(&diff).unwrap();
    let mut tar = Vec::new();
    write_layer(&diff, store, KEEP, &mut tar).unwrap();
    (bundle, tar)
}

#[test]
fn files_of_all_sizes_are_found_by_their_tables() {
    let (_keep, store) = store();
    let (bundle, tar) = large(&store);
    let estargz = export_layer(&store, &bundle, ESTARGZ, KEEP).unwrap();
    check_estargz(&blob(&store, &estargz), &estargz, &tar);
    // eStargz comes first, and what is kept of it for the others is the digest of the tar alone.
    assert_eq!(layer_diff_id(&store, &bundle, KEEP).unwrap(), Sha256Digest::of(&tar));
    let chunked = export_layer(&store, &bundle, CHUNKED, KEEP).unwrap();
    check_chunked(&blob(&store, &chunked), &chunked, &tar);
    // Kept records have the annotations too.
    assert_eq!(export_layer(&store, &bundle, ESTARGZ, KEEP).unwrap(), estargz);
    assert_eq!(export_layer(&store, &bundle, CHUNKED, KEEP).unwrap(), chunked);
    // A known diff ID changes nothing.
    let (_keep, other) = super::super::tests::store();
    let (same, _) = large(&other);
    layer_diff_id(&other, &same, KEEP).unwrap();
    assert_eq!(export_layer(&other, &same, ESTARGZ, KEEP).unwrap(), estargz);
    assert_eq!(export_layer(&other, &same, CHUNKED, KEEP).unwrap(), chunked);
    let plain = export_layer(&store, &bundle, Compression::default(), KEEP).unwrap();
    assert!(ESTARGZ.is_that_of(&estargz.blob) && !ESTARGZ.is_that_of(&plain.blob));
    assert_eq!((ESTARGZ.shortfall(&estargz.blob), Compression::default().shortfall(&plain.blob)), (None, None));
    assert!(Compression::default().is_that_of(&plain.blob) && !CHUNKED.is_that_of(&estargz.blob));
}

fn made(store: &Store, workers: usize, compression: Compression, tar: &[u8]) -> Compressed {
    compress_on(workers, store, compression, None, |out| {
        tar.chunks(300_007).try_for_each(|piece| out.write_all(piece)).map_err(LayerError::Write)
    })
    .unwrap()
}

#[test]
fn the_number_of_workers_makes_no_difference() {
    let (_keep, store) = store();
    let (_, tar) = large(&store);
    for compression in [ESTARGZ, CHUNKED] {
        let one = made(&store, 1, compression, &tar);
        for workers in [2, 3, 7] {
            assert_eq!(made(&store, workers, compression, &tar), one);
        }
        assert_eq!(one.tar, Sha256Digest::of(&tar));
    }
}

#[test]
fn other_compressions_of_a_layer_and_back() {
    let (_keep, store) = store();
    let (bundle, tar) = large(&store);
    let plain = export_layer(&store, &bundle, Compression::default(), KEEP).unwrap();
    let estargz = recompress_layer(&store, &plain.blob.digest, ESTARGZ).unwrap();
    check_estargz(&blob(&store, &estargz), &estargz, &tar);
    let again = recompress_layer(&store, &estargz.blob.digest, Compression::Estargz { level: 1 }).unwrap();
    // The old table is left out, and the new one is of the same files.
    check_estargz(&blob(&store, &again), &again, &tar);
    let chunked = recompress_layer(&store, &plain.blob.digest, CHUNKED).unwrap();
    check_chunked(&blob(&store, &chunked), &chunked, &tar);
    let gzip = recompress_layer(&store, &estargz.blob.digest, Compression::Gzip { level: 1 }).unwrap();
    assert_eq!(gzip.diff_id, estargz.diff_id);
    for layer in [&estargz, &chunked] {
        let file = std::fs::File::open(store.oci_blob_path(&layer.blob.digest).unwrap()).unwrap();
        let expected = Expected { diff_id: Some(layer.diff_id), blob: Some((layer.blob.digest, layer.blob.size)) };
        assert_eq!(import_layer(file, &expected, false, &store).unwrap().bundle, bundle);
    }
}

#[test]
fn what_no_table_can_tell_becomes_an_ordinary_layer() {
    use HeaderKind::{File as F, Link as H};
    let mut global = tar(&[("a", F, ""), ("b", F, "text")]);
    global[156] = b'g';
    fix_checksum(&mut global);
    let strange = |name: &[u8], mtime: i64| {
        let mut out = TarWriter::new(Vec::new());
        out.file(&Header { mtime, ..Header::new(name, F, 0) }, b"text").unwrap();
        out.finish().unwrap()
    };
    let good = tar(&[("a", F, "text"), ("b", F, &"x".repeat(3000))]);
    for bytes in [
        tar(&[("a", F, "text"), ("./a", F, "other")]),
        tar(&[("a", F, "text"), ("b", H, "low")]),
        global,
        strange(b"n\xff", 0),
        strange(b"n", 1 << 40),
        good[..2000].to_vec(),
        b"no tar at all".repeat(100),
        [&tar(&[("a", F, "")])[..512], &[7; 512]].concat(),
    ] {
        let (_keep, store) = store();
        for (compression, unpack) in [(ESTARGZ, gunzip as fn(&[u8]) -> Vec<u8>), (CHUNKED, unzstd)] {
            let made = made(&store, 2, compression, &bytes);
            assert!(made.layer.blob.annotations.is_empty());
            assert!(compression.shortfall(&made.layer.blob).is_some_and(|why| why.contains("can't list")));
            assert!(unpack(&blob(&store, &made.layer)) == bytes);
            assert_eq!((made.layer.diff_id, made.tar), (Sha256Digest::of(&bytes), Sha256Digest::of(&bytes)));
        }
    }
    let (_keep, store) = store();
    let named = tar(&[("stargz.index.json", F, "mine")]);
    assert!(made(&store, 2, ESTARGZ, &named).layer.blob.annotations.is_empty());
    let layer = made(&store, 2, CHUNKED, &named).layer;
    check_chunked(&blob(&store, &layer), &layer, &named);
}

#[test]
fn a_failing_producer_leaves_no_blob() {
    let (_keep, store) = store();
    for compression in [ESTARGZ, CHUNKED] {
        let failed = compress_on(2, &store, compression, None, |out| {
            out.write_all(&contents(6_000_000)).map_err(LayerError::Write)?;
            Err(LayerError::Read(std::io::Error::other("gone")))
        });
        assert!(matches!(failed, Err(LayerError::Read(_))), "{failed:?}");
    }
    let blobs = std::fs::read_dir(store.dir().join("oci/sha256")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0);
}

/// Whether all texts in it are UTF-8.
fn tellable(tar: &[u8]) -> bool {
    let utf8 = |text: &[u8]| std::str::from_utf8(text).is_ok();
    entries(tar).iter().all(|(entry, _)| {
        utf8(&entry.path) && !matches!(&entry.kind, EntryKind::Symlink(t) | EntryKind::Link(t) if !utf8(t))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn all_that_a_layer_can_hold_is_told(parts in prop::collection::vec((name(), part()), 0..5)) {
        let (_keep, store) = store();
        let writer = store.bundle_writer();
        let mut diff = Diff { root: build(&parts, b"", &writer) };
        sayable(&mut diff);
        let bundle = writer.finish(&diff).unwrap();
        // No times that no table can say.
        let policy = TimestampPolicy::Clamp(1_000_000_000);
        let mut tar = Vec::new();
        write_layer(&diff, &store, policy, &mut tar).unwrap();
        for compression in [ESTARGZ, CHUNKED] {
            let layer = export_layer(&store, &bundle, compression, policy).unwrap();
            prop_assert_eq!(layer_diff_id(&store, &bundle, policy).unwrap(), Sha256Digest::of(&tar));
            let bytes = blob(&store, &layer);
            match (tellable(&tar), compression) {
                (true, Compression::Estargz { .. }) => check_estargz(&bytes, &layer, &tar),
                (true, _) => check_chunked(&bytes, &layer, &tar),
                (false, _) => {
                    prop_assert!(layer.blob.annotations.is_empty());
                    prop_assert_eq!(layer.diff_id, Sha256Digest::of(&tar));
                }
            }
            let file = std::fs::File::open(store.oci_blob_path(&layer.blob.digest).unwrap()).unwrap();
            let expected = Expected { diff_id: Some(layer.diff_id), blob: Some((layer.blob.digest, layer.blob.size)) };
            prop_assert!(import_layer(file, &expected, false, &store).is_ok());
        }
    }

    #[test]
    fn any_bytes_pass_through(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..4000, byte in any::<u8>()) {
        let mut damaged = tar(&[("a/b", HeaderKind::File, "text"), ("l", HeaderKind::Symlink, "a"), ("c", HeaderKind::Link, "a/b")]);
        let at = at % damaged.len();
        damaged[at] = byte;
        fix_checksum(&mut damaged[at / 512 * 512..]);
        let (_keep, store) = store();
        for bytes in [bytes, damaged] {
            let layer = made(&store, 2, CHUNKED, &bytes).layer;
            prop_assert!(unzstd(&blob(&store, &layer)) == bytes);
            let layer = made(&store, 2, ESTARGZ, &bytes).layer;
            let unpacked = gunzip(&blob(&store, &layer));
            prop_assert_eq!(layer.diff_id, Sha256Digest::of(&unpacked));
        }
    }
}
