//! How much one client may ask for.

use std::{
    io::Write as _,
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use memobuild_server::{Scope, add_token};

use crate::client::{Reply, Running, answer, connect, head, noise};

/// Many requests at once: far more than come back in the meantime.
fn flood(server: &Running, auth: &str) -> Vec<Reply> {
    thread::scope(|scope| {
        let send = || (0..25).map(|_| server.send("GET", "/metrics", &[auth], b"")).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn one_client_too_many_requests() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let [busy, calm] =
        ["busy", "calm"].map(|name| format!("Authorization: Bearer {}", add_token(&file, name, Scope::Read).unwrap()));
    let log = dir.path().join("audit");
    let server = Running::with(|config| {
        config.tokens = Some(file);
        config.security.audit_log = Some(log.clone());
        (config.security.rate_limit, config.security.rate_burst) = (NonZeroU32::new(1), NonZeroU32::new(5));
    });
    let replies = flood(&server, &busy);
    let (good, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(good.len() >= 5 && !refused.is_empty(), "{} of {}", good.len(), replies.len());
    for reply in refused {
        assert_eq!((reply.status, reply.error()), (429, "rate_limited".into()));
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{wait}");
    }
    // Nobody else is meant, and a balancer never.
    assert_eq!(server.send("GET", "/metrics", &[&calm], b"").status, 200);
    assert!((0..50).all(|_| server.get("/healthz").status == 200));
    // Guesses are one client's, whatever they guess; whoever has a token does not suffer from them.
    let guesses = flood(&server, "Authorization: Bearer mb_guess");
    assert!(guesses.iter().all(|reply| matches!(reply.status, 401 | 429)));
    assert!(guesses.iter().any(|reply| reply.status == 429));
    assert_eq!(server.send("GET", "/metrics", &[&calm], b"").status, 200);
    // Nor is the audit log flooded.
    let lines = std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("rate_limited")).count();
    assert_eq!(lines, 2);
    // It passes.
    let began = Instant::now();
    while server.send("GET", "/metrics", &[&busy], b"").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn bytes_are_slowed_down_and_arrive_whole() {
    let server = Running::with(|config| config.security.rate_limit_bytes = Some(1 << 20));
    let bytes = noise(1, 3 << 20);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    // The first second's share is there at once; the rest takes its time, whatever the machine does.
    let began = Instant::now();
    assert_eq!(server.put(&path, &bytes).status, 201);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    let began = Instant::now();
    assert!(server.get(&path).body == bytes);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

#[test]
fn one_client_too_many_uploads() {
    let server = Running::with(|config| config.security.max_uploads = NonZeroU32::new(1));
    let bytes = noise(1, 600_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let mut stream = connect(server.addr);
    stream.write_all(head("PUT", &path, &["Content-Length: 600000"]).as_bytes()).unwrap();
    stream.write_all(&bytes[..300_000]).unwrap();
    let began = Instant::now();
    while server.files().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(10));
    }
    let other = noise(2, 1000);
    let other_path = format!("/cache/{}", blake3::hash(&other).to_hex());
    let reply = server.put(&other_path, &other);
    assert_eq!((reply.status, reply.error(), reply.header("retry-after")), (429, "too_many_uploads".into(), Some("1")));
    assert_eq!(server.get(&other_path).status, 404);
    assert_eq!(server.send("POST", "/cache/missing", &[], b"[]").status, 200);
    stream.write_all(&bytes[300_000..]).unwrap();
    assert_eq!(answer(&stream, "PUT").unwrap().status, 201);
    assert_eq!(server.put(&other_path, &other).status, 201);
    // One that breaks off gives its place back.
    let mut stream = connect(server.addr);
    stream
        .write_all(head("PUT", &format!("/cache/{}", "0".repeat(64)), &["Content-Length: 600000"]).as_bytes())
        .unwrap();
    drop(stream);
    let began = Instant::now();
    while server.put(&other_path, &other).status == 429 {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(20));
    }
}
