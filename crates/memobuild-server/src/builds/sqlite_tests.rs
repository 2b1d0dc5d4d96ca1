use serde_json::{Value, json};

use super::*;

const T0: i64 = 1_700_000_000_000;

struct Place {
    _dir: tempfile::TempDir,
    builds: SqliteBuilds,
}

fn place(limits: Limits) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let builds = SqliteBuilds::open(&dir.path().join("builds.sqlite"), limits).unwrap();
    Place { _dir: dir, builds }
}

fn id(n: usize) -> String {
    format!("{n:032x}")
}

impl Place {
    fn tell(&self, n: usize, now: i64, events: Value) -> Change {
        let body = json!({ "build": id(n), "name": format!("app:{n}"), "events": events });
        self.builds.take(&Batch::events(body.to_string().as_bytes()).unwrap(), "ci", now).unwrap()
    }

    fn detail(&self, n: usize) -> Detail {
        self.builds.get(&id(n).parse().unwrap(), T0).unwrap().unwrap()
    }

    fn numbers(&self) -> Vec<String> {
        self.builds.list(None, 100, T0).unwrap().into_iter().map(|b| b.name).collect()
    }
}

fn plan() -> Value {
    json!({ "event": "build_started", "steps": [
        { "id": 0, "label": "[x 1/2] FROM busybox", "stage": "x", "inputs": [], "line": 1 },
        { "id": 1, "label": "[x 2/2] RUN make", "stage": "x", "inputs": [0], "line": 2 },
    ] })
}

fn output(step: u32, bytes: &[u8]) -> Value {
    use base64::Engine as _;
    json!({ "event": "node_output", "step": step, "data": base64::engine::general_purpose::STANDARD.encode(bytes) })
}

#[test]
fn a_build_is_kept_as_it_was_told() {
    let place = place(Limits::default());
    let change = place.tell(
        1,
        T0,
        json!([
            plan(),
            { "event": "sandbox_chosen", "mode": "traced", "why": "root" },
            { "event": "node_done", "step": 0, "outcome": "cached", "duration_ms": 2.0 },
            { "event": "node_executing", "step": 1, "reason": "src/a.c changed", "again": true },
            output(1, b"\x1b[1mcc a.c\x1b[0m\n"),
        ]),
    );
    assert!(change.replaced && !change.ended);
    assert_eq!(change.logs, [Output { step: 1, text: "cc a.c\n".into(), cut: false }]);
    let change = place.tell(
        1,
        T0 + 500,
        json!([
            output(1, b"done\n"),
            { "event": "node_done", "step": 1, "outcome": "executed", "duration_ms": 400.0 },
            { "event": "layer_built", "digest": format!("sha256:{}", "a".repeat(64)), "size": 77 },
            { "event": "warning", "message": "w" },
            { "event": "build_finished", "ok": true, "duration_ms": 450.0, "cached": 1, "executed": 1 },
        ]),
    );
    assert!(change.ended && !change.replaced);
    assert_eq!(change.steps.iter().map(|s| s.id).collect::<Vec<_>>(), [1]);
    let detail = place.detail(1);
    assert_eq!(detail.build.state, BuildState::Succeeded);
    assert_eq!((detail.build.name.as_str(), detail.build.client.as_str()), ("app:1", "ci"));
    assert_eq!((detail.build.started, detail.build.updated), (T0, T0 + 500));
    assert_eq!(detail.sandbox.as_deref(), Some("traced: root"));
    assert_eq!(detail.warnings, ["w"]);
    assert_eq!(detail.plan[1].reason.as_deref(), Some("src/a.c changed"));
    assert_eq!((detail.plan[1].inputs.as_slice(), detail.plan[1].began), ([0].as_slice(), Some(T0)));
    assert_eq!(detail.logs[0].text, "cc a.c\ndone\n");
    assert_eq!(detail.layers[0].size, 77);
    assert_eq!(place.builds.newest().unwrap(), Some(id(1).parse().unwrap()));

    // The next build has the step from the cache.
    place.tell(2, T0 + 1000, json!([plan(), { "event": "node_cached", "step": 1 }]));
    assert_eq!(place.detail(2).build.saved_ms, 400.0);
    let sums = place.builds.analytics(T0 - 86_400_000, T0 + 1000).unwrap();
    assert_eq!((sums.totals.builds, sums.totals.succeeded, sums.running), (2, 1, 1));
    assert_eq!((sums.totals.cached, sums.totals.executed, sums.totals.hit_rate()), (1, 1, Some(0.5)));
    assert_eq!(sums.days.iter().map(|d| d.day.as_str()).collect::<Vec<_>>(), ["2023-11-14"]);
    assert_eq!(place.builds.analytics(T0 + 86_400_000, T0).unwrap().totals, Totals::default());
}

