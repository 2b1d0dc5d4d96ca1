//! A registry, an image to put there, and proxies that break connections.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use memobuild_oci::{
    image::{self, ImageError, ImageSource},
    layer::{Compression, TimestampPolicy, export_layer},
    model::{ImageConfig, Platform, RootFs, json},
    output::{self, Dest, OutputImage},
    registry::{Registries, RegistryOptions},
};
use memobuild_store::Store;
use memobuild_tree::{Change, Diff, File, Meta, Mtime, Node, Tree};

pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A registry on a free port; `extra` is added to its config.
pub(crate) fn registry(extra: &str) -> Option<Registry> {
    registry_of("", extra)
}

/// A registry on a free port; `http` is added to that section of its config.
pub(crate) fn registry_with(http: &str) -> Option<Registry> {
    registry_of(http, "")
}

fn registry_of(http: &str, extra: &str) -> Option<Registry> {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = dir.path().join("config.yml");
    let root = dir.path().join("data");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}{http}}}\n{extra}",
        root.display()
    );
    fs::write(&config, text).unwrap();
    let child =
        Command::new("docker-registry").arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = child else {
        println!("skipped: no docker-registry");
        return None;
    };
    let registry = Registry { child, port, _dir: dir };
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(registry);
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("docker-registry does not listen");
}

/// Bytes that no compressor makes smaller.
pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        out.extend_from_slice(&seed.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// An image of two layers with large files, as an OCI layout; and its tree.
pub(crate) fn make_image(layout: &Path) -> Tree {
    make_image_of(layout, 2, 3_000_000)
}

/// An image of so many layers with a file of that size in each.
pub(crate) fn make_image_of(layout: &Path, layers: u64, size: usize) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut tree = Tree::default();
    let (mut ids, mut blobs) = (Vec::new(), Vec::new());
    for i in 1..=layers {
        let writer = store.bundle_writer();
        let bytes = noise(size, i);
        let (content, size) = writer.add_reader(&mut bytes.as_slice(), 0).unwrap();
        let meta = Meta::new(0o644, Mtime::pinned(i as i64, 0));
        let mut diff = Diff::default();
        diff.set(format!("/f{i}").as_bytes(), Change::Put(Node::File(File { meta, size, content, link: None })));
        tree = diff.apply(&tree).unwrap();
        let bundle = writer.finish(&diff).unwrap();
        let layer = export_layer(&store, &bundle, Compression::default(), TimestampPolicy::Keep).unwrap();
        ids.push(layer.diff_id);
        blobs.push(layer.blob);
    }
    let config = ImageConfig {
        platform: Platform::default(),
        rootfs: RootFs { diff_ids: ids, ..RootFs::default() },
        ..ImageConfig::default()
    };
    let made = output::assemble(&store, &json::config(&config).unwrap(), &blobs, &BTreeMap::new(), false).unwrap();
    let image = OutputImage { root: made.manifest, names: vec!["x:1".parse().unwrap()], created: None };
    output::write_oci(&store, &image, &Dest::Dir(layout.into())).unwrap();
    tree
}

pub(crate) fn skopeo(args: &[&str]) -> bool {
    let Ok(output) = Command::new("skopeo").arg("--insecure-policy").args(args).output() else {
        println!("skipped: no skopeo");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

pub(crate) fn push(layout: &Path, port: u16, name: &str, extra: &[&str]) -> bool {
    let (from, to) = (format!("oci:{}:1", layout.display()), format!("docker://127.0.0.1:{port}/{name}"));
    skopeo(&[&["copy", "-q", "--dest-tls-verify=false"], extra, &[&from, &to]].concat())
}

/// A proxy in front of a port that breaks a connection after so many bytes of answers, as long as `breaks` lasts.
pub(crate) fn breaking_proxy(port: u16, after: usize, breaks: Arc<AtomicUsize>) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicU64::new(0));
    let total = passed.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (breaks, total) = (breaks.clone(), total.clone());
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let mut buffer = [0; 16 * 1024];
                let mut here = 0;
                while let Ok(count @ 1..) = server.read(&mut buffer) {
                    here += count;
                    total.fetch_add(count as u64, Ordering::Relaxed);
                    if client.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                    let left = |n: usize| n.checked_sub(1);
                    if here > after && breaks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (own, passed)
}

/// Options without the credentials of whoever runs the tests.
pub(crate) fn nobody() -> RegistryOptions {
    RegistryOptions { docker_config: Some("/nonexistent".into()), ..RegistryOptions::default() }
}

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

pub(crate) fn open(name: &str, store: &Store) -> Result<image::BaseImage, ImageError> {
    open_with(name, store, RegistryOptions::default())
}

pub(crate) fn open_with(name: &str, store: &Store, options: RegistryOptions) -> Result<image::BaseImage, ImageError> {
    let registries = Registries::new(options);
    image::open(&ImageSource::Registry(name.parse().unwrap()), &Platform::default(), store, &registries)
}

/// A proxy in front of a port that cuts connections after some random number of bytes of either direction, as often as
/// `cuts` says.
pub(crate) fn cutting_proxy(port: u16, most: u64, cuts: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let left = Arc::new(AtomicU64::new(1 + seed % most));
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (left, cuts) = (left.clone(), cuts.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        let passed =
                            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| l.checked_sub(count as u64));
                        let cut = |n: usize| n.checked_sub(1);
                        if passed.is_err() && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).is_ok() {
                            break;
                        }
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = from.shutdown(std::net::Shutdown::Both);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    own
}
