use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use memobuild_image::{ImageConfig, Platform, RootFs};
use memobuild_tree::{Change, Diff, DirChange, File, LinkId, Meta, Mtime, Node, Special, SpecialKind, Symlink, Tree};

use super::*;
use crate::{
    image::{self, ImageSource, Pick},
    layer::{
        Compression, TimestampPolicy, export_layer,
        tar::{Header, HeaderKind, TarWriter},
    },
    registry::{Registries, RegistryOptions},
};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn meta(mode: u32) -> Meta {
    Meta::new(mode, Mtime::pinned(1_000_000, 0))
}

fn diff(store: &Store) -> (memobuild_tree::BundleId, Diff) {
    let writer = store.bundle_writer();
    let mut diff = Diff::default();
    let mut file = |path: &str, text: &[u8], mode, link| {
        let content = writer.add_bytes(text).unwrap();
        let node = File { meta: meta(mode), size: text.len() as u64, content, link };
        diff.set(path.as_bytes(), Change::Put(Node::File(node)));
        content
    };
    file("/bin/tool", b"#!/bin/sh\necho hi\n", 0o755, None);
    let content = memobuild_tree::ContentDigest::of(b"shared");
    let id = LinkId::of(&mut [b"/etc/a".to_vec(), b"/etc/b".to_vec()], content);
    file("/etc/a", b"shared", 0o600, Some(id));
    file("/etc/b", b"shared", 0o600, Some(id));
    diff.set(b"/etc/link", Change::Put(Node::Symlink(Symlink { meta: meta(0o777), target: (&b"../bin"[..]).into() })));
    for (path, kind, rdev) in [("/etc/null", SpecialKind::Char, (1, 3)), ("/etc/pipe", SpecialKind::Fifo, (0, 0))] {
        diff.set(path.as_bytes(), Change::Put(Node::Special(Special { meta: meta(0o644), kind, rdev })));
    }
    for path in [&b"bin"[..], b"etc"] {
        diff.root.descend(&[path]).meta = Some(meta(0o755));
    }
    diff.root.entries.insert((&b"ro"[..]).into(), Change::Dir(DirChange::with_meta(meta(0o555))));
    (writer.finish(&diff).unwrap(), diff)
}

