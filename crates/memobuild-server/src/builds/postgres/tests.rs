use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    builds::{
        StepState,
        conformance::{self, Bed, id, output, plan, tell, tell_from},
    },
    storage::{StorageError, testing::PostgresServer},
};

/// A database of a server that tests share.
struct Shared<'a> {
    server: &'a PostgresServer,
    name: String,
    url: String,
}

impl<'a> Shared<'a> {
    fn new(server: &'a PostgresServer) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("b{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = server.database(&name);
        Self { server, name, url }
    }

    /// One server's.
    fn node(&self, limits: Limits) -> PostgresBuilds {
        PostgresBuilds::new(Database::connect(&self.url).unwrap(), limits)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, &format!("SET search_path = memobuild; {sql}"))
    }
}

struct OneNode<'a> {
    shared: Shared<'a>,
    builds: PostgresBuilds,
}

impl Bed for OneNode<'_> {
    fn builds(&self) -> &dyn Builds {
        &self.builds
    }

    fn steps(&self) -> u64 {
        self.shared.sql("SELECT count(*) FROM build_steps").parse().unwrap()
    }
}

#[test]
fn does_what_all_builds_do() {
    let Some(server) = PostgresServer::start() else { return };
    conformance::all(&|limits| {
        let shared = Shared::new(&server);
        let builds = shared.node(limits);
        Box::new(OneNode { shared, builds })
    });
}

/// What a look finds, and remembers what it saw.
fn look(builds: &PostgresBuilds, seen: &mut Seen) -> Vec<Change> {
    let (changes, now) = builds.news(seen).unwrap();
    *seen = now;
    changes
}

fn ids(change: &Change) -> Vec<u32> {
    change.steps.iter().map(|step| step.id).collect()
}

fn executing(step: u32) -> Value {
    json!({ "event": "node_executing", "step": step, "reason": "r" })
}

#[test]
fn servers_that_share_a_database() {
    let Some(server) = PostgresServer::start() else { return };
    halves_make_one_build(&Shared::new(&server));
    news_are_told_once_and_whole(&Shared::new(&server));
    news_after_a_while(&Shared::new(&server));
    limits_are_those_of_all(&Shared::new(&server));
    tables_of_the_version_before_are_brought_to_this_one(&Shared::new(&server));
    gone_and_back(&Shared::new(&server));
}

