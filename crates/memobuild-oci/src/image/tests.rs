use std::{fs, path::Path};

use memobuild_image::{Descriptor, ImageConfig, Index, Manifest, Platform, RootFs, json, media};
use memobuild_store::Store;
use memobuild_tree::{Change, Diff, File, Meta, Mtime, Node, Sha256Digest};

use super::*;
use crate::{
    layer::{Compression, TimestampPolicy, export_layer},
    registry::{Registries, RegistryOptions},
};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
    let descriptor = Descriptor::of(media_type, bytes);
    let path = dir.join("blobs/sha256");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(descriptor.digest.hex()), bytes).unwrap();
    descriptor
}

/// An image for a platform with one file that holds its name.
fn manifest(dir: &Path, platform: &str) -> Descriptor {
    let (_keep, store) = store();
    let writer = store.bundle_writer();
    let content = writer.add_bytes(platform.as_bytes()).unwrap();
    let meta = Meta::new(0o644, Mtime::pinned(1, 0));
    let mut diff = Diff::default();
    diff.set(b"/name", Change::Put(Node::File(File { meta, size: platform.len() as u64, content, link: None })));
    let bundle = writer.finish(&diff).unwrap();
    let layer = export_layer(&store, &bundle, Compression::Zstd { level: 1 }, TimestampPolicy::Keep).unwrap();
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::copy(store.oci_blob_path(&layer.blob.digest).unwrap(), dir.join("blobs/sha256").join(layer.blob.digest.hex()))
        .unwrap();
    let platform: Platform = platform.parse().unwrap();
    let config = ImageConfig {
        platform: platform.clone(),
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = blob(dir, media::CONFIG, &json::config(&config).unwrap());
    let manifest = json::pretty(&Manifest::new(config, vec![layer.blob])).unwrap();
    Descriptor { platform: Some(platform), ..blob(dir, media::MANIFEST, &manifest) }
}

fn index(dir: &Path, manifests: Vec<Descriptor>) -> Descriptor {
    blob(dir, media::INDEX, &json::pretty(&Index::new(manifests)).unwrap())
}

fn layout(dir: &Path, manifests: Vec<Descriptor>) {
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), json::compact(&Index::new(manifests)).unwrap()).unwrap();
}

fn opened(dir: &Path, pick: Pick, platform: &str, store: &Store) -> Result<BaseImage, String> {
    let source = ImageSource::Path { path: dir.into(), pick };
    let registries = Registries::new(RegistryOptions::default());
    open(&source, &platform.parse().unwrap(), store, &registries).map_err(|e| e.to_string())
}

fn named(mut descriptor: Descriptor, name: &str) -> Descriptor {
    descriptor.annotations.insert("org.opencontainers.image.ref.name".into(), name.into());
    descriptor
}

#[test]
fn the_platform_is_chosen_through_nested_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, store) = store();
    let mut plain = manifest(dir.path(), "linux/amd64");
    plain.platform = None;
    let arms = index(dir.path(), vec![manifest(dir.path(), "linux/arm/v6"), manifest(dir.path(), "linux/arm64")]);
    let mut note = manifest(dir.path(), "linux/s390x");
    note.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    let root = index(dir.path(), vec![note, arms, plain]);
    layout(dir.path(), vec![root.clone()]);
    let platform =
        |wanted: &str| opened(dir.path(), Pick::Any, wanted, &store).map(|b| (b.platform.to_string(), b.pinned));
    assert_eq!(platform("linux/amd64"), Ok(("linux/amd64".into(), root.digest)));
    assert_eq!(platform("linux/arm64"), Ok(("linux/arm64".into(), root.digest)));
    assert_eq!(platform("linux/arm/v7"), Ok(("linux/arm/v6".into(), root.digest)));
    let error = platform("linux/s390x").unwrap_err();
    assert!(error.contains("has no image for linux/s390x (there: linux/arm/v6, linux/arm64, linux/amd64)"), "{error}");
}

#[test]
fn several_images_must_be_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, store) = store();
    let one = |platform, name: &str| named(manifest(dir.path(), platform), name);
    layout(dir.path(), vec![one("linux/amd64", "a"), one("linux/386", "b")]);
    let pick = |pick| opened(dir.path(), pick, "linux/amd64", &store).map(|b| b.platform.to_string());
    assert!(pick(Pick::Any).unwrap_err().contains("several images: name one (there: a, b)"));
    assert_eq!(pick(Pick::Tag("b".into())), Ok("linux/386".into()));
    assert!(pick(Pick::Digest(Sha256Digest::of(b""))).unwrap_err().contains("not found"));
    layout(dir.path(), vec![one("linux/amd64", "a"), one("linux/386", "latest")]);
    assert_eq!(pick(Pick::Any), Ok("linux/386".into()));
    layout(dir.path(), vec![]);
    assert!(pick(Pick::Any).unwrap_err().contains("not found"));
}

