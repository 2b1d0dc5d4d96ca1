//! Layers that can be pulled in part: their annotations get to the registry, and tools that know the formats or don't
//! unpack the same files.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use memobuild_image::{Descriptor, Manifest};
use memobuild_oci::{
    layer::{Compression, ExportedLayer, TimestampPolicy, export_layer, layer_diff_id},
    model::{ImageConfig, Platform, RootFs, json},
    output::{self, Push},
    reference::Reference,
    registry::{Registries, RegistryOptions},
};
use memobuild_store::Store;
use memobuild_tree::{Change, Diff, DirChange, File, LinkId, Meta, Mtime, Node, Symlink, Tree};

use crate::support::*;

/// An image of a layer as it is, and one whose two files are linked, in that compression; and its tree.
fn image(store: &Store, compression: Compression) -> (Descriptor, Vec<ExportedLayer>, Tree) {
    let writer = store.bundle_writer();
    let meta = |mode| Meta::new(mode, Mtime::pinned(1_000_000_000, 0));
    let mut diff = Diff::default();
    diff.set(b"/dir", Change::Dir(DirChange::with_meta(meta(0o755))));
    diff.set(b"/dir/link", Change::Put(Node::Symlink(Symlink { meta: meta(0o777), target: b"large"[..].into() })));
    let mut large = noise(5_000_000, 9);
    large[100_000..300_000].fill(0);
    for (name, bytes) in [(&b"/dir/large"[..], large.as_slice()), (b"/dir/empty", b""), (b"/dir/small", b"text\n")] {
        let (content, size) = writer.add_reader(&mut &*bytes, bytes.len() as u64).unwrap();
        diff.set(name, Change::Put(Node::File(File { meta: meta(0o640), size, content, link: None })));
    }
    let (content, size) = writer.add_reader(&mut &b"shared"[..], 6).unwrap();
    let mut names = [b"/one".to_vec(), b"/two".to_vec()];
    let link = Some(LinkId::of(&mut names, content));
    for name in &names {
        diff.set(name, Change::Put(Node::File(File { meta: meta(0o600), size, content, link })));
    }
    let tree = diff.apply(&Tree::default()).unwrap();
    let bundle = writer.finish(&diff).unwrap();
    let layer = export_layer(store, &bundle, compression, TimestampPolicy::Keep).unwrap();
    let plain = layer_diff_id(store, &bundle, TimestampPolicy::Keep).unwrap();
    assert_eq!(layer.diff_id == plain, !matches!(compression, Compression::Estargz { .. }));
    let config = ImageConfig {
        platform: Platform::default(),
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let bytes = json::config(&config).unwrap();
    let made = output::assemble(store, &bytes, std::slice::from_ref(&layer.blob), &BTreeMap::new(), false).unwrap();
    (made.manifest, vec![layer], tree)
}

fn pushed(store: &Store, root: &Descriptor, at: &str) {
    let name: Reference = at.parse().unwrap();
    let registries = Registries::new(RegistryOptions::default());
    let (bases, recipes, referrers) = Default::default();
    Push { store, registries: &registries, root, bases, recipes, referrers }.to(&[name], &|_, _| ()).unwrap();
}

/// All regular files below a directory and their contents.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                let name = entry.path().strip_prefix(root).unwrap().display().to_string();
                out.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    out
}

#[test]
fn annotations_get_to_the_registry_and_the_layers_are_ordinary_ones_too() {
    let Some(registry) = registry("") else { return };
    for (compression, key) in [
        (Compression::Estargz { level: 6 }, "containerd.io/snapshot/stargz/toc.digest"),
        (Compression::ZstdChunked { level: 3 }, "io.github.containers.zstd-chunked.manifest-checksum"),
    ] {
        let (_keep, store) = store();
        let (root, layers, tree) = image(&store, compression);
        let at = format!("127.0.0.1:{}/{}:1", registry.port, if key.contains("zstd") { "chunked" } else { "estargz" });
        pushed(&store, &root, &at);
        let (_other, fresh) = crate::support::store();
        let back = open(&at, &fresh).unwrap();
        assert_eq!((back.manifest, back.tree(&|_, _| ()).unwrap()), (root.digest, tree));
        let blob = back.layers[0].blob.as_ref().unwrap();
        assert_eq!(*blob, layers[0].blob);
        assert!(blob.annotations.contains_key(key) && compression.is_that_of(blob));
        // An image on top of it passes them on.
        let again = back.ensure_blob(0, &|_, _| ()).unwrap();
        assert_eq!(again, layers[0].blob);

        let copied = tempfile::tempdir().unwrap();
        let (from, to) = (format!("docker://{at}"), format!("dir:{}", copied.path().display()));
        if skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &to]) {
            let manifest = fs::read(copied.path().join("manifest.json")).unwrap();
            let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(manifest.layers, [layers[0].blob.clone()]);
        }
        unpacked_by_buildah(&at);
    }
}

/// Pulls the image with buildah into a storage of its own, and looks at its files. Buildah checks the diff ID.
fn unpacked_by_buildah(at: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (root, run) = (dir.path().join("root"), dir.path().join("run"));
    let buildah = |args: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(&root).arg("--runroot").arg(&run).args(["--storage-driver", "vfs"]);
        command.args(args).output()
    };
    let Ok(made) = buildah(&["from", "-q", "--tls-verify=false", at]) else {
        println!("skipped: no buildah");
        return;
    };
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(why.contains("operation not permitted") || why.contains("user namespace"), "{why}");
        println!("skipped: buildah can't work here: {why}");
        return;
    }
    let container = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let mounted = buildah(&["mount", &container]).unwrap();
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let files = files(Path::new(String::from_utf8_lossy(&mounted.stdout).trim()));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    // No landmark, no table of contents.
    assert_eq!(names, ["dir/empty", "dir/large", "dir/small", "one", "two"]);
    assert_eq!((files["dir/large"].len(), files["two"].as_slice()), (5_000_000, &b"shared"[..]));
    for args in [&["umount", &container][..], &["rm", &container]] {
        let _ = buildah(args);
    }
}
