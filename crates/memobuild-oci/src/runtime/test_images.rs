//! Images for tests: each layer holds one file.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use memobuild_image::{Descriptor, ImageConfig, RootFs, json, media};
use memobuild_store::Store;
use memobuild_tree::{Change, Diff, File, Meta, Mtime, Node};

use crate::{
    image::{BaseImage, BaseLayer, StoredImage, from_stored},
    layer::{Compression, TimestampPolicy, export_layer, layer_diff_id},
    registry::{Registries, RegistryOptions},
};

/// A layer of one file, in the store.
pub(super) fn layer(store: &Store, text: &str) -> BaseLayer {
    let writer = store.bundle_writer();
    let content = writer.add_bytes(text.as_bytes()).unwrap();
    let meta = Meta::new(0o644, Mtime::pinned(1, 0));
    let mut diff = Diff::default();
    let name = format!("/{}", text.get(..10).unwrap_or(text));
    let file = File { meta, size: text.len() as u64, content, link: None };
    diff.set(name.as_bytes(), Change::Put(Node::File(file)));
    let bundle = writer.finish(&diff).unwrap();
    let diff_id = layer_diff_id(store, &bundle, TimestampPolicy::Keep).unwrap();
    BaseLayer { diff_id, blob: None, bundle: Some(bundle), origin: None }
}

pub(super) fn image(store: &Store, layers: &[BaseLayer]) -> BaseImage {
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let config = ImageConfig { rootfs: RootFs { diff_ids, ..RootFs::default() }, ..ImageConfig::default() };
    let bytes = json::config(&config).unwrap();
    let digest = store.oci_blob_put(&bytes).unwrap();
    let config = Descriptor::new(media::CONFIG, digest, bytes.len() as u64);
    let stored = StoredImage { config, layers: layers.to_vec(), manifest: None, created_secs: 0, caches: Vec::new() };
    from_stored(&stored, "app", store, &Registries::new(RegistryOptions::default())).unwrap()
}

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// The address of a registry that has nothing.
fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address.to_string()
}

/// A layer that this machine does not have, and cannot get.
pub(super) fn remote(text: &str) -> BaseLayer {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Store::open(dir.path()).unwrap();
    let layer = layer(&elsewhere, text);
    let blob = export_layer(&elsewhere, &layer.bundle.unwrap(), Compression::default(), TimestampPolicy::Keep);
    let origin = Some(format!("{}/base:1", empty_registry()).parse().unwrap());
    BaseLayer { blob: Some(blob.unwrap().blob), bundle: None, origin, ..layer }
}
