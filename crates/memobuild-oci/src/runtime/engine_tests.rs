//! Against a small daemon that does what the API's documents and docker's own loader do, no more and no less.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread,
};

use memobuild_store::Store;

use super::*;
use crate::{
    image::BaseLayer,
    layer::{Compression, TimestampPolicy, export_layer},
    runtime::test_images::{image, layer, remote, store},
};

#[derive(Default)]
struct Daemon {
    /// Layers by chain: the diff IDs from the lowest on.
    chains: Vec<Vec<String>>,
    /// By ID: layers and tags.
    images: BTreeMap<String, (Vec<String>, Vec<String>)>,
    requests: Vec<String>,
    /// Answers of `/images/json` name layers that a load does not find any more.
    forgets: bool,
    /// Answers each load with this error.
    fails: bool,
    podman: bool,
    containerd: bool,
}

type Shared = Arc<Mutex<Daemon>>;

impl Daemon {
    fn start(self) -> (tempfile::TempDir, Shared, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = Arc::new(Mutex::new(self));
        let shared = daemon.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut daemon = daemon.lock().unwrap();
                daemon.serve(stream);
            }
        });
        let engine = Engine::connect(&Address::Unix(path)).unwrap();
        (dir, shared, engine)
    }

    fn serve(&mut self, mut stream: UnixStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let Some(first) = head.first() else { return };
        let (method, path) = first.strip_suffix(" HTTP/1.1").unwrap().split_once(' ').unwrap();
        self.requests.push(format!("{method} {path}"));
        let body = match head.iter().any(|h| h == "Transfer-Encoding: chunked") {
            true => match chunks(&mut reader) {
                Some(body) => body,
                // A request that was cut off has no answer.
                None => return,
            },
            false => Vec::new(),
        };
        let (status, text) = self.answer(method, path, &body);
        let podman = if self.podman { "Libpod-API-Version: 4.3.1\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\n{podman}Content-Length: {}\r\n\r\n{text}", text.len());
        stream.write_all(answer.as_bytes()).unwrap();
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        if (method, path) == ("GET", "/_ping") {
            return (200, "OK".into());
        }
        let Some(path) = path.strip_prefix("/v1.41") else { return (400, r#"{"message":"bad version"}"#.into()) };
        let parts: Vec<&str> = path.trim_start_matches('/').split(['/', '?']).collect();
        match (method, parts.as_slice()) {
            ("GET", ["info"]) => {
                let driver = if self.containerd { "io.containerd.snapshotter.v1" } else { "x" };
                (200, format!(r#"{{"DriverStatus":[["Backing","ext4"],["driver-type","{driver}"]]}}"#))
            }
            ("GET", ["images", "json"]) => {
                let ids: Vec<_> = self.images.keys().map(|id| format!(r#"{{"Id":"{id}","RepoTags":null}}"#)).collect();
                (200, format!("[{}]", ids.join(",")))
            }
            ("GET", ["images", id, "json"]) => match self.images.get(*id) {
                Some((layers, _)) => (200, format!(r#"{{"Id":"{id}","RootFS":{{"Layers":{layers:?}}}}}"#)),
                None => (404, r#"{"message":"No such image"}"#.into()),
            },
            ("POST", ["images", id, "tag", query]) => match self.images.get_mut(*id) {
                Some((_, tags)) => {
                    tags.push((*query).to_owned());
                    (201, String::new())
                }
                None => (404, r#"{"message":"No such image"}"#.into()),
            },
            ("POST", ["images", "load", "quiet=1"]) => match self.load(body) {
                Ok(()) => (200, r#"{"stream":"Loaded image: x\n"}"#.into()),
                // As docker does it: the status was sent long ago.
                Err(e) => (200, format!(r#"{{"stream":"x"}}{{"errorDetail":{{"message":{e:?}}},"error":{e:?}}}"#)),
            },
            _ => (404, r#"{"message":"page not found"}"#.into()),
        }
    }

    fn load(&mut self, body: &[u8]) -> Result<(), String> {
        if self.fails {
            return Err("no space left on device".into());
        }
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(body).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert!(files.insert(entry.path().unwrap().to_string_lossy().into_owned(), bytes).is_none());
        }
        if std::mem::take(&mut self.forgets) {
            self.chains.clear();
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let image = &manifest[0];
        let config = files.get(image["Config"].as_str().unwrap()).ok_or("no config")?;
        let read: serde_json::Value = serde_json::from_slice(config).unwrap();
        let ids: Vec<String> =
            read["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), image["Layers"].as_array().unwrap().len());
        for (at, id) in ids.iter().enumerate() {
            let chain = ids[..=at].to_vec();
            if self.chains.contains(&chain) {
                continue;
            }
            let name = image["Layers"][at].as_str().unwrap();
            let bytes = files.get(name).ok_or(format!("open {name}: no such file or directory"))?;
            let mut plain = Vec::new();
            match bytes.starts_with(&[0x1f, 0x8b]) {
                true => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap(),
                false => bytes.as_slice().read_to_end(&mut plain).unwrap(),
            };
            assert_eq!(Sha256Digest::of(&plain).to_string(), *id);
            self.chains.push(chain);
        }
        let name = match self.containerd {
            true => {
                let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
                index["manifests"][0]["digest"].as_str().unwrap().to_owned()
            }
            false => Sha256Digest::of(config).to_string(),
        };
        let tags = image["RepoTags"].as_array().map(|t| t.iter().map(|t| t.as_str().unwrap().to_owned()).collect());
        self.images.insert(name, (ids, tags.unwrap_or_default()));
        Ok(())
    }
}

/// A chunked body; none if it was cut off.
fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.strip_suffix("\r\n")?, 16).unwrap();
        let begin = body.len();
        reader.take(size).read_to_end(&mut body).ok()?;
        if body.len() - begin < size as usize {
            return None;
        }
        line.clear();
        reader.read_line(&mut line).ok()?;
        assert_eq!(line, "\r\n");
        if size == 0 {
            return Some(body);
        }
    }
}

fn load(engine: &Engine, store: &Store, layers: &[BaseLayer], name: &str) -> Result<Loaded, RuntimeError> {
    let image = image(store, layers);
    engine.load(&LoadImage { store, image: &image, names: vec![name.parse().unwrap()] }, &|done, total| {
        assert!(done <= total.unwrap());
    })
}

fn loads(daemon: &Shared) -> usize {
    daemon.lock().unwrap().requests.iter().filter(|r| r.contains("/images/load")).count()
}

#[test]
fn what_is_there_is_not_sent_again() {
    let (_keep, store) = store();
    let (_dir, daemon, engine) = Daemon::default().start();
    let (low, high) = (layer(&store, &"low ".repeat(10_000)), layer(&store, "high"));
    let first = load(&engine, &store, &[low.clone(), high.clone()], "app:1").unwrap();
    assert_eq!((first.layers_sent, first.layers_present), (2, 0));
    assert_eq!(daemon.lock().unwrap().images[&first.id.to_string()].1, ["app:1"]);

    // Under another name: nothing but the name.
    let second = load(&engine, &store, &[low.clone(), high.clone()], "host:5000/team/app:2").unwrap();
    assert_eq!((second.sent, second.layers_sent, second.layers_present), (0, 0, 2));
    assert_eq!(loads(&daemon), 1);
    let tags = daemon.lock().unwrap().images[&first.id.to_string()].1.clone();
    assert_eq!(tags, ["app:1", "repo=host%3A5000%2Fteam%2Fapp&tag=2"]);

    // Another upper layer: only that.
    let third = load(&engine, &store, &[low, layer(&store, "other")], "app:3").unwrap();
    assert_eq!((third.layers_sent, third.layers_present), (1, 1));
    assert!(third.sent < 10_000 && first.sent > 40_000, "{first:?} {third:?}");

    // The same layer upon nothing is another chain.
    let fourth = load(&engine, &store, &[high], "app:4").unwrap();
    assert_eq!((fourth.layers_sent, fourth.layers_present), (1, 0));
}

#[test]
fn layers_on_a_registry_are_not_fetched_where_docker_has_them() {
    let (_keep, store) = store();
    let base = remote("base");
    let mut daemon = Daemon::default();
    daemon.chains.push(vec![base.diff_id.to_string()]);
    daemon.images.insert(Sha256Digest::of(b"base").to_string(), (vec![base.diff_id.to_string()], vec![]));
    let (_dir, daemon, engine) = daemon.start();
    let own = layer(&store, "own");
    let loaded = load(&engine, &store, &[base.clone(), own.clone()], "app").unwrap();
    assert_eq!((loaded.layers_sent, loaded.layers_present), (1, 1));
    assert!(store.oci_blob_path(&base.blob.clone().unwrap().digest).is_none());

    // One that it lacks has to be fetched, which fails here; the daemon is left without half an image.
    let error = load(&engine, &store, &[remote("other"), own], "app").unwrap_err();
    assert!(matches!(error, RuntimeError::Image(_)), "{error}");
    assert_eq!(daemon.lock().unwrap().images.len(), 2);
}

#[test]
fn all_is_sent_where_what_was_there_is_gone() {
    let (_keep, store) = store();
    let low = layer(&store, "low");
    let mut daemon = Daemon { forgets: true, ..Daemon::default() };
    daemon.images.insert(Sha256Digest::of(b"old").to_string(), (vec![low.diff_id.to_string()], vec![]));
    let (_dir, daemon, engine) = daemon.start();
    let loaded = load(&engine, &store, &[low, layer(&store, "high")], "app").unwrap();
    assert_eq!((loaded.layers_sent, loaded.layers_present), (2, 0));
    assert_eq!(loads(&daemon), 2);
}

#[test]
fn errors_in_the_stream_of_a_load_are_heard() {
    let (_keep, store) = store();
    let (_dir, daemon, engine) = Daemon { fails: true, ..Daemon::default() }.start();
    let error = load(&engine, &store, &[layer(&store, "a")], "app").unwrap_err();
    assert!(error.to_string().contains("load: no space left on device"), "{error}");
    assert_eq!(loads(&daemon), 1);
}

#[test]
fn podman_is_sent_all_layers() {
    let (_keep, store) = store();
    let (_dir, daemon, engine) = Daemon { podman: true, ..Daemon::default() }.start();
    assert_eq!(engine.kind, RuntimeKind::Podman);
    let low = layer(&store, "low");
    load(&engine, &store, std::slice::from_ref(&low), "app:1").unwrap();
    let loaded = load(&engine, &store, &[low, layer(&store, "high")], "app:2").unwrap();
    assert_eq!((loaded.layers_sent, loaded.layers_present), (2, 0));
    assert!(!daemon.lock().unwrap().requests.iter().any(|r| r.ends_with("/images/json")));
}

#[test]
fn containerds_image_store_is_sent_a_whole_layout() {
    let (_keep, store) = store();
    let (_dir, daemon, engine) = Daemon { containerd: true, ..Daemon::default() }.start();
    let layers = [layer(&store, "low"), layer(&store, "high")];
    let loaded = load(&engine, &store, &layers, "app:1").unwrap();
    assert_eq!((loaded.layers_sent, loaded.layers_present), (2, 0));
    assert_eq!(load(&engine, &store, &layers, "app:2").unwrap().sent, 0);
    assert_eq!(loads(&daemon), 1);
}

#[test]
fn layers_in_zstd_are_sent_as_plain_tar() {
    let (_keep, store) = store();
    let (_dir, _daemon, engine) = Daemon::default().start();
    let own = layer(&store, &"zstd ".repeat(1000));
    let packed = export_layer(&store, &own.bundle.unwrap(), Compression::Zstd { level: 3 }, TimestampPolicy::Keep);
    let base = BaseLayer { blob: Some(packed.unwrap().blob), bundle: None, ..own };
    let loaded = load(&engine, &store, &[base], "app").unwrap();
    assert!(loaded.layers_sent == 1 && loaded.sent > 5000, "{loaded:?}");
}

#[test]
fn equal_layers_are_sent_once() {
    let (_keep, store) = store();
    let (_dir, daemon, engine) = Daemon::default().start();
    let same = layer(&store, "same");
    let loaded = load(&engine, &store, &[same.clone(), layer(&store, "x"), same], "app").unwrap();
    assert_eq!(daemon.lock().unwrap().images[&loaded.id.to_string()].0.len(), 3);
}

#[test]
fn refusals_and_versions() {
    assert_eq!(complaint(br#"{"stream":"a"} {"error":"b"}"#), Some("b".into()));
    assert_eq!(complaint(br#"{"stream":"a"}"#), None);
    assert_eq!(complaint(b"not JSON"), None);
    assert!(is_version("1.41") && !is_version("1") && !is_version("1.4/x") && !is_version(""));
}
