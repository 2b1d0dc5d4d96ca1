use std::{io::Write as _, process::Command, sync::Arc};

use memobuild_store::{BundleWriter, Store};
use memobuild_tree::{
    Change, ContentDigest, Diff, DirChange, File, LinkId, Meta, Mtime, Node, Sha256Digest, Special, SpecialKind,
    Symlink,
};
use proptest::prelude::*;

use super::{
    tar::{Header, HeaderKind, TarWriter},
    *,
};

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// An archive of `(name, kind, link or contents)`.
pub(super) fn tar(entries: &[(&str, HeaderKind, &str)]) -> Vec<u8> {
    let mut out = TarWriter::new(Vec::new());
    for (name, kind, text) in entries {
        let header = Header { mtime: 7, ..Header::new(name.as_bytes(), *kind, 0o644) };
        match kind {
            HeaderKind::File => out.file(&header, text.as_bytes()).unwrap(),
            _ => out.header(&Header { link: text.as_bytes(), ..header }).unwrap(),
        }
    }
    out.finish().unwrap()
}

/// One line for each change.
fn show(diff: &Diff) -> Vec<String> {
    let mut out = Vec::new();
    diff.walk(&mut |at, change| {
        let at = String::from_utf8_lossy(at);
        out.push(match change {
            Change::Remove => format!("- {at}"),
            Change::LinkTo(target) => format!("{at} => {}", String::from_utf8_lossy(target)),
            Change::Dir(dir) => {
                format!(
                    "{at}/{}{}",
                    if dir.meta.is_some() { "" } else { " way" },
                    if dir.opaque { " opaque" } else { "" }
                )
            }
            Change::Put(Node::Symlink(link)) => format!("{at} -> {}", String::from_utf8_lossy(&link.target)),
            Change::Put(Node::File(file)) => {
                format!("{at} {}{}", file.size, if file.link.is_some() { " linked" } else { "" })
            }
            Change::Put(_) => format!("{at} special"),
        });
    });
    out
}

fn parsed(entries: &[(&str, HeaderKind, &str)]) -> Vec<String> {
    match parse_only(&tar(entries)) {
        Ok(diff) => show(&diff),
        Err(e) => vec![e.to_string()],
    }
}

use HeaderKind::{Dir as D, File as F, Link as H, Symlink as S};

#[test]
fn names_never_leave_the_root() {
    assert_eq!(
        parsed(&[("../../a", F, "1"), ("/b/../../c", F, ""), ("./d", F, ""), ("./", D, ""), ("/", D, "")]),
        ["/a 1", "/c 0", "/d 0"]
    );
}

#[test]
fn parents_that_are_links_are_followed_within_the_root() {
    assert_eq!(
        parsed(&[("l", S, "/real"), ("l/f", F, "1"), ("m", S, "../../x/../l"), ("m/g", F, "")]),
        ["/l -> /real", "/m -> ../../x/../l", "/real/ way", "/real/f 1", "/real/g 0"]
    );
    assert_eq!(
        parsed(&[("a", S, "b"), ("b", S, "a"), ("a/f", F, "")]),
        ["invalid archive: too many levels of symbolic links (in the entry at byte 1024, a/f)"]
    );
    assert_eq!(
        parsed(&[("f", F, ""), ("f/g", F, "")]),
        ["invalid archive: parent is not a directory (in the entry at byte 512, f/g)"]
    );
}

#[test]
fn the_last_entry_wins() {
    assert_eq!(
        parsed(&[("a", F, "1"), ("a", S, "t"), ("d/x", F, ""), ("d", D, ""), ("e/x", F, ""), ("e", F, "22")]),
        ["/a -> t", "/d/", "/d/x 0", "/e 2"]
    );
    assert_eq!(parsed(&[("a", F, "1"), ("a", D, ""), ("a/b", F, "")]), ["/a/ opaque", "/a/b 0"]);
}

#[test]
fn whiteouts() {
    assert_eq!(
        parsed(&[(".wh.gone", F, ""), ("d/.wh.x", F, ""), ("d/.wh..wh..opq", F, ""), ("d/y", F, "")]),
        ["/d/ way opaque", "- /d/x", "/d/y 0", "- /gone"]
    );
    assert_eq!(parsed(&[("d/a", F, ""), (".wh.d", F, ""), ("d/b", F, "")]), ["/d/ opaque", "/d/b 0"]);
    assert_eq!(parsed(&[(".wh..wh.aufs", F, ""), (".wh..wh.plnk", D, "")]), Vec::<String>::new());
    for bad in [".wh.", ".wh..", ".wh..."] {
        assert!(parsed(&[(bad, F, "")])[0].contains("whiteout of no name"), "{bad}");
    }
}

