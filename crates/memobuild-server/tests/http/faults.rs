//! A full disk, more connections than there is room for, and many clients at once.

use std::{
    fs,
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::{
    client::{Running, noise, try_send},
    crash::{IDLE, Process},
};

#[test]
fn a_full_disk_refuses_what_is_new_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    // A mount that ends with the server: in a namespace of its own.
    let mounted = "mount -t tmpfs -o size=64m,mode=755 tmpfs \"$0\"";
    let probe = Command::new("unshare").args(["--mount", "sh", "-c", mounted]).arg(dir.path()).output();
    if !probe.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: a file system of 64 MB can't be mounted here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{mounted} && exec \"$@\"")]).arg(dir.path());
    command.arg(std::env::current_exe().unwrap());
    let server = Process::from(command, &dir.path().join("data"));
    let send = |method: &str, path: &str, body: &[u8]| try_send(server.addr, method, path, &[], body).unwrap();

    let (mut stored, mut refused) = (Vec::new(), 0);
    // Large ones first, then small ones, until nothing at all has room.
    for (size, count) in [(6_000_000, 14), (500_000, 14), (4_000, 200)] {
        for n in 0..count {
            let bytes = noise((size * 1000 + n) as u64, size);
            let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
            let reply = send("PUT", &path, &bytes);
            match reply.status {
                201 => stored.push((path, bytes)),
                _ => {
                    assert_eq!((reply.status, reply.error()), (507, "storage_full".into()), "{reply:?}");
                    assert_eq!(send("HEAD", &path, b"").status, 404);
                    refused += 1;
                }
            }
        }
    }
    assert!(stored.len() >= 8 && refused >= 8, "{} stored, {refused} refused", stored.len());
    for (path, bytes) in &stored {
        let reply = send("GET", path, b"");
        assert!(reply.status == 200 && reply.body == *bytes, "{path}: {}", reply.status);
    }
    assert_eq!(send("GET", "/readyz", b"").status, 200);
    // Room is made, and used. Last uses are kept in seconds.
    thread::sleep(Duration::from_millis(2100));
    let report = send("POST", "/gc?days=0", b"");
    assert_eq!(report.status, 200, "{report:?}");
    assert_eq!(report.json()["removed_blobs"], stored.len());
    let bytes = noise(7, 6_000_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    assert_eq!(send("PUT", &path, &bytes).status, 201);
    assert!(send("GET", &path, b"").body == bytes);
}

#[test]
fn ten_thousand_connections_are_left_open() {
    const COUNT: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let needed = COUNT as u64 + 500;
    if limit.maximum.is_some_and(|most| most < needed) {
        eprintln!("skipped: no process may have {needed} files open here");
        return;
    }
    if limit.current.is_some_and(|now| now < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit }).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(IDLE, "3000");
    let server = Process::from(command, &dir.path().join("data"));
    let mut left = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        // Once the server has as many as it lets in, others wait until it has sent some away.
        left.push(TcpStream::connect(server.addr).unwrap());
        if n == 7000 {
            // Far from what there is room for: nobody waits.
            assert_eq!(try_send(server.addr, "GET", "/healthz", &[], b"").unwrap().status, 200);
        }
    }
    let bytes = noise(1, 100_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    assert_eq!(try_send(server.addr, "PUT", &path, &[], &bytes).unwrap().status, 201);
    assert!(try_send(server.addr, "GET", &path, &[], b"").unwrap().body == bytes);
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.is_some_and(|kib| kib < 400 << 10), "{peak:?} KiB");
    drop(left);
    // All are gone in the end: the one that asks is the only one.
    let began = Instant::now();
    loop {
        let metrics = try_send(server.addr, "GET", "/metrics", &[], b"").unwrap().body;
        if String::from_utf8(metrics).unwrap().contains("memobuild_connections 1\n") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn five_hundred_clients_read_and_write_without_an_error() {
    let server = Running::new();
    let shared = noise(0, 200_000);
    let shared_path = format!("/cache/{}", server.blob(&shared));
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 1..=500u64 {
            let (server, done, shared, shared_path) = (&server, &done, &shared, &shared_path);
            let work = move || {
                let bytes = noise(client, 5_000 + 90 * client as usize);
                let hex = blake3::hash(&bytes).to_hex().to_string();
                let path = format!("/cache/{hex}");
                let asked = json!([hex, "0".repeat(64)]).to_string();
                assert_eq!(
                    server.send("POST", "/cache/missing", &[], asked.as_bytes()).json(),
                    json!([hex, "0".repeat(64)])
                );
                assert_eq!(server.put(&path, &bytes).status, 201);
                assert!(server.get(&path).body == bytes);
                assert!(server.get(shared_path).body == *shared);
                // Ten clients each want the same key.
                let key = format!("/record/load:{:064x}", client % 50);
                let record = json!({ "value": "", "blobs": [hex] }).to_string();
                assert!(matches!(server.put(&key, record.as_bytes()).status, 200 | 201));
                let first = server.get(&key);
                assert_eq!(first.status, 200);
                let named = first.json()["blobs"][0].as_str().unwrap().to_owned();
                assert_eq!(server.send("HEAD", &format!("/cache/{named}"), &[], b"").status, 200);
                done.fetch_add(1, Ordering::Relaxed);
            };
            thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap();
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 500);
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    assert!(metrics.contains("memobuild_storage_blobs 501\n"), "{metrics}");
    assert!(!metrics.contains("status=\"5"), "{metrics}");
}
