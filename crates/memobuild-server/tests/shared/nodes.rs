//! Two servers that share all, and know nothing of each other.

use std::{
    collections::HashSet,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Bed,
    client::{noise, try_send},
    node::{Node, path},
};

#[test]
fn nodes() {
    crate::run(&[
        ("what one has all have", what_one_has_all_have),
        ("started at once", started_at_once),
        ("one cap", one_cap),
        ("collecting beside puts", collecting_beside_puts),
        ("killed in the middle of puts", killed_in_the_middle_of_puts),
        ("a clock that is wrong", a_clock_that_is_wrong),
    ]);
}

#[test]
fn memory() {
    crate::run(&[("flat memory", flat_memory)]);
}

fn what_one_has_all_have(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    let bytes = noise(1, 12 << 20);
    let blob = a.blob(&bytes);
    assert!(b.get(&blob).body == bytes);
    assert!(b.send("GET", &blob, &["Range: bytes=9000000-9000099"], b"").body == bytes[9_000_000..9_000_100]);
    let reply = b.send("PUT", &blob, &[], &bytes);
    assert_eq!((reply.status, &reply.json()["created"]), (200, &json!(false)));
    assert_eq!(b.send("PUT", &blob, &[], b"other").error(), "cas_integrity_failure");
    let layer = "/cache/layer/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(b.send("PUT", layer, &[], b"hello").status, 201);
    assert_eq!(a.get(layer).body, b"hello");

    let hex = blob.trim_start_matches("/cache/");
    let absent = "0".repeat(64);
    let missing = b.send("POST", "/cache/missing", &[], json!([absent, hex]).to_string().as_bytes());
    assert_eq!(missing.json(), json!([absent]));
    let key = format!("/record/result:{}", "1".repeat(64));
    let put = |node: &Node, value: &str, blobs: &[&str]| {
        node.send("PUT", &key, &[], json!({ "value": value, "blobs": blobs }).to_string().as_bytes())
    };
    let refused = put(&b, "Yg==", &[hex, &absent]);
    assert_eq!((refused.status, &refused.json()["missing"]), (409, &json!([absent])));
    assert_eq!(put(&a, "YQ==", &[hex]).status, 201);
    let second = put(&b, "Yg==", &[]);
    assert_eq!((second.status, &second.json()["value"]), (200, &json!("YQ==")));
    assert_eq!(b.get(&key).json()["blobs"], json!([hex]));
    b.send("POST", &format!("{key}/list"), &[], br#"{"value":"YQ=="}"#);
    assert_eq!(a.get(&format!("{key}/list")).json()["items"][0]["value"], "YQ==");

    // What one collects is gone everywhere. Last uses are kept in seconds.
    thread::sleep(Duration::from_millis(2100));
    let report = a.send("POST", "/gc?days=0", &[], b"").json();
    assert_eq!((&report["removed_blobs"], &report["stored_bytes"]), (&json!(2), &json!(0)), "{report}");
    assert_eq!((b.get(&blob).status, b.get(&key).status), (404, 404));
    assert!(b.get("/metrics").status == 200 && b.get("/readyz").status == 200);
    bed.counted();
}

fn started_at_once(bed: &Bed<'_>) {
    let nodes: Vec<Node> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bed.node(None))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let blob = nodes[0].blob(b"one");
    assert!(nodes.iter().all(|node| node.get(&blob).body == b"one"));
    assert_eq!(bed.sql("SELECT count(*) FROM store"), "1");
}

fn one_cap(bed: &Bed<'_>) {
    let max = 1_000_000;
    let nodes = [bed.node(Some(max)), bed.node(Some(max))];
    thread::scope(|scope| {
        for (n, node) in (0u64..).zip(&nodes) {
            for client in 0..3 {
                scope.spawn(move || {
                    for round in 0..12 {
                        let bytes = noise(n << 40 | client << 32 | round, 120_000);
                        let reply = node.send("PUT", &path(&bytes), &[], &bytes);
                        assert!(matches!(reply.status, 201 | 507), "{reply:?}");
                    }
                });
            }
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let stored: u64 = bed.sql("SELECT bytes FROM store").parse().unwrap();
                assert!(stored <= max, "{stored}");
                thread::sleep(Duration::from_millis(50));
            }
        });
    });
    let last = noise(99, 120_000);
    let blob = nodes[0].blob(&last);
    assert!(nodes[1].get(&blob).body == last);
    bed.counted();
    assert_eq!(nodes.iter().map(Node::spooled).sum::<usize>(), 0);
}