#[test]
fn hard_links() {
    assert_eq!(
        parsed(&[("a", F, "1"), ("b", H, "a"), ("c", H, "/b"), ("a", F, "22"), ("low", H, "../bin/x")]),
        ["/a 2", "/b 1 linked", "/c 1 linked", "/low => /bin/x"]
    );
    assert_eq!(parsed(&[("s", S, "t"), ("h", H, "s")]), ["/h -> t", "/s -> t"]);
    assert!(parsed(&[("a", H, "a")])[0].contains("itself"));
    assert!(parsed(&[("d", D, ""), ("a", H, "d")])[0].contains("directory"));
    assert!(parsed(&[("a", H, "/")])[0].contains("root"));
    assert!(parsed(&[("b", H, "a"), ("a", F, "")])[0].contains("replaces"));
}

#[test]
fn damaged_archives_are_errors() {
    let good = tar(&[("a", F, "some text"), ("b", F, &"x".repeat(2000))]);
    for cut in [100, 512 + 4, 1024 + 100, 1024 + 512 + 700] {
        assert!(matches!(parse_only(&good[..cut]), Err(LayerError::Truncated { .. })), "{cut}");
    }
    let mut wrong = good.clone();
    wrong[0] = b'z';
    assert!(parse_only(&wrong).unwrap_err().to_string().contains("checksum"));
    assert!(parse_only(&[b'x'; 4096]).is_err());
    assert!(parse_only(&[]).unwrap().is_empty());
    assert!(parsed(&[(&"n/".repeat(2100), D, "")])[0].contains("path over"));
    assert!(parsed(&[(&"n".repeat(256), F, "")])[0].contains("name over"));
}

#[test]
fn huge_announcements_cost_nothing() {
    // A long name of 1 GB, and a file of 2^62 bytes that isn't there.
    let name = Header { size: 1 << 30, ..Header::new(b"@LongLink", F, 0) };
    let mut out = TarWriter::new(Vec::new());
    out.header(&name).unwrap();
    let mut bytes = out.finish().unwrap();
    bytes[156] = b'L';
    fix_checksum(&mut bytes);
    assert!(parse_only(&bytes).unwrap_err().to_string().contains("over 1 MiB"));
    let mut out = TarWriter::new(Vec::new());
    out.header(&Header { size: 1 << 62, ..Header::new(b"big", F, 0) }).unwrap();
    assert!(matches!(parse_only(&out.finish().unwrap()), Err(LayerError::Truncated { .. })));
}

pub(super) fn fix_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// GNU tar's own archives, in each of its formats, against the files themselves.
#[test]
fn what_gnu_tar_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let long = "long-".repeat(45);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at(&long), "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(200), at("link")).unwrap();
    let mut sparse = std::fs::File::create(at("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    for i in 0..30u64 {
        use std::os::unix::fs::FileExt as _;
        sparse.write_all_at(b"data", i * 100_000).unwrap();
    }
    sparse.flush().unwrap();
    let whole = ContentDigest::of(&std::fs::read(at("sparse")).unwrap());
    let run = |args: &[&str]| {
        Command::new("tar").arg("-C").arg(dir.path()).args(args).args(["--numeric-owner", "-cf", "-", "."]).output()
    };
    let mut diffs = Vec::new();
    for args in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
        &["--format=posix", "-S", "--sparse-version=1.0"],
    ] {
        let Ok(out) = run(args) else {
            println!("skipped: no tar");
            return;
        };
        let (_keep, store) = store();
        let imported = import_layer(out.stdout.as_slice(), &Expected::default(), false, &store).unwrap();
        let diff = store.load_bundle(&imported.bundle).unwrap().unwrap();
        let Some(Change::Put(Node::File(file))) = diff.root.entries.get(&b"sparse"[..]) else { panic!("{args:?}") };
        assert_eq!((file.size, file.content), (3 << 20, whole), "{args:?}");
        assert!(diff.root.entries.contains_key(long.as_bytes()), "{args:?}");
        diffs.push(show(&diff));
    }
    assert!(diffs.windows(2).all(|pair| pair[0] == pair[1]), "{diffs:#?}");
}

