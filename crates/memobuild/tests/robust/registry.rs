//! A registry on loopback that serves one image of an OCI layout.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use serde_json::Value;

/// Serves the layout's first image as `HOST/base`; gives the host.
pub fn serve(layout: &Path) -> String {
    let layout = layout.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let layout = layout.clone();
            // A client that goes away is none of our concern.
            thread::spawn(move || answer_all(&layout, &stream).unwrap_or_default());
        }
    });
    host
}

fn answer_all(layout: &Path, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        let (mut from, mut words) = (0, request.split(' '));
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        for header in lines.by_ref() {
            let header = header?.to_ascii_lowercase();
            if let Some(range) = header.strip_prefix("range: bytes=") {
                from = range.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            }
            if header.is_empty() {
                break;
            }
        }
        let Some(body) = body(layout, &path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let kind = if path.contains("/manifests/") { "vnd.oci.image.manifest.v1+json" } else { "octet-stream" };
        let (size, rest) = (body.len(), body.get(from..).unwrap_or_default());
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/{kind}\r\nContent-Length: {}\r\n", rest.len())?;
        write!(stream, "Content-Range: bytes {from}-{}/{size}\r\n\r\n", size.saturating_sub(1))?;
        if method != "HEAD" {
            stream.write_all(rest)?;
        }
    }
    Ok(())
}

fn body(layout: &Path, path: &str) -> Option<Vec<u8>> {
    let blob = |digest: &str| fs::read(layout.join("blobs").join(PathBuf::from(digest.replace(':', "/")))).ok();
    match path.strip_prefix("/v2/")?.rsplit_once('/') {
        None => Some(Vec::new()),
        Some(("base/manifests", name)) if !name.starts_with("sha256:") => {
            let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).ok()?).ok()?;
            blob(index["manifests"][0]["digest"].as_str()?)
        }
        Some(("base/manifests" | "base/blobs", digest)) => blob(digest),
        Some(_) => None,
    }
}
