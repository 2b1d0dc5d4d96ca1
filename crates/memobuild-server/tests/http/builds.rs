//! Builds that clients tell of, and the page that shows them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use memobuild_server::{Scope, add_token};
use serde_json::{Value, json};

use crate::client::{Reply, Running};

pub const ID: &str = "0123456789abcdef0123456789abcdef";

pub fn tell(server: &Running, body: &Value) -> Reply {
    server.send("POST", "/build-event", &[], body.to_string().as_bytes())
}

pub fn started() -> Value {
    json!({ "event": "build_started", "steps": [
        { "id": 0, "label": "[bin 1/3] FROM busybox", "stage": "bin", "inputs": [], "line": 1 },
        { "id": 1, "label": "[bin 2/3] RUN <img src=x onerror=alert(1)>", "stage": "bin", "inputs": [0], "line": 2 },
        { "id": 2, "label": "[bin 3/3] RUN false", "stage": "bin", "inputs": [1], "line": 3 },
    ] })
}

#[test]
fn a_build_from_its_first_event_to_its_last() {
    let server = Running::new();
    let events = json!([
        started(),
        { "event": "node_done", "step": 0, "outcome": "cached", "duration_ms": 1.5 },
        { "event": "node_executing", "step": 1, "reason": "no result for these inputs", "again": false },
        { "event": "node_output", "step": 1, "stream": "stdout", "data": BASE64.encode("\u{1b}[1mhello\u{1b}[0m\n") },
    ]);
    let reply = tell(&server, &json!({ "build": ID, "seq": 0, "name": "app:1", "events": events }));
    assert_eq!((reply.status, &reply.json()["next"]), (200, &json!(4)));
    // Sent again: the answer was lost on its way.
    let reply = tell(&server, &json!({ "build": ID, "seq": 0, "name": "app:1", "events": events }));
    assert_eq!(reply.json(), json!({ "build": ID, "next": 4 }));
    let build = server.get(&format!("/api/builds/{ID}")).json();
    assert_eq!((&build["state"], &build["name"], &build["client"]), (&json!("running"), &json!("app:1"), &json!("-")));
    assert_eq!(build["plan"][1]["state"], "running");
    assert_eq!(build["plan"][1]["reason"], "no result for these inputs");
    assert_eq!(build["logs"], json!([{ "step": 1, "text": "hello\n", "cut": false }]));
    assert!(build["now"].as_i64() >= build["started"].as_i64());

    for event in [
        json!({ "event": "node_done", "step": 1, "outcome": "executed", "duration_ms": 20 }),
        json!({ "event": "node_executing", "step": 2, "reason": "step 1 changed", "again": true }),
        json!({ "event": "node_done", "step": 2, "outcome": "failed", "message": "exit code: 1", "duration_ms": 3 }),
        json!({ "event": "error", "message": "RUN false: exit code: 1" }),
        json!({ "event": "build_finished", "ok": false, "duration_ms": 30, "cached": 0, "executed": 0 }),
    ] {
        // One at a time, as a script would.
        let mut single = event;
        single["build"] = ID.into();
        assert_eq!(tell(&server, &single).status, 200);
    }
    let build = server.get(&format!("/api/builds/{ID}")).json();
    assert_eq!((&build["state"], &build["error"]), (&json!("failed"), &json!("RUN false: exit code: 1")));
    assert_eq!(
        build["steps"],
        json!({ "total": 3, "ended": 3, "running": 0, "cached": 0, "executed": 1, "failed": 1 })
    );
    assert_eq!((&build["plan"][2]["state"], &build["plan"][2]["message"]), (&json!("failed"), &json!("exit code: 1")));

    let dag = server.get(&format!("/dag?build={ID}")).json();
    assert_eq!(dag["edges"], json!([[0, 1], [1, 2]]));
    assert_eq!(dag["nodes"][2]["state"], "failed");
    assert_eq!(server.get("/dag").json(), dag);
    let sums = server.get("/api/analytics?days=7").json();
    assert_eq!(
        (&sums["totals"]["builds"], &sums["totals"]["failed"], &sums["totals"]["hit_rate"]),
        (&json!(1), &json!(1), &json!(0.0))
    );
    assert_eq!(sums["by_day"].as_array().map(Vec::len), Some(1));
    assert_eq!(sums["storage"]["blobs"], 0);
}

