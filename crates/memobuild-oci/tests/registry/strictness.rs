//! That the strict registry is one: requests by hand, over one connection, that the specification has refused.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use memobuild_image::{Descriptor, Manifest, json, media};
use memobuild_tree::Sha256Digest;

use crate::strict::{Options, Place, Strict};

struct Connection(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|h| h.strip_prefix(&format!("{name}: ")))
    }
}

impl Connection {
    fn to(strict: &Strict) -> Self {
        Self(BufReader::new(TcpStream::connect(&strict.host).unwrap()))
    }

    /// With a `Content-Length`, unless the headers say that it comes in chunks.
    fn ask(&mut self, request: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut text = format!("{request} HTTP/1.1\r\nhost: x\r\n");
        if !headers.iter().any(|h| h.starts_with("transfer-encoding")) {
            text += &format!("content-length: {}\r\n", body.len());
        }
        for header in headers {
            text += &format!("{header}\r\n");
        }
        let stream = self.0.get_mut();
        stream.write_all(text.as_bytes()).unwrap();
        stream.write_all(b"\r\n").unwrap();
        stream.write_all(body).unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.remove(0).split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, headers: lines, body: String::new() };
        let length = answer.header("content-length").map_or(0, |l| l.parse().unwrap());
        if !request.starts_with("HEAD") {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).unwrap();
            answer.body = String::from_utf8_lossy(&body).into_owned();
        }
        answer
    }

    /// The status, and the code of the error.
    fn refused(&mut self, request: &str, headers: &[&str], body: &[u8]) -> (u16, String) {
        let answer = self.ask(request, headers, body);
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        (answer.status, value["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
    }

    fn open(&mut self) -> String {
        let answer = self.ask("POST /v2/a/blobs/uploads/", &[], b"");
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    fn blob(&mut self, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(media::LAYER, bytes);
        let answer = self.ask(&format!("POST /v2/a/blobs/uploads/?digest={}", blob.digest), &[OCTETS], bytes);
        assert_eq!(answer.status, 201, "{answer:?}");
        blob
    }
}

const OCTETS: &str = "content-type: application/octet-stream";

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}

#[test]
fn uploads_by_the_letter() {
    let strict = Strict::new(Options::default());
    let mut to = Connection::to(&strict);
    let place = to.open();
    let patch = format!("PATCH {place}");
    assert_eq!(to.refused(&patch, &["content-range: 0-2"], b"abc"), code(400, "BLOB_UPLOAD_INVALID"));
    assert_eq!(to.refused(&patch, &[OCTETS], b"abc"), code(400, "BLOB_UPLOAD_INVALID"));
    assert_eq!(to.refused(&patch, &[OCTETS, "content-range: bytes 0-2"], b"abc"), code(400, "BLOB_UPLOAD_INVALID"));
    assert_eq!(to.refused(&patch, &[OCTETS, "content-range: 0-1"], b"abc"), code(400, "SIZE_INVALID"));
    assert_eq!(to.ask(&patch, &[OCTETS, "content-range: 1-3"], b"abc").status, 416);
    let answer = to.ask(&patch, &[OCTETS, "content-range: 0-2"], b"abc");
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-2")));
    // Out of order, and how far it is.
    let answer = to.ask(&patch, &[OCTETS, "content-range: 5-7"], b"fgh");
    assert_eq!((answer.status, answer.header("range")), (416, Some("0-2")));
    // In chunks; and more of them than the range has.
    let chunked = "transfer-encoding: chunked";
    let answer = to.ask(&patch, &[OCTETS, "content-range: 3-5", chunked], b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n");
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-5")));
    let more = to.refused(&patch, &[OCTETS, "content-range: 6-6", chunked], b"2\r\ngh\r\n0\r\n\r\n");
    assert_eq!(more, code(400, "SIZE_INVALID"));
    let answer = to.ask(&format!("GET {place}"), &[], b"");
    assert_eq!((answer.status, answer.header("range")), (204, Some("0-5")));
    assert!(answer.header("location").is_some());
    // Other algorithms, and other bytes.
    let sha512 = format!("PUT {place}?digest=sha512:{}", "0".repeat(128));
    assert_eq!(to.refused(&sha512, &[], b""), code(400, "DIGEST_INVALID"));
    let place = to.open();
    let wrong = format!("PUT {place}?digest={}", Sha256Digest::of(b"other"));
    assert_eq!(to.refused(&wrong, &[OCTETS], b"abc"), code(400, "DIGEST_INVALID"));
    // It ends, then, or is cancelled.
    assert_eq!(to.refused(&format!("GET {place}"), &[], b""), code(404, "BLOB_UPLOAD_UNKNOWN"));
    let place = to.open();
    assert_eq!(to.ask(&format!("DELETE {place}"), &[], b"").status, 204);
    assert_eq!(to.refused(&format!("GET {place}"), &[], b""), code(404, "BLOB_UPLOAD_UNKNOWN"));
    // A body that is cut off is kept as far as it came.
    let place = to.open();
    let mut other = TcpStream::connect(&strict.host).unwrap();
    write!(other, "PATCH {place} HTTP/1.1\r\n{OCTETS}\r\ncontent-range: 0-99\r\ncontent-length: 100\r\n\r\nabcdefg")
        .unwrap();
    drop(other);
    let mut range = None;
    for _ in 0..100 {
        range = to.ask(&format!("GET {place}"), &[], b"").header("range").map(str::to_owned);
        if range.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(range.as_deref(), Some("0-6"));
}

#[test]
fn parts_and_places_by_the_letter() {
    let strict = Strict::new(Options { min_chunk: 4, place: Place::Absolute, ..Options::default() });
    let mut to = Connection::to(&strict);
    let answer = to.ask("POST /v2/a/blobs/uploads/", &[], b"");
    assert_eq!(answer.header("oci-chunk-min-length"), Some("4"));
    let first = answer.header("location").unwrap().replace(&format!("http://{}", strict.host), "");
    let answer = to.ask(&format!("PATCH {first}"), &[OCTETS, "content-range: 0-2"], b"abc");
    assert_eq!(answer.status, 202);
    // The place is another now, though the old one still says how far it is.
    let again = to.refused(&format!("PATCH {first}"), &[OCTETS, "content-range: 3-6"], b"defg");
    assert_eq!(again, code(404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(to.ask(&format!("GET {first}"), &[], b"").header("range"), Some("0-2"));
    // A short part must be the last.
    let next = answer.header("location").unwrap().replace(&format!("http://{}", strict.host), "");
    let more = to.refused(&format!("PATCH {next}"), &[OCTETS, "content-range: 3-6"], b"defg");
    assert_eq!(more, code(400, "BLOB_UPLOAD_INVALID"));
    let digest = Sha256Digest::of(b"abc");
    assert_eq!(to.ask(&format!("PUT {next}&digest={digest}"), &[], b"").status, 201);
    let head = to.ask(&format!("HEAD /v2/a/blobs/{digest}"), &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    assert_eq!(head.header("docker-content-digest"), Some(digest.to_string().as_str()));
}

#[test]
fn manifests_and_lists_by_the_letter() {
    let strict = Strict::new(Options { delete: false, ..Options::default() });
    let mut to = Connection::to(&strict);
    let kind = format!("content-type: {}", media::MANIFEST);
    let kind = kind.as_str();
    let (config, layer) = (to.blob(b"{}"), to.blob(b"layer"));
    let manifest = |layer: &Descriptor| json::compact(&Manifest::new(config.clone(), vec![layer.clone()])).unwrap();
    let good = manifest(&layer);
    let put = "PUT /v2/a/manifests/1";
    assert_eq!(to.refused(put, &["content-type: application/json"], &good), code(400, "MANIFEST_INVALID"));
    let index = format!("content-type: {}", media::INDEX);
    assert_eq!(to.refused(put, &[&index], &good), code(400, "MANIFEST_INVALID"));
    let missing = manifest(&Descriptor::of(media::LAYER, b"missing"));
    assert_eq!(to.refused(put, &[kind], &missing), code(404, "MANIFEST_BLOB_UNKNOWN"));
    let sized = manifest(&Descriptor { size: 6, ..layer.clone() });
    assert_eq!(to.refused(put, &[kind], &sized), code(400, "SIZE_INVALID"));
    assert_eq!(to.refused(put, &[kind], &vec![b' '; (4 << 20) + 1]), code(413, "SIZE_INVALID"));
    let other = format!("PUT /v2/a/manifests/{}", Sha256Digest::of(b"other"));
    assert_eq!(to.refused(&other, &[kind], &good), code(400, "DIGEST_INVALID"));
    assert_eq!(to.refused("PUT /v2/a/manifests/-1", &[kind], &good), code(400, "MANIFEST_INVALID"));
    assert_eq!(to.refused("PUT /v2/A/manifests/1", &[kind], &good), code(400, "NAME_INVALID"));
    assert_eq!(to.refused("PUT /v2/a..b/manifests/1", &[kind], &good), code(400, "NAME_INVALID"));
    for tag in ["1", "2", "3"] {
        let answer = to.ask(&format!("PUT /v2/a/manifests/{tag}"), &[kind], &good);
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("docker-content-digest"), Some(Sha256Digest::of(&good).to_string().as_str()));
    }
    assert_eq!(to.ask("GET /v2/a/manifests/1", &[], b"").body.as_bytes(), good);
    assert_eq!(to.ask("GET /v2/a/manifests/1", &["accept: text/plain"], b"").status, 406);
    assert_eq!(to.refused("DELETE /v2/a/manifests/1", &[], b""), code(405, "UNSUPPORTED"));
    assert_eq!(to.ask("GET /v2/a/tags/list?n=0", &[], b"").body, r#"{"name":"a","tags":[]}"#);
    let page = to.ask("GET /v2/a/tags/list?n=1&last=1", &[], b"");
    assert_eq!(page.body, r#"{"name":"a","tags":["2"]}"#);
    assert_eq!(page.header("link"), Some(r#"</v2/a/tags/list?n=1&last=2>; rel="next""#));
    assert_eq!(to.refused("GET /v2/none/tags/list", &[], b""), code(404, "NAME_UNKNOWN"));
    assert_eq!(to.refused("GET /v2/a/referrers/sha256:1", &[], b""), code(400, "DIGEST_INVALID"));
    let none = to.ask(&format!("GET /v2/none/referrers/{}", layer.digest), &[], b"");
    assert_eq!((none.status, none.header("content-type")), (200, Some(media::INDEX)));
    let part = to.ask(&format!("GET /v2/a/blobs/{}", layer.digest), &["range: bytes=2-"], b"");
    assert_eq!((part.status, part.body.as_str()), (206, "yer"));
    assert_eq!(to.ask(&format!("GET /v2/a/blobs/{}", layer.digest), &["range: bytes=5-"], b"").status, 416);
    assert_eq!(to.ask("GET /v2/", &[], b"").status, 200);
}