fn halves_make_one_build(shared: &Shared<'_>) {
    let nodes = [shared.node(Limits::default()), shared.node(Limits::default())];
    let now = nodes[0].now().unwrap();
    tell_from(&nodes[0], 1, Some(0), now, &json!([plan()]));
    // Each is told every other batch, and the one whose turn it is waits for no clock.
    for n in 1..=30u64 {
        let node = &nodes[usize::try_from(n % 2).unwrap()];
        let change = tell_from(node, 1, Some(n), now, &json!([output(1, format!("{n}\n").as_bytes())]));
        assert_eq!(change.build.next, n + 1);
    }
    // Both are told the same at once, by a client that heard no answer of the first.
    let end = json!([{ "event": "build_finished", "ok": true, "duration_ms": 5 }]);
    let ends = thread::scope(|scope| {
        let threads = nodes.each_ref().map(|node| scope.spawn(|| tell_from(node, 1, Some(31), now, &end).ended));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(ends[0] != ends[1], "one of them ended it: {ends:?}");
    let details = nodes.each_ref().map(|node| node.get(&id(1).parse().unwrap(), now).unwrap().unwrap());
    assert_eq!(details[0], details[1]);
    let lines: String = (1..=30).map(|n| format!("{n}\n")).collect();
    assert_eq!(details[0].logs[0].text, lines);
}

fn news_are_told_once_and_whole(shared: &Shared<'_>) {
    let (a, b) = (shared.node(Limits::default()), shared.node(Limits::default()));
    let now = a.now().unwrap();
    let mut seen = Seen::default();
    assert_eq!(look(&b, &mut seen), []);
    tell(&a, 1, now, json!([plan()]));
    let told = look(&b, &mut seen);
    assert_eq!((told.len(), told[0].replaced, told[0].build.steps.total), (1, true, 2));
    assert_eq!(look(&b, &mut seen), []);
    // Of several batches, whoever took them, what they changed together.
    tell(&a, 1, now, json!([executing(0)]));
    tell(&b, 1, now, json!([output(1, b"x\n")]));
    tell(&a, 1, now, json!([{ "event": "node_done", "step": 0, "outcome": "executed", "duration_ms": 3 }]));
    let told = look(&b, &mut seen);
    assert_eq!((told.len(), told[0].replaced, ids(&told[0])), (1, false, vec![0]));
    assert_eq!(told[0].steps[0].state, StepState::Done);
    assert_eq!((told[0].logs.len(), told[0].logs[0].text.as_str()), (1, "x\n"));
    // Only that it goes on; and another build beside it.
    tell(&a, 1, now, json!([]));
    tell(&b, 2, now, json!([plan(), executing(1)]));
    let told = look(&b, &mut seen);
    let brief: Vec<_> = told.iter().map(|change| (change.build.id.to_string(), change.replaced)).collect();
    assert_eq!(brief, [(id(1), false), (id(2), true)]);
    assert!(told[0].steps.is_empty() && told[0].logs.is_empty());
    // The plan once more.
    tell(&b, 1, now, json!([plan()]));
    assert!(look(&b, &mut seen)[0].replaced);
    // Who looks for the first time hears of what changed lately, with a word that all of it is new.
    let told = look(&a, &mut Seen::default());
    assert_eq!(told.iter().map(|change| change.replaced).collect::<Vec<_>>(), [true, true]);
}

fn news_after_a_while(shared: &Shared<'_>) {
    let builds = shared.node(Limits::default());
    let now = builds.now().unwrap();
    for n in 0..3 {
        tell(&builds, n, now, json!([plan()]));
    }
    let mut seen = Seen::default();
    assert_eq!(look(&builds, &mut seen).len(), 3);
    // As if these had been told of a minute ago, and the last look was before that.
    tell(&builds, 0, now, json!([executing(1)]));
    shared.sql("UPDATE builds SET updated = updated - 60000");
    seen.at = seen.at.map(|at| at - 61_000);
    let told = look(&builds, &mut seen);
    assert_eq!((told.len(), told[0].replaced, ids(&told[0])), (1, false, vec![1]));
    // What was not heard of lately is not looked at again, and told as new when it is heard of.
    assert_eq!(look(&builds, &mut seen), []);
    tell(&builds, 2, builds.now().unwrap(), json!([executing(0)]));
    let told = look(&builds, &mut seen);
    assert_eq!((told.len(), told[0].build.id.to_string(), told[0].replaced), (1, id(2), true));
    // Of very many at once only that they changed.
    for n in 10..115 {
        tell(&builds, n, builds.now().unwrap(), json!([plan()]));
    }
    assert_eq!(look(&builds, &mut seen).len(), 105);
    for n in 10..115 {
        tell(&builds, n, builds.now().unwrap(), json!([executing(0)]));
    }
    let told = look(&builds, &mut seen);
    assert!(told.len() == 105 && told.iter().all(|change| change.replaced && change.steps.is_empty()));
}

fn limits_are_those_of_all(shared: &Shared<'_>) {
    let limits = Limits { age: Duration::from_secs(100), builds: 70, ..Limits::default() };
    let (a, b) = (shared.node(limits), shared.node(limits));
    let now = a.now().unwrap();
    for n in 0..90 {
        tell(if n % 2 == 0 { &a } else { &b }, n, now, json!([plan(), executing(1)]));
    }
    let removed = thread::scope(|scope| {
        let threads = [&a, &b].map(|node| scope.spawn(|| node.prune(now).unwrap()));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!((removed[0] + removed[1], shared.sql("SELECT count(*) FROM builds").as_str()), (20, "70"));
    // More than are removed at a time.
    let done = json!([{ "event": "node_done", "step": 1, "outcome": "executed", "duration_ms": 3 }]);
    tell(&a, 89, now + 150_000, done);
    assert_eq!(b.prune(now + 200_000).unwrap(), 69);
    assert_eq!(shared.sql("SELECT count(*) FROM build_steps"), "2");
    // How long steps took goes with the same age.
    assert_eq!(shared.sql("SELECT count(*) FROM step_durations"), "1");
    assert_eq!(b.prune(now + 400_000).unwrap(), 1);
    assert_eq!(shared.sql("SELECT count(*) FROM step_durations"), "0");
}

fn tables_of_the_version_before_are_brought_to_this_one(shared: &Shared<'_>) {
    drop(shared.node(Limits::default()));
    let (identity, version) =
        (shared.sql("SELECT identity FROM store"), shared.sql("SELECT max(version) FROM versions"));
    shared.sql(
        "DROP TABLE builds, build_steps, build_outputs, build_layers, step_durations; DROP FUNCTION milliseconds;
         DELETE FROM versions WHERE version >= 2",
    );
    let builds = shared.node(Limits::default());
    tell(&builds, 1, builds.now().unwrap(), json!([plan()]));
    assert_eq!(shared.sql("SELECT max(version) FROM versions"), version);
    assert_eq!(shared.sql("SELECT identity FROM store"), identity);
}

fn gone_and_back(shared: &Shared<'_>) {
    let builds = shared.node(Limits::default());
    let now = builds.now().unwrap();
    tell(&builds, 1, now, json!([plan()]));
    let mut seen = Seen::default();
    look(&builds, &mut seen);
    shared.server.stop();
    let away = |result: Result<()>| assert!(matches!(result, Err(StorageError::Unavailable { .. })), "{result:?}");
    away(builds.now().map(drop));
    away(builds.get(&id(1).parse().unwrap(), now).map(drop));
    away(builds.news(&seen).map(drop));
    let batch = Batch::events(json!({ "build": id(1), "seq": 1, "events": [executing(0)] }).to_string().as_bytes());
    away(builds.take(batch.as_ref().unwrap(), "ci", now).map(drop));
    shared.server.resume();
    let began = Instant::now();
    while builds.now().is_err() {
        assert!(began.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(50));
    }
    let change = builds.take(&batch.unwrap(), "ci", builds.now().unwrap()).unwrap();
    assert_eq!((change.build.next, ids(&change)), (2, vec![0]));
    let told = look(&builds, &mut seen);
    assert_eq!((told.len(), told[0].replaced, ids(&told[0])), (1, false, vec![0]));
}
