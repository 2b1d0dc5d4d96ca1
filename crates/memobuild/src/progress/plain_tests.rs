//! Whole builds as the plain display writes them.

use std::time::UNIX_EPOCH;

use memobuild_observe::{StepInfo, StepOutcome, Stream};

use super::*;

/// Events with the milliseconds at which they happen; a tick wherever 100 ms have passed.
fn shown(events: Vec<(u64, TraceEvent)>) -> String {
    let mut display = Plain::new(Vec::new());
    let at = |ms: u64| Moment { elapsed: Duration::from_millis(ms), wall: UNIX_EPOCH };
    let mut ticked = 0;
    for (ms, event) in events {
        while ticked + 100 <= ms {
            ticked += 100;
            display.tick(at(ticked)).unwrap();
        }
        display.event(at(ms), event).unwrap();
    }
    display.finish(at(ticked)).unwrap();
    String::from_utf8(display.out.into_inner().unwrap()).unwrap()
}

fn started(labels: &[&str]) -> TraceEvent {
    let step = |(id, label): (usize, &&str)| StepInfo {
        id,
        label: (*label).into(),
        stage: "0".into(),
        inputs: Vec::new(),
        line: None,
    };
    TraceEvent::BuildStarted { steps: labels.iter().enumerate().map(step).collect() }
}

fn chosen() -> TraceEvent {
    TraceEvent::SandboxChosen { mode: "traced".into(), why: "user namespace".into() }
}

fn executing(step: usize) -> TraceEvent {
    TraceEvent::NodeExecuting { step, reason: "/src/a.c changed (read by the step)".into(), again: true }
}

fn output(step: usize, text: &str) -> TraceEvent {
    TraceEvent::NodeOutput { step, stream: Stream::Stdout, data: text.as_bytes().to_vec() }
}

fn done(step: usize, outcome: StepOutcome, ms: u64) -> TraceEvent {
    TraceEvent::NodeDone { step, outcome, duration: Duration::from_millis(ms) }
}

#[test]
fn one_step_after_the_other() {
    let failed = StepOutcome::Failed {
        message: "process \"/bin/sh -c false\" did not complete successfully: exit code: 1".into(),
    };
    insta::assert_snapshot!(shown(vec![
        (0, started(&["[1/4] FROM busybox", "[2/4] COPY a /a", "[3/4] RUN make", "[4/4] RUN false"])),
        (0, chosen()),
        (1, TraceEvent::NodeCached { step: 0 }),
        (1, done(0, StepOutcome::Cached, 0)),
        (2, executing(1)),
        (5, done(1, StepOutcome::Executed, 3)),
        (6, executing(2)),
        (129, output(2, "cc -c a.c\ncc -c")),
        (300, output(2, " b.c\nlast without a newline")),
        (1206, done(2, StepOutcome::Executed, 1200)),
        (1207, TraceEvent::Warning { message: "the base image is for another platform".into() }),
        (1210, executing(3)),
        (1220, done(3, failed, 10)),
    ]), @r#"
    #0 sandbox: traced: user namespace

    #1 [1/4] FROM busybox
    #1 CACHED

    #2 [2/4] COPY a /a
    #2 runs: /src/a.c changed (read by the step)
    #2 DONE 0.0s

    #3 [3/4] RUN make
    #3 runs: /src/a.c changed (read by the step)
    #3 0.123 cc -c a.c
    #3 0.294 cc -c b.c
    #3 1.200 last without a newline
    #3 DONE 1.2s

    warning: the base image is for another platform

    #4 [4/4] RUN false
    #4 runs: /src/a.c changed (read by the step)
    #4 ERROR: process "/bin/sh -c false" did not complete successfully: exit code: 1
    "#);
}

#[test]
fn steps_side_by_side_take_turns() {
    insta::assert_snapshot!(shown(vec![
        (0, started(&["[a 1/1] RUN one", "[b 1/1] RUN two"])),
        (0, chosen()),
        (0, executing(0)),
        (1, executing(1)),
        (10, output(0, "one a\n")),
        (20, output(1, "two a\n")),
        (30, output(0, "one b\n")),
        (900, output(1, "two b\n")),
        (1000, output(0, "one c\n")),
        (1100, done(1, StepOutcome::Executed, 1099)),
        (1200, done(0, StepOutcome::Executed, 1200)),
    ]), @r"
    #0 sandbox: traced: user namespace

    #1 [a 1/1] RUN one
    #1 runs: /src/a.c changed (read by the step)
    #1 0.010 one a
    #1 0.030 one b
    #1 ...

    #2 [b 1/1] RUN two
    #2 runs: /src/a.c changed (read by the step)
    #2 0.019 two a
    #2 0.899 two b
    #2 DONE 1.1s

    #1 [a 1/1] RUN one
    #1 1.000 one c
    #1 DONE 1.2s
    ");
}

#[test]
fn transfers_and_exports() {
    let pull = |done, finished| TraceEvent::RemoteSync {
        what: "pull debian:12 sha256:0123456789ab".into(),
        done,
        total: Some(50_000_000),
        finished,
    };
    let export = |finished| TraceEvent::Exporting { what: "exporting to oci image format".into(), finished };
    insta::assert_snapshot!(shown(vec![
        (0, pull(0, false)),
        (1000, pull(10_000_000, false)),
        (6000, pull(30_000_000, false)),
        (6500, pull(40_000_000, false)),
        (8000, pull(50_000_000, true)),
        (8100, export(false)),
        (8200, TraceEvent::LayerBuilt { digest: "sha256:abcd".into(), size: 1_250_000 }),
        (8300, export(true)),
    ]), @r"
    #1 pull debian:12 sha256:0123456789ab
    #1 30.0MB / 50.0MB
    #1 50.0MB done
    #1 DONE 8.0s

    #2 exporting to oci image format
    #2 layer sha256:abcd 1.25MB
    #2 DONE 0.2s
    ");
}
