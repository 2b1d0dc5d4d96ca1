//! The audit log, ids of requests, and traces.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use memobuild_server::{Scope, add_token};
use serde_json::{Value, json};

use crate::client::{Running, noise};

pub fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn who_did_what_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("tokens"), dir.path().join("audit"));
    let tokens = [Scope::Read, Scope::Write, Scope::Admin].map(|scope| add_token(&file, scope.name(), scope).unwrap());
    let [read, write, admin] = tokens.each_ref().map(|token| format!("Authorization: Bearer {token}"));
    let server = Running::with(|config| {
        config.tokens = Some(file);
        config.security.audit_log = Some(log.clone());
    });
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = noise(1, 100_000);
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    server.send("PUT", &path, &[&write, "X-Request-Id: build-7", trace], &bytes);
    server.send("PUT", &path, &[&write], b"other");
    server.send("PUT", &path, &[&read], &bytes);
    server.send("GET", &path, &["Authorization: Bearer mb_wrong"], b"");
    server.send("GET", &path, &[&read], b"");
    server.send("GET", &path, &[&read], b"");
    server.send("POST", "/gc?days=1", &[&admin], b"");
    server.get("/healthz");

    let lines = lines(&log);
    let short: Vec<Value> = lines
        .iter()
        .map(|l| json!([l["event"], l["client"], l["auth"], l["method"], l["status"], l["error"]]))
        .collect();
    assert_eq!(
        short,
        [
            json!(["change", "write", "token", "PUT", 201, null]),
            json!(["refusal", "write", "token", "PUT", 400, "cas_integrity_failure"]),
            json!(["refusal", "read", "token", "PUT", 403, "forbidden"]),
            json!(["refusal", null, "unknown", "GET", 401, "unauthorized"]),
            json!(["authenticated", "read", "token", "GET", 200, null]),
            json!(["gc", "admin", "token", "POST", 200, null]),
        ]
    );
    assert_eq!(
        (&lines[0]["bytes"], &lines[0]["path"], &lines[0]["address"]),
        (&json!(100_000), &json!(path), &json!("127.0.0.1"))
    );
    assert_eq!(
        (&lines[0]["request_id"], &lines[0]["trace_id"]),
        (&json!("build-7"), &json!("4bf92f3577b34da6a3ce929d0e0e4736"))
    );
    assert_eq!(lines[5]["detail"]["removed_blobs"], 0);
    assert!(lines.iter().all(|line| line["time"].as_str().is_some_and(|t| t.len() >= 20 && t.ends_with('Z'))));
    let text = fs::read_to_string(&log).unwrap();
    assert!(tokens.iter().all(|token| !text.contains(&token[3..])) && !text.contains("mb_"));
}

#[test]
fn the_log_is_opened_anew_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (log, moved) = (dir.path().join("audit"), dir.path().join("audit.1"));
    let server = Running::with(|config| config.security.audit_log = Some(log.clone()));
    server.blob(b"one");
    fs::rename(&log, &moved).unwrap();
    server.blob(b"two");
    server.reloader.reload().unwrap();
    server.blob(b"three");
    let events = |path| lines(path).iter().map(|l| l["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        (events(&moved), events(&log)),
        (vec!["change".into(), "change".into()], vec!["reload".into(), "change".into()])
    );
}

#[test]
fn every_answer_has_an_id() {
    let server = Running::new();
    let id =
        |extra: &[&str], path: &str| server.send("GET", path, extra, b"").header("x-request-id").unwrap().to_owned();
    assert_eq!(id(&["X-Request-Id: mine-1"], "/healthz"), "mine-1");
    let (first, second) = (id(&[], "/healthz"), id(&[], "/no/route"));
    assert!(first.len() == 32 && first != second);
    assert_ne!(id(&["X-Request-Id: not \"mine\""], "/healthz"), "not \"mine\"");
}
