//! Pulls from a real registry (Debian's docker-registry, on loopback, filled by skopeo), through a proxy that breaks
//! connections. Skipped, saying so, where these programs lack.

#![allow(clippy::unwrap_used)]

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
    registry::{Registries, RegistryError, RegistryOptions},
};
use memobuild_store::Store;
use memobuild_tree::{Change, Diff, File, Meta, Mtime, Node, Tree};

struct Registry {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A registry on a free port; `extra` is added to its config.
fn registry(extra: &str) -> Option<Registry> {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = dir.path().join("config.yml");
    let root = dir.path().join("data");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{extra}",
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
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
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
fn make_image(layout: &Path) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut tree = Tree::default();
    let (mut ids, mut blobs) = (Vec::new(), Vec::new());
    for i in 1..3u64 {
        let writer = store.bundle_writer();
        let bytes = noise(3_000_000, i);
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

fn skopeo(args: &[&str]) -> bool {
    let Ok(output) = Command::new("skopeo").arg("--insecure-policy").args(args).output() else {
        println!("skipped: no skopeo");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn push(layout: &Path, port: u16, name: &str, extra: &[&str]) -> bool {
    let (from, to) = (format!("oci:{}:1", layout.display()), format!("docker://127.0.0.1:{port}/{name}"));
    skopeo(&[&["copy", "-q", "--dest-tls-verify=false"], extra, &[&from, &to]].concat())
}

/// A proxy in front of a port that breaks a connection after so many bytes of answers, as long as `breaks` lasts.
fn breaking_proxy(port: u16, after: usize, breaks: Arc<AtomicUsize>) -> (u16, Arc<AtomicU64>) {
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

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn open(name: &str, store: &Store) -> Result<image::BaseImage, ImageError> {
    open_with(name, store, RegistryOptions::default())
}

fn open_with(name: &str, store: &Store, options: RegistryOptions) -> Result<image::BaseImage, ImageError> {
    let registries = Registries::new(options);
    image::open(&ImageSource::Registry(name.parse().unwrap()), &Platform::default(), store, &registries)
}

#[test]
fn an_image_is_pulled_over_broken_connections_without_starting_again() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image(layout.path());
    let Some(registry) = registry("") else { return };
    if !push(layout.path(), registry.port, "a/b:1", &[]) {
        return;
    }
    // Ten breaks, each after half a megabyte or more: without resuming, six megabytes would never come through.
    let breaks = Arc::new(AtomicUsize::new(10));
    let (port, passed) = breaking_proxy(registry.port, 500_000, breaks.clone());
    let (_keep, store) = store();
    let base = open(&format!("127.0.0.1:{port}/a/b:1"), &store).unwrap();
    let most = AtomicU64::new(0);
    let progress = |bytes, _: Option<u64>| {
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    assert_eq!(base.tree(&progress).unwrap(), tree);
    assert_eq!(breaks.load(Ordering::Relaxed), 0);
    assert!(most.load(Ordering::Relaxed) >= 6_000_000);
    let passed = passed.load(Ordering::Relaxed);
    assert!(passed < 9_000_000, "{passed} bytes for 6 MB: downloads started again");
    // The blobs are there for passing on; and a second look needs the manifest alone.
    for i in 0..2 {
        assert!(store.oci_blob_path(&base.ensure_blob(i, &|_, _| ()).unwrap().digest).is_some());
    }
    let by_digest = format!("127.0.0.1:{}/a/b@{}", registry.port, base.manifest);
    let again = open(&by_digest, &store).unwrap();
    assert!(again.known_layer(1).unwrap().is_some());
}

#[test]
fn dockers_media_types_are_read() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image(layout.path());
    let Some(registry) = registry("") else { return };
    if push(layout.path(), registry.port, "a:latest", &["--format=v2s2"]) {
        let (_keep, store) = store();
        let base = open(&format!("localhost:{}/a", registry.port), &store).unwrap();
        assert_eq!(base.tree(&|_, _| ()).unwrap(), tree);
        assert_eq!(base.layers[0].blob.as_ref().unwrap().media_type, memobuild_oci::model::media::LAYER_GZIP);
    }
}

#[test]
fn what_is_not_there_is_said_clearly() {
    let Some(registry) = registry("") else { return };
    let (_keep, store) = store();
    let name = format!("127.0.0.1:{}/none:1", registry.port);
    let error = open(&name, &store).unwrap_err();
    assert_eq!(error.to_string(), format!("127.0.0.1:{}: none: 1 not found", registry.port));
    assert!(error.hint().is_some());
    let port = registry.port;
    drop(registry);
    let error = open(&format!("127.0.0.1:{port}/none"), &store).unwrap_err();
    assert!(error.hint().is_some());
    assert!(matches!(error, ImageError::Registry(RegistryError::Transport { .. })), "{error}");
}

#[test]
fn credentials_of_docker_login_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("htpasswd");
    // "user" with the password "secret", as htpasswd -B writes it.
    let made = Command::new("htpasswd").args(["-Bbn", "user", "secret"]).output();
    let Ok(made) = made else {
        println!("skipped: no htpasswd");
        return;
    };
    fs::write(&password, made.stdout).unwrap();
    let extra = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", password.display());
    let Some(registry) = registry(&extra) else { return };
    let layout = tempfile::tempdir().unwrap();
    make_image(layout.path());
    if !push(layout.path(), registry.port, "private", &["--dest-creds=user:secret"]) {
        return;
    }
    let name = format!("127.0.0.1:{}/private", registry.port);
    let (_keep, store) = store();
    let options = RegistryOptions { docker_config: Some(dir.path().into()), ..RegistryOptions::default() };
    let error = open_with(&name, &store, options.clone()).unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::Denied { with_credentials: false, .. })), "{error}");
    assert!(error.hint().unwrap().contains("docker login"));
    // "user:secret" in base64.
    let config = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.port);
    fs::write(dir.path().join("config.json"), config).unwrap();
    let base = open_with(&name, &store, options).unwrap();
    base.ensure_layer(1, &|_, _| ()).unwrap();
}

/// A registry that speaks the token protocol and asks a server of its own for tokens, made by hand.
#[test]
fn tokens_are_fetched_and_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let realm = format!("http://{host}/token");
    let (asked, seen) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let first = request.lines().next().unwrap_or_default().to_owned();
            let answer = |status: &str, headers: &str, body: &str| {
                format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
                    body.len()
                )
            };
            let reply = if first.starts_with("get /token?") {
                answer("200 OK", "", r#"{"access_token":"t0k"}"#)
            } else if request.contains("authorization: bearer t0k") {
                answer("200 OK", "content-type: application/vnd.oci.image.manifest.v1+json\r\n", "{}")
            } else {
                let header =
                    format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a:pull\"\r\n");
                answer("401 Unauthorized", &header, "")
            };
            asked.send(first).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let registries = Registries::new(RegistryOptions::default());
    let reference = format!("{host}/a:1").parse().unwrap();
    assert_eq!(registries.manifest(&reference).unwrap().bytes, b"{}");
    registries.manifest(&reference).unwrap();
    let asked: Vec<_> = seen.try_iter().collect();
    let manifest = "get /v2/a/manifests/1 http/1.1";
    assert_eq!(
        asked,
        [
            manifest,
            "get /token?service=s&scope=repository%3aa%3apull http/1.1",
            manifest,
            // The token is kept.
            manifest,
        ]
    );
}
