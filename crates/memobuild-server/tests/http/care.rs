//! The cap, collections, health, metrics, and clients that take their time.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::client::{Running, answer, connect, head, noise};

#[test]
fn the_cap_is_never_passed() {
    let server = Running::with(|config| config.max_size = Some(1_000_000));
    for seed in 0..20 {
        server.blob(&noise(seed, 150_000));
        let on_disk: usize = server.files().iter().filter(|f| f.starts_with("blobs/")).count() * 150_000;
        assert!(on_disk <= 1_000_000, "{on_disk}");
    }
    let last = noise(19, 150_000);
    assert!(server.get(&format!("/cache/{}", blake3::hash(&last).to_hex())).body == last);
    let large = noise(99, 1_000_001);
    let path = format!("/cache/{}", blake3::hash(&large).to_hex());
    assert_eq!(server.put(&path, &large).error(), "too_large");
    assert!(server.files().len() >= 3, "nothing goes for what can't be kept");
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(metrics.contains("memobuild_storage_limit_bytes 1000000\n"), "{metrics}");
}

#[test]
fn what_is_being_received_counts() {
    let server = Running::with(|config| config.max_size = Some(1_000_000));
    let bytes = noise(1, 600_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &path, &["Content-Length: 600000"]).as_bytes()).unwrap();
    stream.write_all(&bytes[..500_000]).unwrap();
    let began = Instant::now();
    while server.files().is_empty()
        || String::from_utf8(server.get("/metrics").body).unwrap().contains("memobuild_storage_bytes 0\n")
    {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(20));
    }
    let other = noise(2, 900_000);
    let reply = server.put(&format!("/cache/{}", blake3::hash(&other).to_hex()), &other);
    assert_eq!((reply.status, reply.error()), (507, "storage_full".into()));
    stream.write_all(&bytes[500_000..]).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 201);
    assert!(server.get(&path).body == bytes);
    assert_eq!(server.files().len(), 1);
    // What the refused one had reserved is free again.
    server.blob(&noise(3, 400_000));
    assert_eq!(server.get(&path).status, 200);
}

#[test]
fn connections_that_are_left_alone_stop_nobody() {
    let server = Running::new();
    let left: Vec<_> = (0..300).map(|_| connect(server.addr)).collect();
    let hex = server.blob(b"still there");
    assert_eq!(server.get(&format!("/cache/{hex}")).body, b"still there");
    drop(left);
}

#[test]
fn collections() {
    let server = Running::new();
    let blob = server.blob(b"old");
    let key = format!("/record/result:{}", "0".repeat(64));
    server.put(&key, json!({ "value": "", "blobs": [blob] }).to_string().as_bytes());
    let gc = |query: &str| server.send("POST", &format!("/gc{query}"), &[], b"");
    assert_eq!(gc("?days=1").json()["removed_blobs"], 0);
    assert_eq!(gc("").json()["removed_blobs"], 0);
    for bad in ["?days=", "?days=-1", "?days=1.5", "?day=1", "?days=1&x=2"] {
        assert_eq!(gc(bad).error(), "invalid_query", "{bad}");
    }
    assert_eq!(server.get(&key).status, 200);
    // Last uses are kept in seconds.
    thread::sleep(Duration::from_millis(2100));
    let report = gc("?days=0").json();
    assert_eq!((&report["removed_blobs"], &report["removed_records"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["stored_bytes"], 0);
    assert_eq!(server.get(&key).status, 404);
    assert_eq!(server.get(&format!("/cache/{blob}")).status, 404);
    assert_eq!(server.files(), Vec::<String>::new());
}

#[test]
fn metrics_count() {
    let server = Running::new();
    assert_eq!(server.get("/healthz").json(), json!({ "status": "ok" }));
    assert_eq!(server.get("/readyz").json(), json!({ "status": "ready" }));
    let hex = server.blob(b"12345");
    server.get(&format!("/cache/{hex}"));
    server.get(&format!("/cache/{}", "0".repeat(64)));
    server.get("/a\"b");
    server.send("BREW", "/cache/x", &[], b"");
    let reply = server.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "memobuild_http_requests_total{method=\"GET\",route=\"/cache/{digest}\",status=\"200\"} 1",
        "memobuild_http_requests_total{method=\"GET\",route=\"/cache/{digest}\",status=\"404\"} 1",
        "memobuild_http_requests_total{method=\"PUT\",route=\"/cache/{digest}\",status=\"201\"} 1",
        "memobuild_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "memobuild_http_requests_total{method=\"other\",route=\"/cache/{digest}\",status=\"405\"} 1",
        "memobuild_lookups_total{kind=\"blob\",result=\"hit\"} 1",
        "memobuild_lookups_total{kind=\"blob\",result=\"miss\"} 1",
        "memobuild_received_bytes_total 5",
        "memobuild_sent_bytes_total 5",
        "memobuild_storage_blobs 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

/// The dashboard for Grafana asks for nothing that no server tells.
#[test]
fn grafana_asks_for_metrics_that_exist() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret of some length").unwrap();
    // With all that has metrics of its own.
    let server = Running::with(|config| {
        config.max_size = Some(1 << 30);
        config.security.audit_log = Some(dir.path().join("audit"));
        config.security.webhooks = vec!["http://127.0.0.1:9/".into()];
        config.security.webhook_secret = Some(secret);
    });
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    let told = |name: &str| {
        let base = name.strip_suffix("_bucket").unwrap_or(name);
        text.lines().any(|line| line.starts_with(&format!("# TYPE {base} ")) || line.starts_with(&format!("{base} ")))
    };
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let words = target["expr"].as_str().unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|word| word.starts_with("memobuild_")) {
                assert!(told(name), "{name}\n{text}");
                asked += 1;
            }
        }
    }
    assert!(asked > 15, "{asked}");
}

#[test]
fn slow_clients_are_sent_away() {
    let server = Running::with(|config| config.idle_timeout = Duration::from_millis(700));
    let path = format!("/cache/{}", "0".repeat(64));

    // Nothing after the head.
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &path, &["Content-Length: 10"]).as_bytes()).unwrap();
    let began = Instant::now();
    let reply = answer(&stream, "PUT").unwrap();
    assert_eq!((reply.status, reply.error()), (408, "too_slow".into()));
    assert!(began.elapsed() >= Duration::from_millis(600));

    // A byte now and then.
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &path, &["Content-Length: 1000"]).as_bytes()).unwrap();
    let began = Instant::now();
    while stream.write_all(b"x").is_ok() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(200));
    }
    assert!(began.elapsed() < Duration::from_secs(20));

    // Half a head, and no request at all.
    for sent in ["GET /healthz HTTP/1.1\r\nHo", "P", ""] {
        let mut stream = connect(server.addr);
        stream.write_all(sent.as_bytes()).unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(began.elapsed() < Duration::from_secs(20), "{sent:?}");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_client_that_takes_nothing_is_sent_away() {
    let server = Running::with(|config| config.idle_timeout = Duration::from_millis(700));
    // More than sockets hold.
    let hex = server.blob(&noise(1, 40 << 20));
    let mut stream = connect(server.addr);
    stream.write_all(head("GET", &format!("/cache/{hex}"), &[]).as_bytes()).unwrap();
    let open = || String::from_utf8(server.get("/metrics").body).unwrap();
    let began = Instant::now();
    // One is the connection that asks.
    while !open().contains("memobuild_connections 1\n") || began.elapsed() < Duration::from_millis(300) {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", open());
        thread::sleep(Duration::from_millis(100));
    }
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    assert!(got.len() < 40 << 20, "{}", got.len());
}