fn collecting_beside_puts(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    let done = Mutex::new(false);
    let stored = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (a, done, stored) = (&a, &done, &stored);
        let putters: Vec<_> = (0..3u64)
            .map(|n| {
                let b = &b;
                scope.spawn(move || {
                    for round in 0..25u64 {
                        let bytes = noise(round % 5, 30_000);
                        let blob = b.blob(&bytes);
                        let key = format!("/record/result:{}", blake3::hash(&[n as u8, round as u8]).to_hex());
                        let record = json!({ "value": "", "blobs": [blob.trim_start_matches("/cache/")] }).to_string();
                        match b.send("PUT", &key, &[], record.as_bytes()).status {
                            201 => stored.lock().unwrap().push((key, blob)),
                            409 => {}
                            other => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !*done.lock().unwrap() {
                bed.sql("UPDATE blobs SET last_used = 0");
                assert_eq!(a.send("POST", "/gc?days=1", &[], b"").status, 200);
            }
        });
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        *done.lock().unwrap() = true;
    });
    for (key, blob) in stored.into_inner().unwrap() {
        if b.get(&key).status == 200 {
            assert_eq!(path(&a.get(&blob).body), blob, "a record whose blob is gone");
        }
    }
    bed.counted();
}

fn killed_in_the_middle_of_puts(bed: &Bed<'_>) {
    let (mut a, b) = (bed.node(None), bed.node(None));
    let (sent, acknowledged) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    thread::scope(|scope| {
        for client in 0..20u64 {
            let (addr, sent, acknowledged) = (a.addr, &sent, &acknowledged);
            scope.spawn(move || {
                for n in 0.. {
                    let bytes = noise(client << 32 | n, 100_000 + 9_000 * client as usize);
                    sent.lock().unwrap().insert(path(&bytes));
                    match try_send(addr, "PUT", &path(&bytes), &[], &bytes) {
                        Some(reply) => {
                            assert_eq!(reply.status, 201, "{reply:?}");
                            acknowledged.lock().unwrap().insert(path(&bytes));
                        }
                        None => break,
                    }
                }
            });
        }
        let began = Instant::now();
        while acknowledged.lock().unwrap().len() < 40 && began.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(5));
        }
        a.kill();
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= 40);
    for blob in sent.into_inner().unwrap() {
        let reply = b.get(&blob);
        match reply.status {
            200 => assert_eq!(path(&reply.body), blob),
            404 => assert!(!acknowledged.contains(&blob), "acknowledged and lost: {blob}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(a.spooled(), 0);
    bed.counted();
    // As if the leases had ended: the other server puts away what the dead one left.
    bed.sql("UPDATE uploads SET expires = 0");
    assert_eq!(b.send("POST", "/gc", &[], b"").status, 200);
    assert_eq!(bed.sql("SELECT count(*) FROM uploads"), "0");
    assert_eq!(bed.sql("SELECT coalesce(sum(size), 0) FROM garbage"), "0");
    bed.counted();
}

/// Ten minutes ahead: an S3 server takes such requests, and nothing else may depend on it.
fn a_clock_that_is_wrong(bed: &Bed<'_>) {
    if Command::new("faketime").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: faketime is not installed");
        return;
    }
    let a = bed.node(None);
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["env", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", "+10m"];
    let b = Node::start_in(bed, &bed.seaweed.endpoint(), None, dir.path(), &wrapper);
    let (old, new) = (b.blob(b"by the clock that is ahead"), a.blob(b"by the right one"));
    b.get(&new);
    // Both were used now, whoever says so.
    let off = bed.sql("SELECT count(*) FROM blobs WHERE abs(last_used - seconds()) > 120");
    assert_eq!(off, "0");
    bed.sql(&format!("UPDATE blobs SET last_used = seconds() - 90000 WHERE digest = '\\x{}'", &old[7..]));
    let report = b.send("POST", "/gc?days=1", &[], b"").json();
    assert_eq!(report["removed_blobs"], 1, "{report}");
    assert_eq!((a.get(&old).status, a.get(&new).status), (404, 200));
}

fn flat_memory(bed: &Bed<'_>) {
    let node = bed.node(None);
    node.blob(b"warm");
    let bytes = noise(1, 400 << 20);
    let blob = node.blob(&bytes);
    assert_eq!(path(&node.get(&blob).body), blob);
    let most = node.most_memory();
    assert!(most < 200 << 20, "{most} bytes of memory for a blob of 400 MiB");
    assert_eq!(node.spooled(), 0);
}
