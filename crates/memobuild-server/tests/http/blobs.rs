//! Blobs and layers: in, out, and what is refused.

use std::{
    io::Write as _,
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use memobuild_tree::Sha256Digest;

use crate::client::{Running, answer, connect, head, noise};

#[test]
fn blobs_round_trip_whatever_their_length() {
    let server = Running::new();
    for size in [0, 1, 4096, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3_000_000] {
        let bytes = noise(size as u64, size);
        let hex = blake3::hash(&bytes).to_hex();
        let path = format!("/cache/{hex}");
        assert_eq!(server.get(&path).error(), "not_found");
        assert_eq!(server.send("HEAD", &path, &[], b"").status, 404);
        let reply = server.put(&path, &bytes);
        assert_eq!((reply.status, reply.json()["created"].as_bool()), (201, Some(true)), "{size}");
        assert_eq!(server.put(&path, &bytes).status, 200);
        let reply = server.get(&path);
        assert_eq!((reply.status, reply.body.len()), (200, size));
        assert!(reply.body == bytes);
        assert_eq!(reply.header("etag"), Some(&*format!("\"{hex}\"")));
        let reply = server.send("HEAD", &path, &[], b"");
        assert_eq!((reply.status, reply.header("content-length")), (200, Some(&*size.to_string())));
    }
}

#[test]
fn layers_have_names_of_their_own() {
    let server = Running::new();
    let digest = Sha256Digest::of(b"layer");
    let path = format!("/cache/layer/{}", digest.hex());
    assert_eq!(server.put(&path, b"layer").json()["digest"], digest.to_string());
    assert_eq!(server.get(&path).body, b"layer");
    assert_eq!(server.get(&format!("/cache/layer/{digest}")).body, b"layer");
    assert_eq!(server.get(&format!("/cache/{}", digest.hex())).status, 404);
    let reply = server.put(&format!("/cache/layer/{}", Sha256Digest::of(b"x").hex()), b"y");
    assert_eq!(reply.error(), "cas_integrity_failure");
}

#[test]
fn a_body_that_its_digest_does_not_name_is_not_stored() {
    let server = Running::new();
    let (right, wrong) = (noise(1, 500_000), noise(2, 500_001));
    let (expected, actual) = (blake3::hash(&right).to_hex().to_string(), blake3::hash(&wrong).to_hex().to_string());
    let path = format!("/cache/{expected}");
    let refused = || {
        let reply = server.put(&path, &wrong);
        assert_eq!(reply.status, 400);
        let json = reply.json();
        assert_eq!(json["error"], "cas_integrity_failure");
        assert_eq!(json["expected"], expected);
        assert_eq!(json["actual"], actual);
        assert_eq!(json["data_size"], 500_001);
    };
    refused();
    assert_eq!(server.get(&path).status, 404);
    assert_eq!(server.files(), Vec::<String>::new());
    // One that is there does not make a wrong body right.
    server.put(&path, &right);
    refused();
    assert!(server.get(&path).body == right);
    assert!(String::from_utf8(server.get("/metrics").body).unwrap().contains("memobuild_integrity_failures_total 2\n"));
}

#[test]
fn a_body_that_ends_early_leaves_nothing() {
    let server = Running::new();
    let bytes = noise(3, 1_000_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    for (framing, sent) in [("Content-Length: 1000000", &bytes[..600_000]), ("Transfer-Encoding: chunked", b"5\r\nhel")]
    {
        let mut stream = connect(server.addr);
        stream.write_all(head("PUT", &path, &[framing]).as_bytes()).unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // hyper may end the connection without a word.
        if let Some(reply) = answer(&stream, "PUT") {
            assert_eq!(reply.error(), "incomplete_body");
        }
    }
    assert_eq!(server.get(&path).status, 404);
    // What was begun goes a moment after the connection.
    let began = Instant::now();
    while !server.files().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", server.files());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn equal_blobs_at_once() {
    let server = Running::new();
    let bytes = noise(4, 700_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let statuses: Vec<u16> = thread::scope(|scope| {
        let put = || server.put(&path, &bytes).status;
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(put)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|s| matches!(s, 200 | 201)), "{statuses:?}");
    assert!(server.get(&path).body == bytes);
    assert_eq!(server.files().len(), 1);
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(metrics.contains("memobuild_storage_bytes 700000\n"), "{metrics}");
}

#[test]
fn ranges_and_conditions() {
    let server = Running::new();
    let bytes = noise(5, 600_000);
    let hex = server.blob(&bytes);
    let path = format!("/cache/{hex}");
    for (range, from, to) in
        [("0-9", 0, 9), ("599999-", 599_999, 599_999), ("-5", 599_995, 599_999), ("9-", 9, 599_999)]
    {
        let reply = server.send("GET", &path, &[&format!("Range: bytes={range}")], b"");
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.header("content-range"), Some(&*format!("bytes {from}-{to}/600000")));
        assert!(reply.body == bytes[from..=to], "{range}");
    }
    let reply = server.send("GET", &path, &["Range: bytes=600000-"], b"");
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */600000")));
    let reply = server.send("GET", &path, &["Range: bytes=1-2", "Accept-Encoding: zstd"], b"");
    assert_eq!((reply.status, reply.header("content-encoding")), (206, None));
    for method in ["GET", "HEAD"] {
        let reply = server.send(method, &path, &[&format!("If-None-Match: \"{hex}\"")], b"");
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        assert_eq!(server.send(method, &path, &["If-None-Match: \"other\""], b"").status, 200);
    }
    let absent = format!("/cache/{}", "0".repeat(64));
    assert_eq!(server.send("GET", &absent, &["Range: bytes=0-1"], b"").status, 404);
}

#[test]
fn zstd_both_ways() {
    let server = Running::new();
    let bytes = b"all work and no play makes jack a dull boy\n".repeat(40_000);
    let packed = zstd::encode_all(&bytes[..], 3).unwrap();
    let hex = blake3::hash(&bytes).to_hex();
    let path = format!("/cache/{hex}");
    assert_eq!(server.send("PUT", &path, &["Content-Encoding: zstd"], &packed).status, 201);
    assert!(server.get(&path).body == bytes);
    let reply = server.send("GET", &path, &["Accept-Encoding: gzip, zstd"], b"");
    assert_eq!((reply.header("content-encoding"), reply.header("vary")), (Some("zstd"), Some("accept-encoding")));
    assert_ne!(reply.header("etag"), Some(&*format!("\"{hex}\"")));
    assert!(reply.body.len() < bytes.len() / 10);
    assert!(zstd::decode_all(&reply.body[..]).unwrap() == bytes);

    let other = format!("/cache/{}", "1".repeat(64));
    assert_eq!(server.send("PUT", &other, &["Content-Encoding: zstd"], b"not zstd at all").error(), "invalid_encoding");
    assert_eq!(server.send("PUT", &other, &["Content-Encoding: zstd"], &packed).error(), "cas_integrity_failure");
    assert_eq!(server.send("PUT", &other, &["Content-Encoding: gzip"], b"x").error(), "unsupported_encoding");
}

#[test]
fn a_small_body_that_unpacks_to_too_much_is_refused() {
    let server = Running::with(|config| config.max_blob = 100_000);
    let bytes = vec![0; 10_000_000];
    let packed = zstd::encode_all(&bytes[..], 3).unwrap();
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let reply = server.send("PUT", &path, &["Content-Encoding: zstd"], &packed);
    assert_eq!((reply.status, reply.error()), (413, "too_large".into()));
    // The answer arrives although most of the body was not asked for.
    for _ in 0..20 {
        assert_eq!(server.put(&path, &bytes).status, 413);
    }
    assert_eq!(server.files(), Vec::<String>::new());
}

#[test]
fn who_asks_first_need_not_send_what_is_there() {
    let server = Running::new();
    let bytes = noise(6, 100_000);
    let hex = server.blob(&bytes);
    let mut stream = connect(server.addr);
    let lines = ["Expect: 100-continue", "Content-Length: 100000"];
    stream.write_all(head("PUT", &format!("/cache/{hex}"), &lines).as_bytes()).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 200);
    let other = blake3::hash(&noise(7, 100_000)).to_hex();
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &format!("/cache/{other}"), &lines).as_bytes()).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 100);
    stream.write_all(&noise(7, 100_000)).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 201);
}

#[test]
fn which_blobs_are_missing() {
    let server = Running::new();
    let here = server.blob(b"here");
    let layer = Sha256Digest::of(b"layer");
    server.put(&format!("/cache/layer/{}", layer.hex()), b"layer");
    let absent = "2".repeat(64);
    let list = serde_json::json!([here, absent, layer.to_string(), format!("sha256:{absent}")]).to_string();
    let reply = server.send("POST", "/cache/missing", &[], list.as_bytes());
    assert_eq!((reply.status, reply.json()), (200, serde_json::json!([absent, format!("sha256:{absent}")])));
    assert_eq!(server.send("POST", "/cache/missing", &[], b"[\"../x\"]").error(), "invalid_digest");
    assert_eq!(server.send("POST", "/cache/missing", &[], b"{}").error(), "invalid_json");
    assert_eq!(server.send("POST", "/cache/missing", &[], &vec![b' '; 2_000_000]).error(), "too_large");
}