fn image(store: &Store, names: &[&str]) -> (OutputImage, Tree) {
    let (bundle, diff) = diff(store);
    let layer = export_layer(store, &bundle, Compression::default(), TimestampPolicy::Keep).unwrap();
    let config = ImageConfig {
        platform: Platform::default(),
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = json::config(&config).unwrap();
    let made = assemble(store, &config, &[layer.blob], &BTreeMap::new(), false).unwrap();
    let names = names.iter().map(|n| n.parse().unwrap()).collect();
    let created = Some("1970-01-01T00:00:00Z".into());
    (OutputImage { root: made.manifest, names, created }, diff.apply(&Tree::default()).unwrap())
}

fn open(path: &Path, pick: Pick, store: &Store) -> Result<image::BaseImage, image::ImageError> {
    let source = ImageSource::Path { path: path.into(), pick };
    image::open(&source, &Platform::default(), store, &Registries::new(RegistryOptions::default()))
}

/// Runs a program, or says that it is not there.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(_) => {
            println!("skipped: no {program}");
            return None;
        }
    };
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is written can be read again in another store, from each form, and is the same tree.
#[test]
fn layouts_and_archives_come_back_as_they_were() {
    let (_keep, store) = store();
    let (image, tree) = image(&store, &["example.com/a/b:1", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_oci(&store, &image, &Dest::File(at("oci.tar"))).unwrap();
    write_oci(&store, &image, &Dest::Dir(at("oci"))).unwrap();
    write_docker(&store, &image, &Dest::File(at("docker.tar"))).unwrap();
    let packed = zstd::encode_all(fs::File::open(at("oci.tar")).unwrap(), 1).unwrap();
    fs::write(at("oci.tar.zst"), packed).unwrap();
    for name in ["oci.tar", "oci", "docker.tar", "oci.tar.zst"] {
        let (_keep, other) = super::tests::store();
        for pick in
            [Pick::Tag("1".into()), Pick::Tag("example.com/a/b:1".into()), Pick::Digest(image.root.digest), Pick::Any]
        {
            let base = open(&at(name), pick, &other).unwrap();
            assert_eq!(base.manifest, image.root.digest, "{name}");
            assert_eq!(base.tree(&|_, _| ()).unwrap(), tree, "{name}");
            let blob = base.ensure_blob(0, &|_, _| ()).unwrap();
            assert_eq!(Some(&blob), base.layers[0].blob.as_ref());
            assert!(other.oci_blob_path(&blob.digest).is_some());
        }
        let missing = open(&at(name), Pick::Tag("2".into()), &other).unwrap_err().to_string();
        assert!(missing.contains("tag 2 not found (there: 1, latest)"), "{missing}");
    }
}

#[test]
fn equal_images_are_equal_archives() {
    let write = || {
        let (_keep, store) = store();
        let (image, _) = image(&store, &["a"]);
        let dir = tempfile::tempdir().unwrap();
        write_docker(&store, &image, &Dest::File(dir.path().join("x.tar"))).unwrap();
        fs::read(dir.path().join("x.tar")).unwrap()
    };
    assert!(write() == write());
}

#[test]
fn other_tools_read_what_is_written() {
    let (_keep, store) = store();
    let (image, _) = image(&store, &["example.com/a/b:1"]);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    write_oci(&store, &image, &Dest::File(at("oci.tar").into())).unwrap();
    write_oci(&store, &image, &Dest::Dir(at("oci").into())).unwrap();
    write_docker(&store, &image, &Dest::File(at("docker.tar").into())).unwrap();
    for (from, to) in [
        (format!("oci-archive:{}:1", at("oci.tar")), format!("dir:{}", at("d1"))),
        (format!("oci:{}:1", at("oci")), format!("dir:{}", at("d2"))),
        (
            format!("docker-archive:{}:example.com/a/b:1", at("docker.tar")),
            format!("docker-archive:{}:z:1", at("saved.tar")),
        ),
    ] {
        if run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]).is_none() {
            return;
        }
    }
    // What skopeo saved has no OCI layout in it: a docker archive of the old kind, with plain layers.
    let saved = open(Path::new(&at("saved.tar")), Pick::Tag("z:1".into()), &store).unwrap();
    assert_eq!(saved.tree(&|_, _| ()).unwrap().dir(b"/etc").unwrap().entries().len(), 5);
    let blob = saved.ensure_blob(0, &|_, _| ()).unwrap();
    assert_eq!((blob.digest, blob.media_type.as_str()), (saved.layers[0].diff_id, media::LAYER));
    let unpack = ["unpack", "--rootless", "--image", &format!("{}:1", at("oci")), &at("bundle")];
    if run("umoci", &unpack).is_some() {
        let text = fs::read_to_string(format!("{}/rootfs/bin/tool", at("bundle"))).unwrap();
        assert!(text.contains("echo hi"));
    }
    write_tar(&store, &diff(&store).1.apply(&Tree::default()).unwrap(), Some(5), &Dest::File(at("root.tar").into()))
        .unwrap();
    if let Some(list) = run("tar", &["--full-time", "--numeric-owner", "--utc", "-tvf", &at("root.tar")]) {
        assert!(list.contains("-rw------- 0/0               6 1970-01-01 00:00:05 etc/a"), "{list}");
        assert!(list.contains("etc/b link to etc/a") && list.contains("crw-r--r-- 0/0             1,3"), "{list}");
    }
}

#[test]
fn a_directory_can_hold_many_images() {
    let (_keep, store) = store();
    let dir = tempfile::tempdir().unwrap();
    let dest = Dest::Dir(dir.path().into());
    for names in [&["a:1"][..], &["a:2"], &["a:1"], &[]] {
        write_oci(&store, &image(&store, names).0, &dest).unwrap();
    }
    let index: Index = serde_json::from_slice(&fs::read(dir.path().join("index.json")).unwrap()).unwrap();
    let names: Vec<_> =
        index.manifests.iter().filter_map(|d| d.annotations.get("org.opencontainers.image.ref.name")).collect();
    assert_eq!(names, ["2", "1", "latest"]);
}