#[test]
fn blobs_that_are_not_what_was_announced_are_refused() {
    let (_keep, store) = store();
    let bytes = tar(&[("a", F, "1")]);
    let digest = Sha256Digest::of(&bytes);
    let import =
        |bytes: &[u8], expected: Expected| import_layer(bytes, &expected, true, &store).map_err(|e| e.to_string());
    let wrong = Sha256Digest::of(b"");
    let size = bytes.len() as u64;
    let blob = |digest, size| Expected { blob: Some((digest, size)), diff_id: None };
    assert!(import(&bytes, blob(digest, size)).is_ok());
    assert!(store.oci_blob_path(&digest).is_some());
    assert!(import(&bytes, blob(wrong, size)).unwrap_err().starts_with("digest mismatch"));
    assert!(import(&bytes, blob(digest, size - 1)).unwrap_err().starts_with("size mismatch"));
    assert!(import(&bytes[..700], blob(digest, size)).unwrap_err().starts_with("size mismatch"));
    assert!(import(&bytes, Expected { diff_id: Some(wrong), blob: None }).unwrap_err().starts_with("diff ID mismatch"));
    // Garbage of the right length is called a wrong digest, not a bad archive.
    let garbage = vec![b'x'; bytes.len()];
    assert!(import(&garbage, blob(digest, size)).unwrap_err().starts_with("digest mismatch"));
    let mut packed = vec![0x1f, 0x8b, 8];
    packed.resize(bytes.len(), 0xff);
    assert!(import(&packed, blob(digest, size)).unwrap_err().starts_with("digest mismatch"));
    assert!(store.oci_blob_path(&Sha256Digest::of(&garbage)).is_none());
}

fn meta() -> impl Strategy<Value = Meta> {
    (0u32..0o10000, prop_oneof![0u32..5, Just(3_000_000)], prop_oneof![-3i64..3, Just(1 << 40)], 0u8..4).prop_map(
        |(mode, uid, secs, xattr)| {
            let mut meta = Meta { mode, uid, gid: uid, mtime: Mtime::pinned(secs, 0), xattrs: None };
            if xattr == 0 {
                meta.set_xattr(b"security.capability", b"a=b\n\0\xff");
            }
            meta
        },
    )
}

fn leaf() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..40), 1 => (60_000usize..200_000).prop_map(|n| vec![b'q'; n])]
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    File(Meta, Vec<u8>),
    Pair(Meta, Vec<u8>),
    Symlink(Meta, Vec<u8>),
    Special(Meta, SpecialKind, u32),
    Remove,
    Dir(Option<Meta>, bool, Vec<(Vec<u8>, Part)>),
}

pub(super) fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-d]".prop_map(String::into_bytes),
        1 => (90usize..250).prop_map(|n| vec![b'n'; n]),
        1 => prop::collection::vec(prop_oneof![Just(0xffu8), Just(b' '), Just(b'\n'), Just(b'e')], 1..5),
    ]
}

pub(super) fn part() -> impl Strategy<Value = Part> {
    let leaf = prop_oneof![
        4 => (meta(), leaf()).prop_map(|(m, d)| Part::File(m, d)),
        1 => (meta(), leaf()).prop_map(|(m, d)| Part::Pair(m, d)),
        1 => (meta(), name()).prop_map(|(m, t)| Part::Symlink(Meta { mode: 0o777, ..m }, t)),
        1 => (meta(), 0u32..300).prop_map(|(m, n)| Part::Special(m, SpecialKind::Char, n)),
        1 => meta().prop_map(|m| Part::Special(m, SpecialKind::Fifo, 0)),
        1 => Just(Part::Remove),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        (prop::option::of(meta()), any::<bool>(), prop::collection::vec((name(), inner), 1..4))
            .prop_map(|(meta, opaque, parts)| Part::Dir(meta, opaque, parts))
    })
}

pub(super) fn build(parts: &[(Vec<u8>, Part)], at: &[u8], writer: &BundleWriter) -> DirChange {
    let mut dir = DirChange::default();
    for (name, part) in parts {
        let path = [at, b"/", name].concat();
        let file = |meta: &Meta, data: &[u8], link| {
            let content = writer.add_reader(&mut &data[..], data.len() as u64).unwrap().0;
            Change::Put(Node::File(File { meta: meta.clone(), size: data.len() as u64, content, link }))
        };
        let change = match part {
            Part::File(meta, data) => file(meta, data, None),
            Part::Pair(meta, data) => {
                let other = [path.as_slice(), b"~"].concat();
                let id = LinkId::of(&mut [path.clone(), other], ContentDigest::of(data));
                dir.entries.insert([name.as_slice(), b"~"].concat().into(), file(meta, data, Some(id)));
                file(meta, data, Some(id))
            }
            Part::Symlink(meta, target) => {
                Change::Put(Node::Symlink(Symlink { meta: meta.clone(), target: target.as_slice().into() }))
            }
            Part::Special(meta, kind, minor) => {
                Change::Put(Node::Special(Special { meta: meta.clone(), kind: *kind, rdev: (*minor, *minor) }))
            }
            Part::Remove => Change::Remove,
            Part::Dir(meta, opaque, parts) => {
                let made = build(parts, &path, writer);
                Change::Dir(DirChange { meta: meta.clone(), opaque: *opaque, entries: made.entries })
            }
        };
        let pair = matches!(part, Part::Pair(..));
        // A later part of the same name would tear a pair apart.
        let taken = dir.entries.contains_key(name.as_slice()) || pair && name.len() > 240;
        if !taken {
            dir.entries.insert(name.as_slice().into(), change);
        } else if pair {
            dir.entries.remove(&[name.as_slice(), b"~"].concat()[..]);
        }
    }
    dir
}

