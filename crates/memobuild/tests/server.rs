//! `memobuild server` as a user starts it. What it answers is tested beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
};

use common::Place;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn it_serves_those_who_have_a_token_until_it_is_told_to_end() {
    let place = Place::new();
    let token = place.stdout(&["server", "token", "add", "ci", "--tokens", "tokens", "--scope", "read"]);
    assert!(!place.read("tokens").contains(token.trim()));
    let mut child = place
        .command(env!("CARGO_BIN_EXE_memobuild"))
        .args(["server", "--listen", "127.0.0.1:0", "--data-dir", "data", "--tokens", "tokens"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on http://").expect("the address").to_owned();
    let status = |auth: &str| {
        let mut stream = TcpStream::connect(&addr).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(""), "401");
    assert_eq!(status(&format!("Authorization: Bearer {}\r\n", token.trim())), "200");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_is_not_open_to_the_network_by_itself() {
    let place = Place::new();
    let out = place.memobuild(&["server", "--listen", "0.0.0.0:0", "--data-dir", "data"]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert!(text.contains("no tokens") && text.contains("hint: "), "{text}");
    assert!(!place.path("data").exists());
    assert_eq!(place.memobuild(&["server"]).status.code(), Some(2));
}

#[test]
fn tokens_are_listed_and_revoked() {
    let place = Place::new();
    place.stdout(&["server", "token", "add", "ci", "--tokens", "tokens"]);
    place.stdout(&["server", "token", "add", "guest", "--tokens", "tokens", "--scope", "read", "--expires", "90d"]);
    let list = place.stdout(&["server", "token", "list", "--tokens", "tokens"]);
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["ci", "write", "-"]);
    assert_eq!(lines[1][..2], ["guest", "read"]);
    assert!(lines[1][2].starts_with("20") && lines[1][2].ends_with('Z'), "{list}");
    place.stdout(&["server", "token", "revoke", "ci", "--tokens", "tokens"]);
    assert!(place.stdout(&["server", "token", "list", "--tokens", "tokens"]).starts_with("guest\t"));
    let again = place.memobuild(&["server", "token", "revoke", "ci", "--tokens", "tokens"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8(again.stderr).unwrap().contains("there is no token \"ci\""));
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let place = Place::new();
    place.write("short", "secret");
    for (args, says) in [
        (&["--tls-cert", "cert"][..], "--tls-key"),
        (&["--tls-client-ca", "ca"], "--tls-cert"),
        (&["--tls-cert", "cert", "--tls-key", "key"], "cannot read"),
        (&["--rate-burst", "5"], "--rate-limit"),
        (&["--rate-limit", "0"], "--rate-limit"),
        (&["--rate-limit-bytes", "1k"], "at least 64k"),
        (&["--webhook", "http://127.0.0.1:1/"], "secret"),
        (&["--webhook", "ftp://x/", "--webhook-secret-file", "short"], "shorter"),
        (&["--webhook-secret-file", "short"], "--webhook"),
    ] {
        let out = place.memobuild(&[&["server", "--listen", "127.0.0.1:0", "--data-dir", "data"], args].concat());
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn log_lines_name_the_request_and_its_trace() {
    let place = Place::new();
    let mut child = place
        .command(env!("CARGO_BIN_EXE_memobuild"))
        .args(["server", "--listen", "127.0.0.1:1", "--port", "0", "--data-dir", "data"])
        .env("RUST_LOG", "memobuild_server=debug")
        .env("MEMOBUILD_JSON_LOGS", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let mut stream = TcpStream::connect(line.trim().strip_prefix("listening on http://").unwrap()).unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: mine-1\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n"
    )
    .unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    let of_request = log.lines().find(|line| line.contains("mine-1")).unwrap_or_else(|| panic!("{log}"));
    assert!(of_request.contains(trace) && of_request.contains("/healthz"), "{of_request}");
}