#[test]
fn damaged_images_are_called_that() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, store) = store();
    let root = manifest(dir.path(), "linux/amd64");
    layout(dir.path(), vec![root.clone()]);
    let path = |d: &Sha256Digest| dir.path().join("blobs/sha256").join(d.hex());
    let base = opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap();
    let layer = base.layers[0].blob.clone().unwrap();
    let good = fs::read(path(&layer.digest)).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    for (bytes, message) in [(bad.as_slice(), "digest mismatch"), (&good[..9], "size mismatch")] {
        fs::write(path(&layer.digest), bytes).unwrap();
        let error = base.ensure_layer(0, &|_, _| ()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(message), "{source}");
        assert!(base.ensure_blob(0, &|_, _| ()).is_err());
    }
    assert!(store.oci_blob_path(&layer.digest).is_none() && base.known_layer(0).unwrap().is_none());
    fs::remove_file(path(&layer.digest)).unwrap();
    assert!(base.ensure_layer(0, &|_, _| ()).unwrap_err().to_string().contains("not there"));
    fs::write(path(&layer.digest), &good).unwrap();
    base.ensure_layer(0, &|_, _| ()).unwrap();
    // Known now: the layout may go.
    fs::remove_file(path(&layer.digest)).unwrap();
    let again = opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap();
    assert!(again.known_layer(0).unwrap().is_some() && again.ensure_layer(0, &|_, _| ()).is_ok());
    fs::write(path(&root.digest), "{}").unwrap();
    assert!(opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap_err().contains("digest mismatch"));
    fs::write(dir.path().join("index.json"), "no json").unwrap();
    assert!(opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap_err().contains("invalid index.json"));
    fs::remove_file(dir.path().join("index.json")).unwrap();
    assert!(opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap_err().contains("is no image"));
}

#[test]
fn what_stands_behind_oci_layout() {
    let digest = Sha256Digest::of(b"");
    let path = |path: &str, pick| ImageSource::Path { path: path.into(), pick };
    assert_eq!(ImageSource::layout("/a/b"), path("/a/b", Pick::Any));
    assert_eq!(ImageSource::layout("a:x/b"), path("a:x/b", Pick::Any));
    assert_eq!(ImageSource::layout("../a:t"), path("../a", Pick::Tag("t".into())));
    assert_eq!(ImageSource::layout(&format!("/a:t@{digest}")), path("/a", Pick::Digest(digest)));
}

#[test]
fn own_images_are_kept_under_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let (_keep, store) = store();
    layout(dir.path(), vec![manifest(dir.path(), "linux/amd64")]);
    let base = opened(dir.path(), Pick::Any, "linux/amd64", &store).unwrap();
    let bundle = base.ensure_layer(0, &|_, _| ()).unwrap();
    let digest = store.oci_blob_put(&base.config_bytes).unwrap();
    // The layer is known as a bundle alone: its blob is made when it is asked for.
    let layers = vec![BaseLayer { diff_id: base.layers[0].diff_id, blob: None, bundle: Some(bundle), origin: None }];
    let config = Descriptor::new(media::CONFIG, digest, base.config_bytes.len() as u64);
    let image = StoredImage { config, layers, manifest: None, created_secs: 5, caches: Vec::new() };
    let names: Vec<Reference> = vec!["a".parse().unwrap(), "b.io/c:1".parse().unwrap()];
    image.tag(&store, &names).unwrap();
    assert_eq!(StoredImage::by_tag(&store, &"a:latest".parse().unwrap()).unwrap(), Some(image.clone()));
    let all: Vec<_> = StoredImage::all(&store).unwrap().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(all, ["b.io/c:1", "docker.io/library/a:latest"]);
    let registries = Registries::new(RegistryOptions::default());
    let source = ImageSource::Stored("a".parse().unwrap());
    let stored = open(&source, &Platform::default(), &store, &registries).unwrap();
    assert_eq!(stored.ensure_layer(0, &|_, _| ()).unwrap(), bundle);
    assert!(store.oci_blob_path(&stored.ensure_blob(0, &|_, _| ()).unwrap().digest).is_some());
    assert_eq!(stored.tree(&|_, _| ()).unwrap(), base.tree(&|_, _| ()).unwrap());
    assert!(StoredImage::untag(&store, &names[0]).unwrap());
    let error = open(&source, &Platform::default(), &store, &registries).unwrap_err();
    assert_eq!(error.to_string(), "no image a in the store");
}
