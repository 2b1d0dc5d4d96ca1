//! What a server does while the bucket, the database or the disk does not do its part, and after that.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Bed,
    client::noise,
    node::{Node, path},
    proxy::{Mode, Proxy},
};

#[test]
fn faults() {
    crate::run(&[
        ("a bucket in trouble", a_bucket_in_trouble),
        ("answers that are cut", answers_that_are_cut),
        ("an object that is gone", an_object_that_is_gone),
        ("the database gone and back", the_database_gone_and_back),
        ("a full disk", a_full_disk),
    ]);
}

/// Longer than the server tries, whatever else this machine does.
pub const PATIENCE: Duration = Duration::from_secs(55);

/// Not now, and said in time.
pub fn refused(node: &Node, method: &str, path: &str, body: &[u8]) {
    let began = Instant::now();
    let reply = node.send(method, path, &[], body);
    assert_eq!((reply.status, reply.error()), (503, "storage_unavailable".into()), "{reply:?}");
    assert!(reply.header("retry-after").is_some());
    assert!(began.elapsed() < PATIENCE);
}

fn a_bucket_in_trouble(bed: &Bed<'_>) {
    let proxy = Proxy::start(bed.seaweed.port());
    let node = Node::start(bed, &proxy.endpoint(), None);
    let small = node.blob(b"small");

    // Troubles that pass are not noticed.
    for (n, status) in [(1, 500), (2, 503)] {
        proxy.set(Mode::Status(status, 2));
        let bytes = noise(n, 20 << 20);
        let blob = node.blob(&bytes);
        assert_eq!(proxy.harmed(), 2);
        assert!(node.get(&blob).body == bytes);
    }
    proxy.set(Mode::Slow(Duration::from_millis(300)));
    let blob = node.blob(b"slow");
    assert_eq!(node.get(&blob).body, b"slow");

    // Those that stay are told, and nothing is left.
    let stored = bed.sql("SELECT bytes FROM store");
    let dir = tempfile::tempdir().unwrap();
    let hasty = Node::start_in(bed, &proxy.endpoint(), None, dir.path(), &["env", "AWS_TIMEOUT=2 seconds"]);
    for (mode, node) in
        [(Mode::Status(500, u32::MAX), &node), (Mode::Status(503, u32::MAX), &node), (Mode::Silent, &hasty)]
    {
        println!("    {mode:?}");
        proxy.set(mode);
        let bytes = b"not now";
        refused(node, "PUT", &path(bytes), bytes);
        refused(node, "GET", &small, b"");
        assert_eq!(node.get("/readyz").status, 503);
        assert_eq!(node.get("/healthz").status, 200);
        // What needs no object is answered.
        assert_eq!(node.get(&path(bytes)).status, 404);
        assert_eq!(node.send("HEAD", &small, &[], b"").status, 200);
    }
    let long = noise(3, 20 << 20);
    proxy.set(Mode::Status(500, u32::MAX));
    refused(&node, "PUT", &path(&long), &long);
    proxy.set(Mode::Pass);
    assert_eq!(node.get("/readyz").status, 200);
    assert_eq!(node.get(&small).body, b"small");
    assert_eq!(node.get(&path(&long)).status, 404);
    node.send("POST", "/gc", &[], b"");
    assert_eq!(bed.sql("SELECT bytes FROM store"), stored);
    bed.counted();
    assert!(node.get(&node.blob(&long)).body == long);
    assert_eq!(node.spooled(), 0);
}

fn answers_that_are_cut(bed: &Bed<'_>) {
    let proxy = Proxy::start(bed.seaweed.port());
    let node = Node::start(bed, &proxy.endpoint(), None);
    let bytes = noise(1, 30 << 20);
    let blob = node.blob(&bytes);
    // Each connection brings some of it.
    proxy.set(Mode::Cut(3 << 20, 5));
    assert!(node.get(&blob).body == bytes);
    assert!(proxy.harmed() >= 2, "{}", proxy.harmed());
}

fn an_object_that_is_gone(bed: &Bed<'_>) {
    let node = bed.node(None);
    let (gone, there) = (node.blob(b"gone"), node.blob(b"there"));
    let key = format!("/record/result:{}", "1".repeat(64));
    let record = json!({ "value": "", "blobs": [&gone[7..]] }).to_string();
    assert_eq!(node.send("PUT", &key, &[], record.as_bytes()).status, 201);
    // As if somebody had deleted it.
    bed.sql(&format!("UPDATE blobs SET object = 'blobs/nothing' WHERE digest = '\\x{}'", &gone[7..]));
    assert_eq!(node.get(&gone).status, 404);
    // So has its record, and it can be sent again.
    assert_eq!(node.get(&key).status, 404);
    assert_eq!(node.get(&node.blob(b"gone")).body, b"gone");
    assert_eq!(node.get(&there).body, b"there");
    node.send("POST", "/gc", &[], b"");
    bed.counted();
}

fn the_database_gone_and_back(bed: &Bed<'_>) {
    let node = bed.node(None);
    let blob = node.blob(b"before");
    bed.postgres.stop();
    let began = Instant::now();
    assert_eq!(node.get("/readyz").status, 503);
    assert_eq!(node.get("/healthz").status, 200);
    refused(&node, "GET", &blob, b"");
    refused(&node, "PUT", &path(b"meanwhile"), b"meanwhile");
    refused(&node, "GET", &format!("/record/result:{}", "1".repeat(64)), b"");
    refused(&node, "POST", "/gc", b"");
    assert!(began.elapsed() < PATIENCE);
    bed.postgres.resume();
    let began = Instant::now();
    while node.get("/readyz").status != 200 {
        assert!(began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(node.get(&blob).body, b"before");
    assert_eq!(node.get(&node.blob(b"meanwhile")).body, b"meanwhile");

    // Connections that are ended one by one, as an administrator or a pooler does.
    for _ in 0..3 {
        bed.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()");
        let began = Instant::now();
        while node.get(&blob).status != 200 {
            assert!(began.elapsed() < PATIENCE);
        }
    }
    bed.counted();
}

fn a_full_disk(bed: &Bed<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        |args: &[&str]| Command::new("mount").args(args).arg(dir.path()).output().is_ok_and(|o| o.status.success());
    if !mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) {
        println!("skipped: no file system of 2 MiB can be mounted here");
        return;
    }
    let node = Node::start_in(bed, &bed.seaweed.endpoint(), None, dir.path(), &[]);
    let long = noise(1, 5 << 20);
    let reply = node.send("PUT", &path(&long), &[], &long);
    assert_eq!((reply.status, reply.error()), (507, "storage_full".into()));
    assert_eq!(node.get(&path(&long)).status, 404);
    // What was received of it is not in the way.
    let short = noise(2, 1 << 20);
    assert!(node.get(&node.blob(&short)).body == short);
    drop(node);
    let unmounted = Command::new("umount").arg(dir.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}
