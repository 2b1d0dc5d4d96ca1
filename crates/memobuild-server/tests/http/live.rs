//! `/ws`: who may watch, what they are told, and that nobody can hold the server up.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use memobuild_server::{Scope, add_token};
use serde_json::json;
use tungstenite::{Message, protocol::CloseFrame};

use crate::{
    builds::{ID, started, tell},
    client::{Running, connect},
    socket::{self, Socket, next, watch},
};

fn open(server: &Running, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    socket::open(server.addr, headers)
}

/// How a socket was closed.
fn closed(socket: &mut Socket) -> Option<CloseFrame> {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => return frame,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

fn watchers(server: &Running) -> u64 {
    let text = String::from_utf8(server.get("/metrics").body).unwrap();
    text.lines().find_map(|l| l.strip_prefix("memobuild_watchers ")).unwrap().parse().unwrap()
}

fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_told() {
    let server = Running::new();
    let mut all = open(&server, &[]).unwrap();
    let mut one = open(&server, &[("sec-websocket-protocol", "memobuild.v1")]).unwrap();
    // An answer says that it watches.
    watch(&mut all, None);
    watch(&mut one, Some(ID));
    tell(&server, &json!({ "build": ID, "name": "app", "events": [started()] }));
    for socket in [&mut all, &mut one] {
        let told = next(socket);
        assert_eq!(
            (&told["type"], &told["build"]["id"], &told["build"]["steps"]["total"]),
            (&json!("build"), &json!(ID), &json!(3))
        );
    }
    assert_eq!(next(&mut one)["reload"], true);
    let output = BASE64.encode("cc a.c\n");
    tell(
        &server,
        &json!({ "build": ID, "events": [
        { "event": "node_executing", "step": 1, "reason": "r", "again": false },
        { "event": "node_output", "step": 1, "stream": "stdout", "data": output },
    ] }),
    );
    assert_eq!(next(&mut one)["type"], "build");
    let told = next(&mut one);
    assert_eq!((&told["type"], &told["reload"]), (&json!("steps"), &json!(false)));
    assert_eq!((&told["steps"][0]["id"], &told["steps"][0]["state"]), (&json!(1), &json!("running")));
    assert_eq!(told["logs"], json!([{ "step": 1, "text": "cc a.c\n", "cut": false }]));
    // Who watches no build is told of builds only.
    assert_eq!(next(&mut all)["type"], "build");
    tell(&server, &json!({ "build": "another-build", "events": [started()] }));
    assert_eq!(next(&mut all)["build"]["id"], "another-build");
    assert_eq!(next(&mut one)["build"]["id"], "another-build");
    watch(&mut one, None);
}

#[test]
fn who_may_watch() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let token = add_token(&file, "me", Scope::Read).unwrap();
    let server = Running::with(|config| config.tokens = Some(file));
    assert_eq!(open(&server, &[]).err(), Some(401));
    assert_eq!(open(&server, &[("sec-websocket-protocol", "memobuild.v1, bearer.mb_0")]).err(), Some(401));
    let offered = format!("memobuild.v1, bearer.{token}");
    // Pages behind a proxy have another name than the server: the token is enough.
    let headers = [("sec-websocket-protocol", offered.as_str()), ("origin", "https://cache.example")];
    let (_, response) =
        tungstenite::client::client(socket::request(server.addr, &headers), connect(server.addr)).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "memobuild.v1");
    assert!(open(&server, &[("authorization", &format!("Bearer {token}"))]).is_ok());
    // Nowhere else does a subprotocol count.
    let line = format!("Sec-WebSocket-Protocol: {offered}");
    assert_eq!(server.send("GET", "/api/builds", &[&line], b"").status, 401);
    assert_eq!(server.get(&format!("/ws?token={token}")).status, 401);
}

#[test]
fn pages_of_other_sites_may_not_watch_a_server_without_tokens() {
    let server = Running::new();
    assert_eq!(open(&server, &[("origin", "https://example.com")]).err(), Some(403));
    assert_eq!(open(&server, &[("origin", "null")]).err(), Some(403));
    assert!(open(&server, &[("origin", &format!("http://{}", server.addr))]).is_ok());
    let reply = server.get("/ws");
    assert_eq!((reply.status, reply.error()), (426, "upgrade_required".into()));
}

#[test]
fn who_says_nonsense_is_sent_away() {
    let server = Running::new();
    for message in [
        Message::text("{"),
        Message::text(json!({ "watch": "../x" }).to_string()),
        Message::text("x".repeat(5000)),
        Message::binary(vec![1, 2, 3]),
    ] {
        let mut socket = open(&server, &[]).unwrap();
        socket.send(message).unwrap();
        closed(&mut socket);
    }
    until(|| watchers(&server) == 0);
}

#[test]
fn places_are_given_back_and_bounded() {
    let server = Running::new();
    let mut sockets: Vec<_> = (0..256).map(|_| open(&server, &[]).unwrap()).collect();
    assert_eq!(watchers(&server), 256);
    assert_eq!(open(&server, &[]).err(), Some(503));
    // Some say good-bye, some just go.
    for mut socket in sockets.drain(..100) {
        socket.close(None).unwrap();
    }
    sockets.clear();
    until(|| watchers(&server) == 0);
    assert!(open(&server, &[]).is_ok());
}

#[test]
fn who_does_not_keep_up_is_sent_away_and_stops_nobody() {
    let server = Running::new();
    let mut slow = open(&server, &[]).unwrap();
    watch(&mut slow, Some(ID));
    tell(&server, &json!({ "build": ID, "events": [started()] }));
    let output = BASE64.encode("x".repeat(16_000));
    let event = json!({ "event": "node_output", "step": 1, "stream": "stdout", "data": output });
    // More than sockets and the queue hold; it is told to nobody who reads.
    let began = Instant::now();
    while watchers(&server) == 1 {
        assert!(began.elapsed() < Duration::from_secs(120));
        for _ in 0..20 {
            assert_eq!(tell(&server, &json!({ "build": ID, "events": [event] })).status, 200);
        }
    }
    let mut quick = open(&server, &[]).unwrap();
    watch(&mut quick, None);
    tell(&server, &json!({ "build": ID, "events": [event] }));
    assert_eq!(next(&mut quick)["type"], "build");
}

#[test]
fn the_end_of_the_server_is_told() {
    let server = Running::new();
    let mut socket = open(&server, &[]).unwrap();
    watch(&mut socket, None);
    let ended = thread::spawn(move || closed(&mut socket));
    drop(server);
    assert_eq!(ended.join().unwrap().map(|frame| u16::from(frame.code)), Some(1001));
}

#[test]
fn a_handshake_that_stops_half_way_leaves_nothing() {
    let server = Running::new();
    let mut stream = connect(server.addr);
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 426");
    assert_eq!(watchers(&server), 0);
}