#[test]
fn lists_have_pages_and_graphs_and_sums_can_be_told_alone() {
    let server = Running::new();
    for n in 0..5 {
        let body =
            json!({ "build": format!("{n:032x}"), "name": n.to_string(), "steps": [{ "id": 7, "label": "RUN x" }] });
        assert_eq!(server.send("POST", "/dag", &[], body.to_string().as_bytes()).status, 200);
    }
    let sums = json!({ "build": format!("{:032x}", 9), "name": "sums", "ok": true, "duration_ms": 5, "cached": 3, "executed": 1 });
    assert_eq!(server.send("POST", "/analytics", &[], sums.to_string().as_bytes()).status, 200);
    let mut names = Vec::new();
    let mut path = "/api/builds?limit=4".to_owned();
    loop {
        let page = server.get(&path).json();
        names.extend(page["builds"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("/api/builds?limit=4&before={next}");
    }
    assert_eq!(names, ["sums", "4", "3", "2", "1", "0"]);
    assert_eq!(server.get("/api/analytics").json()["totals"]["hit_rate"], 0.75);
    let layer =
        json!({ "build": ID, "event": "layer_built", "digest": format!("sha256:{}", "a".repeat(64)), "size": 5 });
    tell(&server, &layer);
    assert_eq!(server.get("/api/layers").json()["layers"][0]["size"], 5);
}

#[test]
fn what_is_no_build_is_refused() {
    let server = Running::new();
    for (body, code) in [
        (json!({ "build": "../../etc/passwd", "events": [] }), "invalid_build"),
        (json!({ "build": "<script>", "events": [] }), "invalid_build"),
        (json!({ "build": ID }), "invalid_json"),
        (json!({ "build": ID, "events": [{ "event": "node_cached" }] }), "invalid_json"),
        (json!({ "build": ID, "seq": -1, "events": [] }), "invalid_value"),
        (
            json!({ "build": ID, "events": [{ "event": "build_finished", "ok": true, "duration_ms": -5 }] }),
            "invalid_value",
        ),
        (json!({ "build": ID, "events": vec![json!({ "event": "x" }); 10_001] }), "too_many"),
        (json!([]), "invalid_json"),
    ] {
        let reply = tell(&server, &body);
        assert_eq!((reply.status, reply.error()), (400, code.into()), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(server.send("POST", "/build-event", &[], deep.as_bytes()).error(), "invalid_json");
    let large = vec![b' '; 9 << 20];
    assert_eq!(server.send("POST", "/build-event", &[], &large).error(), "too_large");
    for path in ["/api/builds/short", "/api/builds/..%2f..%2fx", "/dag?build=%00"] {
        assert_eq!(server.get(path).error(), "invalid_build", "{path}");
    }
    for path in [
        "/api/builds?limit=0",
        "/api/builds?limt=1",
        "/api/builds?before=x",
        "/api/analytics?days=0",
        "/api/layers?x=1",
    ] {
        assert_eq!(server.get(path).error(), "invalid_query", "{path}");
    }
    assert_eq!(server.get(&format!("/api/builds/{ID}")).error(), "not_found");
    assert_eq!(server.get("/dag").error(), "not_found");
    assert_eq!(server.get("/api/builds").json()["builds"], json!([]));
}

#[test]
fn scopes_of_builds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let [read, write] = [Scope::Read, Scope::Write]
        .map(|scope| format!("Authorization: Bearer {}", add_token(&file, scope.name(), scope).unwrap()));
    let server = Running::with(|config| config.tokens = Some(file));
    let body = json!({ "build": ID, "events": [started()] }).to_string();
    for path in ["/build-event", "/dag", "/analytics"] {
        assert_eq!(server.send("POST", path, &[], b"{}").status, 401, "{path}");
        assert_eq!(server.send("POST", path, &[&read], b"{}").status, 403, "{path}");
    }
    assert_eq!(server.send("POST", "/build-event", &[&write], body.as_bytes()).status, 200);
    for path in ["/api/builds", "/api/analytics", "/api/layers", "/dag", &format!("/api/builds/{ID}")] {
        assert_eq!(server.get(path).status, 401, "{path}");
        assert_eq!(server.send("GET", path, &[&read], b"").status, 200, "{path}");
    }
    let list = server.send("GET", "/api/builds", &[&read], b"").json();
    assert_eq!(list["builds"][0]["client"], "write");
    // The page itself is no secret.
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/assets/main.js").status, 200);
}

#[test]
fn builds_outlive_the_server_and_collections() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Running::with(|config| config.data_dir.clone_from(&data));
    tell(&server, &json!({ "build": ID, "name": "app", "events": [started()] }));
    assert_eq!(server.send("POST", "/gc?days=0", &[], b"").status, 200);
    drop(server);
    let server = Running::with(|config| config.data_dir.clone_from(&data));
    assert_eq!(server.get(&format!("/api/builds/{ID}")).json()["plan"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_page_is_whole_and_allows_nothing_else() {
    let server = Running::new();
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap_or_default();
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let text = String::from_utf8(page.body.clone()).unwrap();
    for outside in ["http://", "https://", "<style", "style=", "onclick", "javascript:"] {
        assert!(!text.contains(outside), "{outside}");
    }
    // Everything that it names is there.
    let mut files: Vec<String> = text.split('"').filter(|p| p.starts_with("/assets/")).map(str::to_owned).collect();
    let mut at = 0;
    while let Some(path) = files.get(at).cloned() {
        let file = server.get(&path);
        assert_eq!(file.status, 200, "{path}");
        let text = String::from_utf8(file.body.clone()).unwrap();
        if path.ends_with(".js") {
            assert!(
                !text.contains("innerHTML") && !text.contains("insertAdjacentHTML") && !text.contains("eval("),
                "{path}"
            );
            for import in text.split('"').filter(|p| p.starts_with("/assets/")) {
                if !files.iter().any(|known| known == import) {
                    files.push(import.to_owned());
                }
            }
        }
        at += 1;
    }
    assert!(files.len() >= 8, "{files:?}");
    let tag = page.header("etag").unwrap();
    assert_eq!(server.send("GET", "/", &[&format!("If-None-Match: {tag}")], b"").status, 304);
    assert_eq!(server.send("HEAD", "/", &[], b"").status, 200);
    assert_eq!(server.get("/assets/no.js").status, 404);
}
