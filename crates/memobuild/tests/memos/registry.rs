//! A registry on loopback that can break off in the middle of a layer.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::{hits::Start, image};

/// Serves the image of an OCI layout as `base:latest`.
struct Registry {
    port: u16,
    state: Arc<State>,
}

struct State {
    layout: PathBuf,
    /// Layers end half-way, however often they are asked for.
    breaks: AtomicBool,
    /// How often one did.
    broken: AtomicUsize,
    /// How many layers were sent to their end.
    sent: AtomicUsize,
}

impl Registry {
    fn start(layout: &Path) -> Self {
        let state = Arc::new(State {
            layout: layout.to_owned(),
            breaks: AtomicBool::new(false),
            broken: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = served.clone();
                // A client that goes away is none of our concern.
                thread::spawn(move || state.serve(&stream).unwrap_or_default());
            }
        });
        Self { port, state }
    }
}

impl State {
    fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.layout.join("blobs").join(digest.replace(':', "/"))).ok()
    }

    fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        if name.starts_with("sha256:") {
            return self.blob(name);
        }
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json")).ok()?).ok()?;
        self.blob(index["manifests"][0]["digest"].as_str()?)
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(request) = lines.next() {
            let request = request?;
            let (mut from, mut words) = (0, request.split(' '));
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            for header in lines.by_ref() {
                let header = header?.to_ascii_lowercase();
                if let Some(range) = header.strip_prefix("range: bytes=") {
                    from = range.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                }
                if header.is_empty() {
                    break;
                }
            }
            let body = match path.strip_prefix("/v2/").unwrap_or_default() {
                "" => Some(Vec::new()),
                path => match path.rsplit_once('/') {
                    Some(("base/manifests", name)) => self.manifest(name),
                    Some(("base/blobs", digest)) => self.blob(digest),
                    _ => None,
                },
            };
            let Some(body) = body else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            };
            let is_layer = body.len() > 100_000;
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let (size, rest) = (body.len(), body.get(from..).unwrap_or_default());
            let kind = if path.contains("/manifests/") { "vnd.oci.image.manifest.v1+json" } else { "octet-stream" };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: application/{kind}\r\nContent-Length: {}\r\nContent-Range: bytes \
                 {from}-{}/{size}\r\n\r\n",
                rest.len(),
                size.saturating_sub(1)
            )?;
            if method == "HEAD" {
                continue;
            }
            if is_layer && self.breaks.load(Ordering::SeqCst) {
                self.broken.fetch_add(1, Ordering::SeqCst);
                return stream.write_all(body.get(from..size / 2).unwrap_or_default());
            }
            stream.write_all(rest)?;
            self.sent.fetch_add(usize::from(is_layer), Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A layer's fetch that breaks off while a step needs it is the end of that step, not a file that is not there.
#[test]
fn the_fetch_of_a_base_s_layer_breaks_off() {
    let Some(project) = Start::new("RUN true\n", &[("a", "a\n")]).built() else { return };
    let registry = Registry::start(&project.base());
    project.dockerfile(&format!("FROM 127.0.0.1:{}/base\nCOPY a /a\nRUN cat /a > /b\n", registry.port));
    registry.state.breaks.store(true, Ordering::SeqCst);
    // A cache of its own: in the project's the layer is known from the layout.
    let cache = project.place.path("../other-cache");
    let failed = project.build_command(&[]).env("MEMOBUILD_CACHE_DIR", &cache).output().unwrap();
    let shown = crate::common::text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(5), "{shown}");
    assert!(registry.state.broken.load(Ordering::SeqCst) > 1, "it is tried again: {shown}");
    assert!(shown.contains("/base") && !shown.contains("panicked"), "{shown}");

    registry.state.breaks.store(false, Ordering::SeqCst);
    let (built, image) = image::build(&project, &cache);
    assert_eq!(built.ran.last().unwrap(), "RUN cat /a > /b");
    let (_, from_nothing) = image::build(&project, &project.place.path("../third-cache"));
    assert_eq!(image::differences(&image, &from_nothing), Vec::<String>::new());
    // What is known needs nothing of the registry but the manifest.
    let sent = registry.state.sent.load(Ordering::SeqCst);
    assert!(image::build(&project, &cache).0.ran.is_empty());
    assert_eq!(registry.state.sent.load(Ordering::SeqCst), sent);
}
