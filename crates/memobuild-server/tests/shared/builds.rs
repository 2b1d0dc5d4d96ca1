//! Builds that one server is told of, as the others show them.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::{
    Bed,
    faults::{PATIENCE, refused},
    node::Node,
    socket::{self, Socket, next, watch},
};

const ID: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn builds() {
    crate::run(&[
        ("what one is told all show", what_one_is_told_all_show),
        ("watching another server", watching_another_server),
        ("half to each", half_to_each),
        ("builds while the database is gone", builds_while_the_database_is_gone),
        ("builds and a clock that is wrong", builds_and_a_clock_that_is_wrong),
    ]);
}

/// Tells of events from this number on; gives the number of the next.
fn tell(node: &Node, seq: u64, events: &Value) -> u64 {
    let body = json!({ "build": ID, "seq": seq, "name": "app:1", "events": events }).to_string();
    let reply = node.send("POST", "/build-event", &[], body.as_bytes());
    assert_eq!((reply.status, &reply.json()["build"]), (200, &json!(ID)), "{reply:?}");
    reply.json()["next"].as_u64().unwrap()
}

fn started() -> Value {
    json!({ "event": "build_started", "steps": [
        { "id": 0, "label": "[bin 1/3] FROM busybox", "stage": "bin", "inputs": [], "line": 1 },
        { "id": 1, "label": "[bin 2/3] RUN make", "stage": "bin", "inputs": [0], "line": 2 },
        { "id": 2, "label": "[bin 3/3] RUN make install", "stage": "bin", "inputs": [1], "line": 3 },
    ] })
}

fn executing(step: u32) -> Value {
    json!({ "event": "node_executing", "step": step, "reason": "no result for these inputs" })
}

fn output(step: u32, text: &str) -> Value {
    json!({ "event": "node_output", "step": step, "data": BASE64.encode(text) })
}

fn done(step: u32) -> Value {
    json!({ "event": "node_done", "step": step, "outcome": "executed", "duration_ms": 20 })
}

fn finished() -> Value {
    json!({ "event": "build_finished", "ok": true, "duration_ms": 30 })
}

/// Without the time of the answer.
fn get(node: &Node, path: &str) -> Value {
    let reply = node.get(path);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    let mut json = reply.json();
    json.as_object_mut().unwrap().remove("now");
    json
}

fn build(node: &Node) -> Value {
    get(node, &format!("/api/builds/{ID}"))
}

fn what_one_is_told_all_show(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    assert_eq!(b.get("/dag").status, 404);
    let layer = json!({ "event": "layer_built", "digest": format!("sha256:{}", "a".repeat(64)), "size": 5 });
    let warning = json!({ "event": "warning", "message": "a\0b" });
    let next = tell(&a, 0, &json!([started(), executing(1), output(1, "cc\n"), done(1), layer, warning]));
    for path in [
        "/api/builds",
        &format!("/api/builds/{ID}"),
        "/dag",
        &format!("/dag?build={ID}"),
        "/api/analytics",
        "/api/layers",
    ] {
        assert_eq!(get(&b, path), get(&a, path), "{path}");
    }
    let shown = build(&b);
    assert_eq!((&shown["state"], &shown["name"], &shown["number"]), (&json!("running"), &json!("app:1"), &json!(1)));
    assert_eq!((&shown["plan"][1]["state"], &shown["plan"][2]["state"]), (&json!("done"), &json!("pending")));
    assert_eq!((&shown["logs"][0]["text"], &shown["warnings"]), (&json!("cc\n"), &json!(["ab"])));
    assert_eq!(get(&b, "/api/builds")["builds"][0]["id"], ID);
    assert_eq!(get(&b, "/dag")["edges"], json!([[0, 1], [1, 2]]));
    assert_eq!(get(&b, "/api/layers")["layers"][0]["size"], 5);
    assert_eq!(get(&b, "/api/analytics")["running"], 1);
    tell(&b, next, &json!([finished()]));
    let sums = get(&a, "/api/analytics");
    assert_eq!(
        (&sums["totals"]["succeeded"], &sums["running"], sums["by_day"].as_array().map(Vec::len)),
        (&json!(1), &json!(0), Some(1))
    );
    // How long steps took the next build learns, wherever it is told.
    let other = json!({ "build": "another-build", "name": "app:2", "events": [started(), { "event": "node_cached", "step": 1 }] });
    assert_eq!(a.send("POST", "/build-event", &[], other.to_string().as_bytes()).status, 200);
    assert_eq!(get(&b, "/api/builds")["builds"][0]["saved_ms"], 20.0);
    // A page of the list ends with a number that all know.
    let page = get(&a, "/api/builds?limit=1");
    assert_eq!(get(&b, &format!("/api/builds?before={}", page["next"]))["builds"][0]["id"], ID);
}

/// Hears on until this is told of the build; gives it. Nothing that is told is older than what was told before.
fn hear(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    let mut ended = 0;
    loop {
        assert!(began.elapsed() < PATIENCE, "this was not told");
        let told = next(socket);
        if told["type"] == "build" && told["build"]["id"] == ID {
            let now = told["build"]["steps"]["ended"].as_u64().unwrap();
            assert!(now >= ended, "{told}");
            ended = now;
        }
        if wanted(&told) {
            return told;
        }
    }
}

fn is_build(told: &Value, state: &str) -> bool {
    told["type"] == "build" && told["build"]["id"] == ID && told["build"]["state"] == state
}

