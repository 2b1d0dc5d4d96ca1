//! What every `Builds` must do, whatever it is made of.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{collections::BTreeSet, thread, time::Instant};

use serde_json::{Value, json};

use super::{rows::LIVE_TAIL, *};

pub(super) const T0: i64 = 1_700_000_000_000;

/// What keeps builds under test, and what a test needs beside it.
pub(super) trait Bed: Sync {
    fn builds(&self) -> &dyn Builds;

    /// How many steps all builds have together.
    fn steps(&self) -> u64;
}

/// Makes an empty one with these limits.
pub(super) type New<'a> = &'a dyn Fn(Limits) -> Box<dyn Bed + 'a>;

/// A case with its name.
type Case = (&'static str, fn(New<'_>));

/// All of them, one after the other.
pub(super) fn all(new: New<'_>) {
    let cases: [Case; 8] = [
        ("as it was told", a_build_is_kept_as_it_was_told),
        ("a plan once more", a_plan_once_more),
        ("outputs", outputs_are_bounded),
        ("old builds", old_builds_go_and_so_do_too_many),
        ("too many bytes", too_many_bytes_go_but_never_the_newest),
        ("pages and layers", pages_of_the_list_and_the_largest_layers),
        ("one build from many", one_build_from_many),
        ("pruning beside batches", pruning_beside_batches),
    ];
    for (name, case) in cases {
        let began = Instant::now();
        println!("{name}");
        case(new);
        println!("    {} ms", began.elapsed().as_millis());
    }
}

pub(super) fn id(n: usize) -> String {
    format!("{n:032x}")
}

/// Tells of a build's events; `seq`: the number of the first.
pub(super) fn tell_from(builds: &dyn Builds, n: usize, seq: Option<u64>, now: i64, events: &Value) -> Change {
    let mut body = json!({ "build": id(n), "name": format!("app:{n}"), "events": events });
    if let Some(seq) = seq {
        body["seq"] = seq.into();
    }
    builds.take(&Batch::events(body.to_string().as_bytes()).unwrap(), "ci", now).unwrap()
}

pub(super) fn tell(builds: &dyn Builds, n: usize, now: i64, events: Value) -> Change {
    tell_from(builds, n, None, now, &events)
}

fn detail(builds: &dyn Builds, n: usize) -> Detail {
    builds.get(&id(n).parse().unwrap(), T0).unwrap().unwrap()
}

fn names(builds: &dyn Builds) -> Vec<String> {
    builds.list(None, 100, T0).unwrap().into_iter().map(|b| b.name).collect()
}

pub(super) fn plan() -> Value {
    json!({ "event": "build_started", "steps": [
        { "id": 0, "label": "[x 1/2] FROM busybox", "stage": "x", "inputs": [], "line": 1 },
        { "id": 1, "label": "[x 2/2] RUN make", "stage": "x", "inputs": [0], "line": 2 },
    ] })
}

pub(super) fn output(step: u32, bytes: &[u8]) -> Value {
    use base64::Engine as _;
    json!({ "event": "node_output", "step": step, "data": base64::engine::general_purpose::STANDARD.encode(bytes) })
}