#[test]
fn a_failed_output_leaves_nothing() {
    let (_keep, store) = store();
    let (mut image, _) = image(&store, &[]);
    image.root.digest = memobuild_tree::Sha256Digest::of(b"nothing");
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("x.tar");
    fs::write(&dest, "old").unwrap();
    assert!(matches!(write_oci(&store, &image, &Dest::File(dest.clone())), Err(OutputError::NoBlob(_))));
    assert_eq!(fs::read(&dest).unwrap(), b"old");
    let mut lost = Diff::default();
    let file = File { meta: meta(0o644), size: 3, content: memobuild_tree::ContentDigest::of(b"???"), link: None };
    lost.set(b"/f", Change::Put(Node::File(file)));
    let tree = lost.apply(&Tree::default()).unwrap();
    assert!(write_tar(&store, &tree, None, &Dest::File(dest.clone())).is_err());
    assert_eq!(fs::read(&dest).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(write_tar(&store, &tree, None, &Dest::File(dir.path().into())), Err(OutputError::IsDirectory(_))));
}

#[test]
fn a_local_output_merges_and_follows_no_link() {
    let (_keep, store) = store();
    let (_, tree) = image(&store, &[]);
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(outside.path().join("tool"), "precious").unwrap();
    // Links that stand where a directory and a file must go, a file in the way of a directory, and the user's own file.
    std::os::unix::fs::symlink(outside.path(), at("bin")).unwrap();
    fs::create_dir(at("etc")).unwrap();
    fs::write(at("etc/own"), "own").unwrap();
    std::os::unix::fs::symlink(outside.path().join("tool"), at("etc/a")).unwrap();
    fs::write(at("ro"), "file").unwrap();
    for _ in 0..2 {
        let warnings = write_local(&store, &tree, None, dir.path()).unwrap();
        assert_eq!(warnings, ["/etc/null: devices are left out of a local output"]);
    }
    assert_eq!(fs::read_to_string(outside.path().join("tool")).unwrap(), "precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(fs::symlink_metadata(at("bin")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(at("etc/own")).unwrap(), "own");
    let (a, b) = (fs::metadata(at("etc/a")).unwrap(), fs::metadata(at("etc/b")).unwrap());
    assert_eq!((a.ino(), a.mode() & 0o7777, a.mtime(), a.nlink()), (b.ino(), 0o600, 1_000_000, 2));
    assert_eq!(fs::metadata(at("ro")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(at("etc/link")).unwrap(), Path::new("../bin"));
    let left: Vec<_> = fs::read_dir(at("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with(".memobuild")), "{left:?}");
    // A directory that holds something does not make way for a file.
    let mut file = tree.clone();
    file.put(b"/etc", tree.get(b"/bin/tool").unwrap(), &|| meta(0o755));
    let error = write_local(&store, &file, None, dir.path()).unwrap_err();
    assert!(matches!(error, OutputError::InTheWay { .. }), "{error}");
    assert_eq!(fs::read_to_string(at("etc/own")).unwrap(), "own");
}

#[test]
fn a_blob_that_shrank_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("blob"), b"12345").unwrap();
    let archive = |size| {
        let mut sink = dest::Sink::open(&Dest::File(dir.path().join("out.tar"))).unwrap();
        let blob = fs::File::open(dir.path().join("blob")).unwrap();
        let mut tar = TarWriter::new(&mut sink);
        let written = tar
            .header(&Header { size, ..Header::new(b"blob", HeaderKind::File, 0o644) })
            .and_then(|()| tar.data_by(size, |sink| sink.copy(&blob, size)))
            .and_then(|()| tar.finish().map(drop));
        written.map(|()| sink.finish().unwrap())
    };
    assert_eq!(archive(6).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    // Less than there is: the rest is not taken.
    archive(4).unwrap();
    let written = fs::read(dir.path().join("out.tar")).unwrap();
    assert_eq!((written.len(), &written[512..517]), (4 * 512, &b"1234\0"[..]));
}