#[test]
fn it_is_there_after_a_restart_and_a_later_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("builds.sqlite");
    let batch = Batch::events(json!({ "build": id(1), "events": [plan()] }).to_string().as_bytes()).unwrap();
    SqliteBuilds::open(&path, Limits::default()).unwrap().take(&batch, "-", T0).unwrap();
    let builds = SqliteBuilds::open(&path, Limits::default()).unwrap();
    assert_eq!(builds.get(&batch.build, T0).unwrap().unwrap().plan.len(), 2);
    // Nothing was heard of it for long.
    assert_eq!(builds.list(None, 1, T0 + LOST_AFTER + 1).unwrap()[0].state, BuildState::Lost);
    drop(builds);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(SqliteBuilds::open(&path, Limits::default()).is_err());
}

#[test]
fn outputs_are_bounded() {
    let place = place(Limits::default());
    let steps: Vec<Value> = (0..60).map(|id| json!({ "id": id, "label": format!("RUN {id}") })).collect();
    place.tell(1, T0, json!([{ "event": "build_started", "steps": steps }]));
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    for step in 0..60 {
        for _ in 0..2 {
            let change = place.tell(1, T0, json!([output(step, &line.repeat(700))]));
            assert!(change.logs[0].text.len() <= LIVE_TAIL);
        }
    }
    let detail = place.detail(1);
    let last = detail.logs.last().unwrap();
    assert!(last.cut && last.text.len() <= STEP_LOG && last.text.len() > STEP_LOG - 200 && last.text.starts_with('x'));
    let all: usize = detail.logs.iter().map(|log| log.text.len()).sum();
    assert!(all as u64 <= BUILD_LOG && all as u64 > BUILD_LOG / 2, "{all}");
    // Those that wrote first lost theirs, and say so.
    assert_eq!(detail.logs.first().map(|log| (log.text.as_str(), log.cut)), Some(("", true)));
}

#[test]
fn old_builds_go_and_so_do_too_many() {
    let limits = Limits { age: Duration::from_secs(100), builds: 3, bytes: 1 << 30 };
    let place = place(limits);
    for n in 0..5 {
        place.tell(n, T0 + n as i64 * 10_000, json!([plan()]));
    }
    assert_eq!(place.builds.prune(T0 + 40_000).unwrap(), 2);
    assert_eq!(place.numbers(), ["app:4", "app:3", "app:2"]);
    assert_eq!(place.builds.prune(T0 + 135_000).unwrap(), 2);
    assert_eq!(place.numbers(), ["app:4"]);
    let steps: i64 = place.builds.connection().query_row("SELECT count(*) FROM steps", [], |row| row.get(0)).unwrap();
    assert_eq!(steps, 2);
}

#[test]
fn too_many_bytes_go_but_never_the_newest() {
    let place = place(Limits { bytes: 100_000, ..Limits::default() });
    for n in 0..4 {
        place.tell(n, T0, json!([plan(), output(1, &[b'x'; 45_000])]));
    }
    place.builds.prune(T0).unwrap();
    assert_eq!(place.numbers(), ["app:3", "app:2"]);
    let place = self::place(Limits { bytes: 1, ..Limits::default() });
    place.tell(7, T0, json!([plan()]));
    assert_eq!(place.builds.prune(T0).unwrap(), 0);
}

#[test]
fn pages_of_the_list_and_the_largest_layers() {
    let place = place(Limits::default());
    let layer =
        |n: usize, size: u64| json!({ "event": "layer_built", "digest": format!("sha256:{n:064x}"), "size": size });
    for n in 0..5 {
        place.tell(n, T0, json!([plan(), layer(1, 10), layer(n + 2, 100 + n as u64)]));
    }
    let first = place.builds.list(None, 2, T0).unwrap();
    let second = place.builds.list(Some(first[1].number), 2, T0).unwrap();
    assert_eq!(
        first.iter().chain(&second).map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["app:4", "app:3", "app:2", "app:1"]
    );
    let layers = place.builds.layers(6).unwrap();
    assert_eq!(
        layers.iter().map(|l| (l.layer.size, l.builds)).collect::<Vec<_>>(),
        [(104, 1), (103, 1), (102, 1), (101, 1), (100, 1), (10, 5)]
    );
    assert_eq!(layers[5].name, "app:4");
}
