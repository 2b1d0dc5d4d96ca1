//! Webhooks, as their receiver sees them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::{
    builds::{ID, started, tell},
    client::Running,
};

pub const SECRET: &[u8] = b"a secret of some length";

pub struct Received {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is from whoever has the secret.
    fn is_signed(&self) -> bool {
        let hex = self.header("x-memobuild-signature").strip_prefix("sha256=").unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).unwrap();
        mac.update(&self.body);
        mac.verify_slice(&bytes).is_ok()
    }
}

/// Answers with these statuses in turn, the last one for good.
pub fn receiver(statuses: &'static [&'static str]) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?key=1", listener.local_addr().unwrap());
    let (tell, told) = channel();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut headers = Vec::new();
            loop {
                line.clear();
                reader.read_line(&mut line).unwrap();
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let mut received = Received { path, headers, body: Vec::new() };
            received.body = vec![0; received.header("content-length").parse().unwrap()];
            reader.read_exact(&mut received.body).unwrap();
            let status = statuses[n.min(statuses.len() - 1)];
            write!(
                stream,
                "HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            if tell.send(received).is_err() {
                return;
            }
        }
    });
    (url, told)
}

fn server(dir: &tempfile::TempDir, urls: Vec<String>) -> Running {
    let file = dir.path().join("secret");
    fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
    Running::with(|config| {
        config.security.webhooks = urls;
        config.security.webhook_secret = Some(file);
        config.security.webhook_retry = Duration::from_millis(20);
    })
}

fn counted(server: &Running, line: &str) {
    let began = Instant::now();
    loop {
        let text = String::from_utf8(server.get("/metrics").body).unwrap();
        if text.lines().any(|l| l == line) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{line}\n{text}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn events_arrive_signed_and_are_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receiver(&["500 No", "503 No", "204 Yes"]);
    let (other_url, other_told) = receiver(&["200 Yes"]);
    let server = server(&dir, vec![url, other_url]);
    let next = |told: &Receiver<Received>| told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(server.send("POST", "/gc?days=1", &[], b"").status, 200);
    let tries = [next(&told), next(&told), next(&told)];
    for received in &tries {
        assert!(received.is_signed());
        assert_eq!(received.path, "/hook?key=1");
        assert_eq!(received.header("x-memobuild-event"), "gc.finished");
        assert_eq!(received.header("content-type"), "application/json");
        assert!(received.header("user-agent").starts_with("memobuild/"));
        // One delivery, whose receiver can see that it is the same.
        assert_eq!(received.body, tries[0].body);
        assert_eq!(received.header("x-memobuild-delivery"), received.json()["id"]);
    }
    let json = tries[0].json();
    assert_eq!((&json["event"], &json["data"]["removed_blobs"]), (&"gc.finished".into(), &0.into()));
    assert!(json["time"].as_str().unwrap().ends_with('Z'));
    assert!(next(&other_told).is_signed());
    counted(&server, "memobuild_webhook_deliveries_total{result=\"delivered\"} 2");

    // What clients can cause as often as they like is told once in a while.
    for _ in 0..20 {
        assert_eq!(server.put(&format!("/cache/{}", "0".repeat(64)), b"x").status, 400);
    }
    let json = next(&told).json();
    assert_eq!(json["event"], "integrity.failure");
    assert_eq!(json["data"]["path"], format!("/cache/{}", "0".repeat(64)));
    counted(&server, "memobuild_webhook_deliveries_total{result=\"delivered\"} 4");
    assert!(told.try_recv().is_err());
}

#[test]
fn a_full_storage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receiver(&["200 Yes"]);
    let file = dir.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let server = Running::with(|config| {
        config.max_size = Some(1000);
        config.security.webhooks = vec![url];
        config.security.webhook_secret = Some(file);
    });
    let record = serde_json::json!({ "value": "AAAA".repeat(1000) }).to_string();
    let reply = server.put(&format!("/record/result:{}", "0".repeat(64)), record.as_bytes());
    assert_eq!((reply.status, reply.error()), (507, "storage_full".into()));
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap().json()["event"], "storage.full");
}

#[test]
fn the_end_of_a_build_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receiver(&["200 Yes"]);
    let server = server(&dir, vec![url]);
    let end =
        serde_json::json!({ "event": "build_finished", "ok": true, "duration_ms": 30, "cached": 0, "executed": 3 });
    let all = serde_json::json!({ "build": ID, "seq": 0, "name": "app:1", "events": [started(), end] });
    for _ in 0..2 {
        assert_eq!(tell(&server, &all).status, 200);
    }
    let json = told.recv_timeout(Duration::from_secs(30)).unwrap().json();
    assert_eq!((&json["event"], &json["data"]["name"]), (&"build.finished".into(), &"app:1".into()));
    assert_eq!((&json["data"]["id"], &json["data"]["state"]), (&ID.into(), &"succeeded".into()), "{json}");
    counted(&server, "memobuild_webhook_deliveries_total{result=\"delivered\"} 1");
    assert!(told.try_recv().is_err());
}

#[test]
fn redirects_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receiver(&["307 Elsewhere"]);
    let server = server(&dir, vec![url]);
    server.send("POST", "/gc", &[], b"");
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap().path, "/hook?key=1");
    counted(&server, "memobuild_webhook_deliveries_total{result=\"failed\"} 1");
    assert!(told.try_recv().is_err(), "neither followed nor tried again");
}

#[test]
fn the_end_waits_for_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receiver(&["200 Yes"]);
    let server = server(&dir, vec![url]);
    for _ in 0..5 {
        server.send("POST", "/gc", &[], b"");
    }
    drop(server);
    assert_eq!(told.try_iter().count(), 5);
}