/// A directory that is only on the way to nothing, and a group of one name, can't be said in a tar.
pub(super) fn sayable(diff: &mut Diff) {
    let mut names = std::collections::BTreeMap::new();
    diff.walk(&mut |_, change| {
        if let Change::Put(Node::File(File { link: Some(id), .. })) = change {
            *names.entry(*id).or_insert(0) += 1;
        }
    });
    fn go(dir: &mut DirChange, names: &std::collections::BTreeMap<LinkId, i32>) {
        dir.entries.retain(|_, change| match change {
            Change::Dir(sub) => {
                go(sub, names);
                !sub.is_empty()
            }
            Change::Put(Node::File(file)) => {
                file.link = file.link.filter(|id| names.get(id) == Some(&2));
                true
            }
            _ => true,
        });
    }
    go(&mut diff.root, &names);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn a_diff_survives_the_way_through_a_layer(
        parts in prop::collection::vec((name(), part()), 0..5),
        kind in 0u64..3,
        named_before in any::<bool>(),
    ) {
        let (_keep, store) = store();
        let writer = store.bundle_writer();
        let mut diff = Diff { root: build(&parts, b"", &writer) };
        sayable(&mut diff);
        let bundle = writer.finish(&diff).unwrap();
        let compression = [Compression::None, Compression::default(), Compression::Zstd { level: 3 }][kind as usize];
        let mut written = Vec::new();
        write_layer(&diff, &store, TimestampPolicy::Keep, &mut written).unwrap();
        prop_assert_eq!(layer_size(&diff, &store, TimestampPolicy::Keep).unwrap(), written.len() as u64);
        // Whichever of the two comes first computes it, and the other takes it over.
        if named_before {
            let diff_id = layer_diff_id(&store, &bundle, TimestampPolicy::Keep).unwrap();
            prop_assert_eq!(diff_id, Sha256Digest::of(&written));
        }
        let exported = export_layer(&store, &bundle, compression, TimestampPolicy::Keep).unwrap();
        prop_assert_eq!(exported.diff_id, Sha256Digest::of(&written));
        prop_assert_eq!(layer_diff_id(&store, &bundle, TimestampPolicy::Keep).unwrap(), exported.diff_id);
        let path = store.oci_blob_path(&exported.blob.digest).unwrap();
        let expected = Expected { diff_id: Some(exported.diff_id), blob: Some((exported.blob.digest, exported.blob.size)) };
        let imported = import_layer(std::fs::File::open(path).unwrap(), &expected, false, &store).unwrap();
        prop_assert_eq!(imported.media_type, compression.media_type());
        let back = store.load_bundle(&imported.bundle).unwrap().unwrap();
        prop_assert_eq!(&*back, &diff);
        prop_assert_eq!(imported.bundle, bundle);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0usize..3000) {
        let _ = parse_only(&bytes);
        let good = tar(&[("a/b", F, "text"), ("l", S, "a"), ("l/c", H, "a/b"), (&"n".repeat(150), D, "")]);
        let mut damaged = good.clone();
        let at = at % damaged.len();
        damaged[at] = bytes.pop().unwrap_or(1);
        let block = at / 512 * 512;
        fix_checksum(&mut damaged[block..]);
        let _ = parse_only(&damaged);
    }
}

