//! Paths and requests that are meant to do harm: refused before a storage sees them.

use std::io::{Read as _, Write as _};

use crate::client::{Running, connect};

/// Sends bytes, and gives what comes back, whatever it is.
fn raw(server: &Running, request: &[u8]) -> String {
    let mut stream = connect(server.addr);
    // The server may refuse before it has all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// All that is beside and in the data directory.
fn untouched(server: &Running) {
    assert_eq!(server.files(), Vec::<String>::new());
    let beside: Vec<_> = std::fs::read_dir(server.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["data"]);
}

#[test]
fn names_that_are_none() {
    let server = Running::new();
    let hex = "a".repeat(64);
    let names = [
        "%2e%2e".to_owned(),
        "..%2f..%2f..%2fetc%2fpasswd".to_owned(),
        "..%5c..%5cetc".to_owned(),
        "%252e%252e%252fetc".to_owned(),
        "%2fetc%2fpasswd".to_owned(),
        "....%2f%2f".to_owned(),
        "%00".to_owned(),
        format!("{hex}%00"),
        format!("{hex}%00.txt"),
        format!("%20{hex}"),
        format!("{hex}%0d%0aX-Evil:%201"),
        format!("{hex}%0a"),
        format!("{hex}%2f.."),
        format!("{}%2f", &hex[1..]),
        format!("%EF%BC%A1{hex}"),
        format!("sha256:sha256:{hex}"),
        "index.sqlite".to_owned(),
        "..;".to_owned(),
        "~".to_owned(),
        "%C0%AE%C0%AE%C0%AF".to_owned(),
        "a".repeat(8_000),
        "%61".repeat(8_000),
    ];
    for name in &names {
        for (route, code) in
            [("/cache/", "invalid_digest"), ("/cache/layer/", "invalid_digest"), ("/record/", "invalid_key")]
        {
            for method in ["GET", "PUT"] {
                let path = format!("{route}{name}");
                let reply = server.send(method, &path, &[], if method == "PUT" { b"x" } else { b"" });
                let expected = if name.starts_with("%C0") { "invalid_path" } else { code };
                assert_eq!((reply.status, reply.error()), (400, expected.into()), "{method} {path}");
                assert!(reply.body.len() < 1000, "what was sent is not sent back whole");
                assert!(reply.header("x-evil").is_none());
            }
        }
    }
    for key in [
        format!("..:{hex}"),
        format!("a%2f..:{hex}"),
        format!("{}:{hex}", "a".repeat(33)),
        format!("a%00:{hex}"),
        format!(":{hex}"),
        "result:%2e%2e".to_owned(),
    ] {
        let reply = server.put(&format!("/record/{key}"), b"{\"value\":\"\"}");
        assert_eq!((reply.status, reply.error()), (400, "invalid_key".into()), "{key}");
    }
    // A record's key, and no digest.
    assert_eq!(server.get(&format!("/cache/sha512:{hex}")).error(), "invalid_digest");
    // Digests that a body names go through the same gate.
    for name in ["..", "../../etc/passwd", "\\u0000", "sha256:..", &hex[1..]] {
        let reply = server.send("POST", "/cache/missing", &[], format!("[\"{name}\"]").as_bytes());
        assert_eq!(reply.error(), "invalid_digest", "{name}");
        let record = format!("{{\"value\":\"\",\"blobs\":[\"{name}\"]}}");
        assert_eq!(server.put(&format!("/record/result:{hex}"), record.as_bytes()).error(), "invalid_digest", "{name}");
    }
    untouched(&server);
}

#[test]
fn requests_that_are_none() {
    let server = Running::new();
    let hex = "a".repeat(64);
    let long = format!("GET /cache/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let headers = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(5_000));
    for request in [
        long.as_bytes(),
        headers.as_bytes(),
        many.as_bytes(),
        b"GET /cache/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /cache/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /cache/ a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /cache/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"PUT /cache/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /cache/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"PUT /cache/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = raw(&server, request);
        // Refused, or not worth a word.
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:?}: {answer}", String::from_utf8_lossy(&request[..request.len().min(80)]));
    }
    // Two lengths are how requests are smuggled past proxies: what counts is one body, and nothing that follows it.
    let smuggled = format!(
        "PUT /cache/{hex} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /gc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(&server, smuggled.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    // Other forms of a request's target (RFC 9112 section 3.2) name the same routes or none.
    for (target, status) in [
        (format!("http://evil.example/cache/{hex}"), "404"),
        (format!("//cache/{hex}"), "404"),
        (format!("/cache//{hex}"), "404"),
        (format!("/./cache/{hex}"), "404"),
        (format!("/cache/{hex}?../../etc"), "404"),
        (format!("/cache/{hex}/../../gc"), "404"),
    ] {
        let answer = raw(&server, format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert_eq!(answer.split(' ').nth(1), Some(status), "{target}: {answer}");
    }
    assert_eq!(server.get("/healthz").status, 200);
    untouched(&server);
}

#[test]
fn bodies_have_limits_wherever_they_go() {
    let server = Running::with(|config| config.max_blob = 1_000_000);
    let hex = "b".repeat(64);
    // The announced length is enough to refuse it; without one, the first byte too many.
    let announced =
        format!("PUT /cache/{hex} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000001\r\n\r\n");
    let mut stream = connect(server.addr);
    stream.write_all(announced.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = [b"186a0\r\n".as_slice(), &vec![0; 100_000], b"\r\n"].concat();
    let mut chunked =
        format!("PUT /cache/{hex} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    (0..11).for_each(|_| chunked.extend_from_slice(&chunk));
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert!(raw(&server, &chunked).starts_with("HTTP/1.1 413"));
    // A few bytes that unpack to many.
    let bomb = zstd::encode_all(&vec![0; 50_000_000][..], 19).unwrap();
    assert!(bomb.len() < 100_000);
    let reply = server.send("PUT", &format!("/cache/{hex}"), &["Content-Encoding: zstd"], &bomb);
    assert_eq!((reply.status, reply.error()), (413, "too_large".into()));
    assert_eq!(server.send("POST", "/cache/missing", &[], &vec![b' '; 900_000]).error(), "too_large");
    let deep = "[".repeat(500_000);
    assert_eq!(server.send("POST", "/cache/missing", &[], deep.as_bytes()).error(), "invalid_json");
    untouched(&server);
}