fn has_step(told: &Value, step: u32, state: &str) -> bool {
    let is = |s: &Value| s["id"] == step && s["state"] == state;
    told["type"] == "steps" && told["steps"].as_array().is_some_and(|steps| steps.iter().any(is))
}

fn watching_another_server(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    let mut sockets = [&b, &a].map(|node| socket::open(node.addr, &[]).unwrap());
    sockets.iter_mut().for_each(|socket| watch(socket, Some(ID)));
    // Each step of the build is told only when the one before was heard: it goes on while it is watched.
    let mut next = tell(&a, 0, &json!([started()]));
    for socket in &mut sockets {
        let told = hear(socket, |told| is_build(told, "running"));
        assert_eq!(told["build"]["steps"]["total"], 3);
        hear(socket, |told| told["type"] == "steps" && told["reload"] == true);
    }
    for step in 0..3 {
        let began = Instant::now();
        next = tell(&a, next, &json!([executing(step), output(step, "cc a.c\n")]));
        for socket in &mut sockets {
            let told = hear(socket, |told| has_step(told, step, "running"));
            assert_eq!((&told["reload"], told["steps"].as_array().map(Vec::len)), (&json!(false), Some(1)));
            assert_eq!(told["logs"], json!([{ "step": step, "text": "cc a.c\n", "cut": false }]));
        }
        println!("    heard after {} ms", began.elapsed().as_millis());
        next = tell(&a, next, &json!([done(step)]));
        for socket in &mut sockets {
            hear(socket, |told| has_step(told, step, "done"));
        }
    }
    // Who comes later hears what comes from then on.
    let mut late = socket::open(b.addr, &[]).unwrap();
    watch(&mut late, None);
    tell(&a, next, &json!([finished()]));
    for socket in sockets.iter_mut().chain([&mut late]) {
        assert_eq!(hear(socket, |told| is_build(told, "succeeded"))["build"]["steps"]["ended"], 3);
    }
}

fn half_to_each(bed: &Bed<'_>) {
    let nodes = [bed.node(None), bed.node(None)];
    let mut socket = socket::open(nodes[1].addr, &[]).unwrap();
    watch(&mut socket, Some(ID));
    let mut next = tell(&nodes[0], 0, &json!([started(), executing(1)]));
    for n in 0..40usize {
        let events = json!([output(1, &format!("{n}\n"))]);
        next = tell(&nodes[n % 2], next, &events);
        // Sent to the other too: the answer was lost, and the client went on elsewhere.
        assert_eq!(tell(&nodes[(n + 1) % 2], next - 1, &events), next);
    }
    // At once, as if two balancers had the same request.
    let last = json!([done(1), finished()]);
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| assert_eq!(tell(node, next, &last), next + 2));
        }
    });
    let lines: String = (0..40).map(|n| format!("{n}\n")).collect();
    let shown = nodes.each_ref().map(build);
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0]["logs"], json!([{ "step": 1, "text": lines, "cut": false }]));
    assert_eq!((&shown[0]["state"], &shown[0]["steps"]["executed"]), (&json!("succeeded"), &json!(1)));
    hear(&mut socket, |told| is_build(told, "succeeded"));
    assert_eq!(bed.sql("SELECT count(*), max(next) FROM builds"), "1|44");
}

fn builds_while_the_database_is_gone(bed: &Bed<'_>) {
    let (a, b) = (bed.node(None), bed.node(None));
    let mut socket = socket::open(b.addr, &[]).unwrap();
    watch(&mut socket, Some(ID));
    let next = tell(&a, 0, &json!([started()]));
    hear(&mut socket, |told| is_build(told, "running"));
    bed.postgres.stop();
    let batch = json!({ "build": ID, "seq": next, "events": [executing(1)] }).to_string();
    for node in [&a, &b] {
        refused(node, "POST", "/build-event", batch.as_bytes());
        for path in ["/api/builds", &format!("/api/builds/{ID}"), "/dag", "/api/analytics", "/api/layers"] {
            refused(node, "GET", path, b"");
        }
        assert_eq!(node.get("/healthz").status, 200);
    }
    // Looks fail meanwhile.
    thread::sleep(Duration::from_millis(2500));
    bed.postgres.resume();
    let began = Instant::now();
    while a.send("POST", "/build-event", &[], batch.as_bytes()).status != 200 {
        assert!(began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    }
    // Who watched all the time is told, and misses nothing.
    hear(&mut socket, |told| has_step(told, 1, "running"));
    tell(&b, next + 1, &json!([done(1), finished()]));
    hear(&mut socket, |told| has_step(told, 1, "done"));
    assert_eq!(build(&a), build(&b));
    assert_eq!(build(&a)["state"], "succeeded");
}

/// Ten minutes ahead: builds that it shows are not lost, and those that it is told of are not of the future.
fn builds_and_a_clock_that_is_wrong(bed: &Bed<'_>) {
    if Command::new("faketime").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: faketime is not installed");
        return;
    }
    let a = bed.node(None);
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["env", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", "+10m"];
    let b = Node::start_in(bed, &bed.seaweed.endpoint(), None, dir.path(), &wrapper);
    let next = tell(&a, 0, &json!([started()]));
    assert_eq!(build(&b)["state"], "running");
    tell(&b, next, &json!([executing(1)]));
    assert_eq!(build(&a), build(&b));
    assert_eq!(bed.sql("SELECT abs(updated - milliseconds()) < 120000, updated - started < 120000 FROM builds"), "t|t");
    let times = [&a, &b].map(|node| node.get("/api/builds").json()["now"].as_i64().unwrap());
    assert!((times[1] - times[0]).abs() < 120_000, "{times:?}");
}