#[test]
fn attributes_of_users_stay_out_of_layers() {
    let (_keep, store) = store();
    let writer = store.bundle_writer();
    let mut meta = Meta::new(0o644, Mtime::pinned(0, 0));
    let mut plain = meta.clone();
    plain.set_xattr(b"security.capability", b"cap");
    meta.set_xattr(b"security.capability", b"cap");
    meta.set_xattr(b"user.note", b"x");
    let content = writer.add_bytes(b"text").unwrap();
    let diff = |meta: Meta| {
        let mut diff = Diff::default();
        diff.set(b"/f", Change::Put(Node::File(File { meta, size: 4, content, link: None })));
        diff
    };
    let bundle = writer.finish(&diff(meta)).unwrap();
    let exported = export_layer(&store, &bundle, Compression::None, TimestampPolicy::Keep).unwrap();
    let path = store.oci_blob_path(&exported.blob.digest).unwrap();
    let expected = Expected { diff_id: None, blob: None };
    let imported = import_layer(std::fs::File::open(path).unwrap(), &expected, false, &store).unwrap();
    assert_eq!(*store.load_bundle(&imported.bundle).unwrap().unwrap(), diff(plain));
}

#[test]
fn timestamps_follow_the_policy() {
    let (_keep, store) = store();
    let writer = store.bundle_writer();
    let mut diff = Diff::default();
    for (name, secs) in [("/old", 5), ("/new", 50)] {
        let meta = Meta::new(0o644, Mtime::ambient(secs, 999));
        let content = writer.add_bytes(b"").unwrap();
        diff.set(name.as_bytes(), Change::Put(Node::File(File { meta, size: 0, content, link: None })));
    }
    let bundle = writer.finish(&diff).unwrap();
    let times = |policy| {
        let layer = export_layer(&store, &bundle, Compression::None, policy).unwrap();
        let bytes = std::fs::read(store.oci_blob_path(&layer.blob.digest).unwrap()).unwrap();
        let diff = parse_only(&bytes).unwrap();
        let time = |name: &str| match diff.root.entries.get(name.as_bytes()) {
            Some(Change::Put(node)) => node.meta().mtime,
            _ => panic!("no {name}"),
        };
        (time("old"), time("new"))
    };
    let pinned = |a, b| (Mtime::pinned(a, 0), Mtime::pinned(b, 0));
    assert_eq!(times(TimestampPolicy::Keep), pinned(5, 50));
    assert_eq!(times(TimestampPolicy::Clamp(10)), pinned(5, 10));
    assert_eq!(times(TimestampPolicy::Set(0)), pinned(0, 0));
}

#[test]
fn recompressing_keeps_the_diff_id() {
    let (_keep, store) = store();
    let digest = store.oci_blob_put(&tar(&[("a", F, &"text".repeat(1_000_000))])).unwrap();
    let gzip = recompress_layer(&store, &digest, Compression::default()).unwrap();
    let zstd = recompress_layer(&store, &gzip.blob.digest, Compression::Zstd { level: 3 }).unwrap();
    assert_eq!((gzip.diff_id, zstd.diff_id), (digest, digest));
}

#[test]
fn archives_are_told_by_content_and_laid_out_at_the_destination() {
    let plain = tar(&[("l", S, "/sub"), ("l/f", F, "1"), (".wh.x", F, ""), ("low", H, "have")]);
    assert!(archive::is_archive(&mut plain.as_slice()));
    assert!(!archive::is_archive(&mut &b"some text"[..]) && !archive::is_archive(&mut &b""[..]));
    assert!(!archive::is_archive(&mut &[0u8; 2048][..]));
    let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
    assert!(archive::is_archive(&mut packed.as_slice()));
    assert!(!archive::is_archive(&mut zstd::encode_all(&b"no tar"[..], 1).unwrap().as_slice()));
    let (_keep, store) = store();
    let meta = Meta::new(0o600, Mtime::default());
    let have = Node::File(File { meta: meta.clone(), size: 0, content: ContentDigest::of(b""), link: None });
    let below = memobuild_tree::Dir::with_entries(meta, [(Arc::from(&b"have"[..]), have)].into());
    let options = archive::ExtractOptions { dest: b"/x", below: Some(&below), owner: Some((7, 8)) };
    let root = archive::extract(packed.as_slice(), &store.bundle_writer(), &options).unwrap();
    let mut diff = Diff::default();
    diff.root.entries.insert((&b"x"[..]).into(), Change::Dir(root));
    assert_eq!(
        show(&diff),
        ["/x/ way", "/x/.wh.x 0", "/x/l -> /sub", "/x/low => /x/have", "/x/sub/ way", "/x/sub/f 1"]
    );
    let Some(Change::Dir(x)) = diff.root.entries.get(&b"x"[..]) else { panic!() };
    let Some(Change::Put(node)) = x.entries.get(&b"l"[..]) else { panic!() };
    assert_eq!((node.meta().uid, node.meta().gid), (7, 8));
}