fn a_build_is_kept_as_it_was_told(new: New<'_>) {
    let place = new(Limits::default());
    let builds = place.builds();
    let change = tell(
        builds,
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
    let change = tell(
        builds,
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
    let detail = self::detail(builds, 1);
    assert_eq!(detail.build.state, BuildState::Succeeded);
    assert_eq!((detail.build.name.as_str(), detail.build.client.as_str()), ("app:1", "ci"));
    assert_eq!((detail.build.started, detail.build.updated), (T0, T0 + 500));
    assert_eq!(detail.sandbox.as_deref(), Some("traced: root"));
    assert_eq!(detail.warnings, ["w"]);
    assert_eq!(detail.plan[1].reason.as_deref(), Some("src/a.c changed"));
    assert_eq!((detail.plan[1].inputs.as_slice(), detail.plan[1].began), ([0].as_slice(), Some(T0)));
    assert_eq!(detail.logs[0].text, "cc a.c\ndone\n");
    assert_eq!(detail.layers[0].size, 77);
    assert_eq!(builds.newest().unwrap(), Some(id(1).parse().unwrap()));

    // The next build has the step from the cache.
    tell(builds, 2, T0 + 1000, json!([plan(), { "event": "node_cached", "step": 1 }]));
    assert_eq!(self::detail(builds, 2).build.saved_ms, 400.0);
    let sums = builds.analytics(T0 - 86_400_000, T0 + 1000).unwrap();
    assert_eq!((sums.totals.builds, sums.totals.succeeded, sums.running), (2, 1, 1));
    assert_eq!((sums.totals.cached, sums.totals.executed, sums.totals.hit_rate()), (1, 1, Some(0.5)));
    assert_eq!(sums.days.iter().map(|d| d.day.as_str()).collect::<Vec<_>>(), ["2023-11-14"]);
    assert_eq!(builds.analytics(T0 + 86_400_000, T0).unwrap().totals, Totals::default());
}

fn outputs_are_bounded(new: New<'_>) {
    let place = new(Limits::default());
    let builds = place.builds();
    let steps: Vec<Value> = (0..60).map(|id| json!({ "id": id, "label": format!("RUN {id}") })).collect();
    tell(builds, 1, T0, json!([{ "event": "build_started", "steps": steps }]));
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    for step in 0..60 {
        for _ in 0..2 {
            let change = tell(builds, 1, T0, json!([output(step, &line.repeat(700))]));
            assert!(change.logs[0].text.len() <= LIVE_TAIL);
        }
    }
    let detail = self::detail(builds, 1);
    let last = detail.logs.last().unwrap();
    assert!(last.cut && last.text.len() <= STEP_LOG && last.text.len() > STEP_LOG - 200 && last.text.starts_with('x'));
    let all: usize = detail.logs.iter().map(|log| log.text.len()).sum();
    assert!(all as u64 <= BUILD_LOG && all as u64 > BUILD_LOG / 2, "{all}");
    // Those that wrote first lost theirs, and say so.
    assert_eq!(detail.logs.first().map(|log| (log.text.as_str(), log.cut)), Some(("", true)));
}

fn old_builds_go_and_so_do_too_many(new: New<'_>) {
    let limits = Limits { age: Duration::from_secs(100), builds: 3, bytes: 1 << 30 };
    let place = new(limits);
    let builds = place.builds();
    for n in 0..5 {
        tell(builds, n, T0 + n as i64 * 10_000, json!([plan()]));
    }
    assert_eq!(builds.prune(T0 + 40_000).unwrap(), 2);
    assert_eq!(names(builds), ["app:4", "app:3", "app:2"]);
    assert_eq!(builds.prune(T0 + 135_000).unwrap(), 2);
    assert_eq!(names(builds), ["app:4"]);
    assert_eq!(place.steps(), 2);
}

fn too_many_bytes_go_but_never_the_newest(new: New<'_>) {
    let place = new(Limits { bytes: 100_000, ..Limits::default() });
    let builds = place.builds();
    for n in 0..4 {
        tell(builds, n, T0, json!([plan(), output(1, &[b'x'; 45_000])]));
    }
    builds.prune(T0).unwrap();
    assert_eq!(names(builds), ["app:3", "app:2"]);
    let place = new(Limits { bytes: 1, ..Limits::default() });
    let builds = place.builds();
    tell(builds, 7, T0, json!([plan()]));
    assert_eq!(builds.prune(T0).unwrap(), 0);
}

fn pages_of_the_list_and_the_largest_layers(new: New<'_>) {
    let place = new(Limits::default());
    let builds = place.builds();
    let layer =
        |n: usize, size: u64| json!({ "event": "layer_built", "digest": format!("sha256:{n:064x}"), "size": size });
    for n in 0..5 {
        tell(builds, n, T0, json!([plan(), layer(1, 10), layer(n + 2, 100 + n as u64)]));
    }
    let first = builds.list(None, 2, T0).unwrap();
    let second = builds.list(Some(first[1].number), 2, T0).unwrap();
    assert_eq!(
        first.iter().chain(&second).map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["app:4", "app:3", "app:2", "app:1"]
    );
    let layers = builds.layers(6).unwrap();
    assert_eq!(
        layers.iter().map(|l| (l.layer.size, l.builds)).collect::<Vec<_>>(),
        [(104, 1), (103, 1), (102, 1), (101, 1), (100, 1), (10, 5)]
    );
    assert_eq!(layers[5].name, "app:4");
}

/// A build goes through its plan again when it met damage in its cache.
fn a_plan_once_more(new: New<'_>) {
    let place = new(Limits::default());
    let builds = place.builds();
    let layer = json!({ "event": "layer_built", "digest": format!("sha256:{}", "b".repeat(64)), "size": 5 });
    let done = json!({ "event": "node_done", "step": 1, "outcome": "failed", "message": "m", "duration_ms": 1 });
    tell(builds, 1, T0, json!([plan(), output(1, b"first\n"), done, layer, layer]));
    assert_eq!(detail(builds, 1).layers.len(), 1);
    let shorter = json!({ "event": "build_started", "steps": [{ "id": 7, "label": "RUN x" }] });
    // What another server's clock says does not make it older.
    let change = tell(builds, 1, T0 - 5000, json!([shorter, output(7, b"second\n")]));
    assert!(change.replaced);
    let detail = self::detail(builds, 1);
    assert_eq!((detail.plan.len(), detail.plan[0].id, detail.plan[0].line), (1, 7, None));
    assert_eq!(detail.logs, [Output { step: 7, text: "second\n".into(), cut: false }]);
    assert!(detail.layers.is_empty());
    assert_eq!((detail.build.started, detail.build.updated, detail.build.steps.total), (T0, T0, 1));
    assert_eq!(builds.get(&id(2).parse().unwrap(), T0).unwrap(), None);
    // Nothing was heard of it for long, and then something is.
    assert_eq!(builds.list(None, 1, T0 + LOST_AFTER + 1).unwrap()[0].state, BuildState::Lost);
    assert_eq!(tell(builds, 1, T0 + LOST_AFTER + 1, json!([])).build.state, BuildState::Running);
    assert_eq!(builds.list(None, 1, T0 + LOST_AFTER + 1).unwrap()[0].state, BuildState::Running);
    assert_eq!(builds.analytics(T0, T0 + LOST_AFTER + 1).unwrap().running, 1);
}

/// Each of many sends all batches of one build in order, as if all of them had missed the answers.
fn one_build_from_many(new: New<'_>) {
    let place = new(Limits::default());
    let builds = place.builds();
    let batches: Vec<(u64, Value)> = std::iter::once((0, json!([plan(), output(1, b"0\n")])))
        .chain((1..20).map(|n| {
            (2 * n, json!([output(1, format!("{n}\n").as_bytes()), { "event": "warning", "message": n.to_string() }]))
        }))
        .chain([(40, json!([{ "event": "build_finished", "ok": true, "duration_ms": 5 }]))])
        .collect();
    let ends: Vec<bool> = at_once(|_| {
        batches.iter().filter(|(seq, events)| tell_from(builds, 1, Some(*seq), T0, events).ended).count() == 1
    });
    assert_eq!(ends.iter().filter(|ended| **ended).count(), 1, "an end is told once");
    let detail = detail(builds, 1);
    let lines: String = (0..20).map(|n| format!("{n}\n")).collect();
    assert_eq!(detail.logs[0].text, lines);
    assert_eq!(detail.warnings, (1..20).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    assert_eq!((detail.build.next, detail.build.state), (41, BuildState::Succeeded));
    assert_eq!(names(builds), ["app:1"]);
    // Builds that begin at once have numbers of their own, and those that learn the same don't stand in each other's way.
    let ran = |step: u32| json!({ "event": "node_done", "step": step, "outcome": "executed", "duration_ms": 7 });
    at_once(|n| {
        for round in 0..5 {
            let events = if n % 2 == 0 { json!([plan(), ran(0), ran(1)]) } else { json!([plan(), ran(1), ran(0)]) };
            tell(builds, 100 + usize::from(n) * 10 + round, T0, events);
        }
    });
    let numbers: BTreeSet<i64> = builds.list(None, 100, T0).unwrap().iter().map(|build| build.number).collect();
    assert_eq!(numbers.len(), 41);
}

fn pruning_beside_batches(new: New<'_>) {
    let place = new(Limits { builds: 5, ..Limits::default() });
    let builds = place.builds();
    at_once(|n| {
        for round in 0..10 {
            tell(builds, 1000 + usize::from(n) * 100 + round, T0, json!([plan(), output(1, b"x")]));
            builds.prune(T0).unwrap();
        }
    });
    builds.prune(T0).unwrap();
    let kept = builds.list(None, 100, T0).unwrap();
    assert_eq!((kept.len(), place.steps()), (5, 10));
    for build in kept {
        assert_eq!(builds.get(&build.id, T0).unwrap().unwrap().plan.len(), 2);
    }
}

/// Runs this on many threads at once.
fn at_once<T: Send>(work: impl Fn(u8) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
