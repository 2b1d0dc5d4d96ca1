//! How a plan is carried out, seen from a program that has memobuild as a library: what is refused before anything runs,
//! in which order steps run and how many at once, what an edit reaches, and what an end by force leaves.
//!
//! Steps are run by the program that builds, started again: hence the `main` of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of several tests")]

#[path = "memos/base.rs"]
mod base;
mod common;
mod library;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use library::{Built, Project, Recorder};
use libtest_mimic::{Arguments, Trial};
use memobuild::{
    Cancel, StepOutcome, TraceEvent,
    error::{FailureKind, MemoBuildError},
};
use memobuild_plan::model::ContextSource;

type Test = fn();

/// Of steps that need no sandbox.
const PLAIN: &[(&str, Test)] = &[
    ("wrong_graphs_are_refused_before_anything_runs", wrong_graphs_are_refused_before_anything_runs),
    ("steps_come_after_their_inputs", steps_come_after_their_inputs),
    ("what_no_target_needs_is_left_out", what_no_target_needs_is_left_out),
    ("an_edit_reaches_what_uses_it", an_edit_reaches_what_uses_it),
    ("a_look_ahead_says_what_a_build_then_does", a_look_ahead_says_what_a_build_then_does),
    ("a_target_alone_is_built_and_known_to_the_whole", a_target_alone_is_built_and_known_to_the_whole),
    ("several_platforms_are_one_plan", several_platforms_are_one_plan),
    ("the_report_tells_what_the_events_told", the_report_tells_what_the_events_told),
];

/// Of steps that run something.
const RUNNING: &[(&str, Test)] = &[
    ("independent_steps_run_at_once", independent_steps_run_at_once),
    ("no_more_than_allowed_run_at_once", no_more_than_allowed_run_at_once),
    ("equal_results_end_what_an_edit_began", equal_results_end_what_an_edit_began),
    ("two_builds_of_one_store_run_a_step_once", two_builds_of_one_store_run_a_step_once),
    ("a_failure_stops_the_others", a_failure_stops_the_others),
    ("a_failed_step_is_begun_again_and_nothing_else", a_failed_step_is_begun_again_and_nothing_else),
    ("cancelling_ends_it_and_leaves_no_result", cancelling_ends_it_and_leaves_no_result),
    ("stages_hand_files_on", stages_hand_files_on),
    ("only_the_stages_named_are_built_anew", only_the_stages_named_are_built_anew),
];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(memobuild::SANDBOX_INIT_ARG) {
        memobuild::sandbox_server();
    }
    let mut arguments = Arguments::from_args();
    // Some of them look at what runs at the same time.
    arguments.test_threads.get_or_insert(2);
    let lacking = lacking();
    if let Some(lacking) = lacking {
        eprintln!("skipped: tests of steps that run something: {lacking}");
    }
    let trial = |(name, test): &(&str, Test)| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    };
    let running = RUNNING.iter().map(trial).map(|trial| trial.with_ignored_flag(lacking.is_some()));
    libtest_mimic::run(&arguments, PLAIN.iter().map(trial).chain(running).collect()).exit();
}

/// What this machine lacks to run a step of a small image.
fn lacking() -> Option<&'static str> {
    if !std::path::Path::new(base::BUSYBOX).exists() {
        return Some("there is no static busybox");
    }
    let doctor = common::Place::new().memobuild(&["doctor"]);
    (!doctor.status.success()).then_some("this machine can't run any")
}

/// A project whose Dockerfile may name the image `base`.
fn with_base(dockerfile: &str, files: &[(&str, &str)]) -> Project {
    let mut project = Project::new(dockerfile, files);
    let place = ContextSource::OciLayout(base::kept("").display().to_string());
    project.request.options.contexts.insert("base".into(), place);
    project
}

fn wrong_graphs_are_refused_before_anything_runs() {
    // A step that could run stands before what is wrong.
    let good = "FROM scratch AS good\nCOPY a /a\n";
    for (dockerfile, words) in [
        ("FROM good AS a\nCOPY --from=a a /a\n", "circular dependency detected on stage: a"),
        ("FROM good AS a\nCOPY --from=b a /\nFROM good AS b\nCOPY --from=a a /\nFROM a\n", "circular dependency"),
        ("FROM good\nCOPY --from=7 a /a\n", "invalid stage index 7"),
        ("FROM good\nARG X=good\nCOPY --from=$X a /a\n", "variable expansion is not supported"),
        (
            "FROM good AS a\nRUN --mount=from=b,target=/m x\nFROM a AS b\nRUN y\nFROM a\n",
            "cannot mount from stage \"b\"",
        ),
        ("FROM good\nCOPPY a /a\n", "unknown instruction"),
        ("FROM good\nCOPY a\n", "COPY requires at least two arguments"),
    ] {
        let built = Project::new(&format!("{good}{dockerfile}"), &[("a", "a")]).try_build();
        let error = built.result.unwrap_err();
        assert_eq!(error.kind, FailureKind::Dockerfile, "{error}");
        assert!(error.message.contains(words), "{dockerfile}: {error}");
        let begun = |event: &TraceEvent| {
            matches!(
                event,
                TraceEvent::BuildStarted { .. } | TraceEvent::NodeExecuting { .. } | TraceEvent::NodeDone { .. }
            )
        };
        assert!(!built.events.iter().any(begun), "{dockerfile}: {:?}", built.events);
    }
}

const DIAMOND: &str = "\
FROM scratch AS left
COPY a /a
FROM scratch AS right
COPY b /b
FROM scratch AS join
COPY --from=left /a /left/a
COPY --from=right /b /right/b
FROM join
WORKDIR /end
COPY --from=join /left /end/left
";

/// Where an event of a step stands among all.
fn position(built: &Built, wanted: impl Fn(&TraceEvent) -> bool) -> Option<usize> {
    built.events.iter().position(wanted)
}

fn steps_come_after_their_inputs() {
    let project = Project::new(DIAMOND, &[("a", "a"), ("b", "b")]);
    for round in ["executed", "cached"] {
        let built = project.build();
        let Some(TraceEvent::BuildStarted { steps }) =
            built.events.iter().find(|event| matches!(event, TraceEvent::BuildStarted { .. }))
        else {
            panic!("no plan")
        };
        assert!(steps.len() >= 8, "{steps:?}");
        for (number, step) in steps.iter().enumerate() {
            assert_eq!(step.id, number);
            let begun = position(&built, |event| match event {
                TraceEvent::NodeExecuting { step: id, .. } | TraceEvent::NodeCached { step: id } => *id == number,
                _ => false,
            });
            let done = |id: usize| {
                let at = position(&built, |e| matches!(e, TraceEvent::NodeDone { step, .. } if *step == id));
                at.unwrap_or_else(|| panic!("{round}: step {id} was never done"))
            };
            for input in &step.inputs {
                assert!(*input < number, "{round}: {step:?}");
                // Sources are there without having been begun.
                assert!(
                    begun.is_none_or(|begun| done(*input) < begun),
                    "{round}: {step:?} began before {input} was done"
                );
            }
            // Each is done once.
            let times =
                built.events.iter().filter(|e| matches!(e, TraceEvent::NodeDone { step, .. } if *step == number));
            assert_eq!(times.count(), 1, "{round}: {step:?}");
        }
    }
}

fn what_no_target_needs_is_left_out() {
    let unused = "FROM scratch AS unused\nCOPY missing /missing\n";
    let project = Project::new(&format!("{unused}{DIAMOND}"), &[("a", "a"), ("b", "b")]);
    let built = project.build();
    assert!(built.labels().iter().all(|label| !label.contains("missing")), "{:?}", built.labels());
}

fn an_edit_reaches_what_uses_it() {
    let project = Project::new(DIAMOND, &[("a", "a"), ("b", "b"), ("c", "c")]);
    let all = [
        "COPY a /a",
        "COPY b /b",
        "COPY --from=left /a /left/a",
        "COPY --from=right /b /right/b",
        "WORKDIR /end",
        "COPY --from=join /left /end/left",
    ];
    let first = project.build();
    let mut ran = first.executed();
    ran.sort();
    let mut expected = all.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(ran, expected);
    assert_eq!(first.cached(), Vec::<String>::new());
    for (edited, reached) in [
        ("a", &["COPY a /a", "COPY --from=left /a /left/a", "COPY --from=join /left /end/left"] as &[&str]),
        // What only puts files beside those that changed is not reached.
        ("b", &["COPY b /b", "COPY --from=right /b /right/b"]),
        ("c", &[]),
    ] {
        project.write(edited, "edited");
        let built = project.build();
        let mut ran = built.executed();
        ran.sort();
        let mut reached: Vec<String> = reached.iter().map(|label| (*label).to_owned()).collect();
        reached.sort();
        assert_eq!(ran, reached, "after an edit of {edited}");
        assert_eq!(built.cached().len(), all.len() - reached.len(), "after an edit of {edited}");
    }
    let tree = project.tree();
    assert_eq!((tree["end/left/a"].as_str(), tree["right/b"].as_str()), ("100644 edited", "100644 edited"));
}

fn a_look_ahead_says_what_a_build_then_does() {
    let project = Project::new(DIAMOND, &[("a", "a"), ("b", "b")]);
    let would = |ahead: &Built| -> Vec<String> {
        let steps = &ahead.result.as_ref().unwrap().steps;
        let ran = steps.iter().filter(|step| step.executed());
        ran.map(|step| step.label.split_once("] ").unwrap().1.to_owned()).collect()
    };
    for edit in ["", "a", "b"] {
        if !edit.is_empty() {
            project.write(edit, "edited");
        }
        let ahead = project.foresee();
        // It has run nothing: another says the same.
        assert_eq!(would(&project.foresee()), would(&ahead));
        assert_eq!(would(&ahead), project.build().executed(), "after an edit of {edit:?}");
    }
    assert_eq!(would(&project.foresee()), Vec::<String>::new());
}

fn a_target_alone_is_built_and_known_to_the_whole() {
    let mut project = Project::new(DIAMOND, &[("a", "a"), ("b", "b")]);
    project.request.options.target = Some("left".into());
    assert_eq!(project.build().executed(), ["COPY a /a"]);
    project.request.options.target = None;
    let whole = project.build();
    assert_eq!(whole.cached(), ["COPY a /a"]);
    assert_eq!(whole.executed().len(), 5, "{:?}", whole.executed());
}

fn several_platforms_are_one_plan() {
    let dockerfile = "FROM --platform=$BUILDPLATFORM scratch AS build\nCOPY a /a\nFROM scratch\nARG TARGETARCH\n\
                      COPY --from=build /a /$TARGETARCH\n";
    let mut project = Project::new(dockerfile, &[("a", "a")]);
    project.request.options.platforms = ["linux/amd64", "linux/arm64"].map(|p| p.parse().unwrap()).to_vec();
    let built = project.build();
    // What is made for the builder's own platform is made once for both.
    assert_eq!(built.executed().iter().filter(|label| *label == "COPY a /a").count(), 1, "{:?}", built.executed());
    let copies = built.labels().into_iter().filter(|label| label.starts_with("COPY --from=build")).count();
    assert_eq!(copies, 2, "{:?}", built.labels());
}

fn the_report_tells_what_the_events_told() {
    let project = Project::new(DIAMOND, &[("a", "a"), ("b", "b")]);
    project.build();
    project.write("a", "edited");
    let built = project.build();
    let outcomes: BTreeMap<usize, bool> = built
        .events
        .iter()
        .filter_map(|event| match event {
            TraceEvent::NodeDone { step, outcome, .. } => Some((*step, *outcome == StepOutcome::Executed)),
            _ => None,
        })
        .collect();
    let outcome = built.result.as_ref().unwrap();
    assert_eq!(outcomes.len(), outcome.steps.len());
    for (number, step) in outcome.steps.iter().enumerate() {
        assert_eq!((step.number, step.executed()), (number + 1, outcomes[&number]), "{}", step.label);
        // Why it ran is said of what ran.
        assert_eq!(step.reason.is_some(), step.executed(), "{}: {:?}", step.label, step.reason);
    }
    assert_eq!(built.report("COPY a /a").reason.as_deref(), Some("what it copies changed"));
    let executed = outcome.steps.iter().filter(|step| step.executed()).count();
    let Some(TraceEvent::BuildFinished { ok, cached, executed: told, .. }) = built.events.last() else { panic!() };
    assert_eq!((*ok, *told, *cached), (true, executed, outcome.steps.len() - executed));
}

/// Two stages, each of which waits for a sign from the other, at most so many tenths of a second.
fn meeting(tenths: u32) -> Project {
    let side = |own: &str, other: &str| {
        format!(
            "FROM base AS {own}\nRUN --mount=type=cache,target=/m touch /m/{own}; for i in $(seq {tenths}); do \
             test -e /m/{other} && exit 0; sleep 0.1; done; exit 9\nRUN touch /{own}\n"
        )
    };
    let last = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    with_base(&[side("one", "two"), side("two", "one"), last.to_owned()].concat(), &[])
}

fn independent_steps_run_at_once() {
    let tree = meeting(300).tree();
    assert!(tree.contains_key("one") && tree.contains_key("two"), "{tree:?}");
    // One at a time they never meet.
    let mut project = meeting(10);
    project.request.parallelism = Some(1);
    let built = project.try_build();
    let error = built.result.as_ref().unwrap_err();
    assert!(error.kind == FailureKind::Step && error.message.contains("exit code: 9"), "{error}");
}

/// The most steps that were under way at the same time.
fn most_at_once(built: &Built) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for event in &built.events {
        match event {
            TraceEvent::NodeExecuting { .. } => now += 1,
            TraceEvent::NodeDone { outcome: StepOutcome::Executed, .. } => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

fn no_more_than_allowed_run_at_once() {
    let stage = |n: u32| format!("FROM base AS s{n}\nRUN echo {n} > /{n}; sleep 0.3\n");
    let copies: String = (0..6).map(|n| format!("COPY --from=s{n} /{n} /\n")).collect();
    let dockerfile = format!("{}FROM scratch\n{copies}", (0..6).map(stage).collect::<String>());
    for limit in [1, 3] {
        let mut project = with_base(&dockerfile, &[]);
        project.request.parallelism = Some(limit);
        let built = project.build();
        assert_eq!(built.executed().len(), 12, "{:?}", built.executed());
        assert_eq!(most_at_once(&built), limit);
    }
}

/// A step that runs again and yields the same is where an edit ends.
fn equal_results_end_what_an_edit_began() {
    let dockerfile =
        "FROM base\nCOPY a /a\nRUN head -n 1 /a > /first; rm /a\nRUN cat /first > /second\nRUN ls /second > /third\n";
    let project = with_base(dockerfile, &[("a", "one\ntwo\n")]);
    assert_eq!(project.build().executed().len(), 4);
    project.write("a", "one\nother\n");
    let built = project.build();
    assert_eq!(built.executed(), ["COPY a /a", "RUN head -n 1 /a > /first; rm /a"]);
    assert_eq!(built.cached(), ["RUN cat /first > /second", "RUN ls /second > /third"]);
    project.write("a", "changed\n");
    assert_eq!(project.build().executed().len(), 4, "the last one looks at a file that is another");
}

fn two_builds_of_one_store_run_a_step_once() {
    let project = with_base("FROM base\nRUN echo it-runs; sleep 1; cat /proc/sys/kernel/random/uuid > /when\n", &[]);
    let builds = || {
        let both = std::thread::scope(|scope| {
            let one = scope.spawn(|| project.build());
            let other = scope.spawn(|| project.build());
            [one.join().unwrap(), other.join().unwrap()]
        });
        let ran = both.iter().filter(|built| built.output().contains("it-runs")).count();
        let trees = both.map(|built| built.result.unwrap().steps.iter().map(|step| step.identity).collect::<Vec<_>>());
        (ran, trees)
    };
    let (ran, [one, other]) = builds();
    assert_eq!(ran, 1);
    assert!(one.len() == 2 && one == other, "{one:?} {other:?}");
    assert_eq!(builds().0, 0);
}

fn a_failure_stops_the_others() {
    let dockerfile = "FROM base AS bad\nRUN sleep 0.5; echo some words; echo the last words >&2; exit 3\n\
                      FROM base AS slow\nRUN echo it-began; sleep 100\nRUN touch /later\n\
                      FROM scratch\nCOPY --from=bad /bin/sh /\nCOPY --from=slow /later /\n";
    let project = with_base(dockerfile, &[]);
    let begin = Instant::now();
    let built = project.try_build();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let error = built.result.as_ref().unwrap_err();
    assert!(error.message.contains("exit code: 3"), "{error}");
    let failed = built.failed();
    assert!(failed.len() == 1 && failed[0].contains("exit 3"), "{failed:?}");
    assert_eq!(error.step.map(|id| built.labels()[id].clone()).as_ref(), failed.first());
    assert_eq!(built.cancelled(), ["RUN echo it-began; sleep 100"]);
    assert!(built.executed().iter().all(|label| !label.contains("later")), "{:?}", built.executed());
    // The end of what it wrote goes with the error.
    let MemoBuildError::StepFailed { log_tail, .. } = MemoBuildError::from(error.clone()) else { panic!("{error:?}") };
    assert!(
        log_tail.contains(&"some words".to_owned()) && log_tail.contains(&"the last words".to_owned()),
        "{log_tail:?}"
    );
}

fn a_failed_step_is_begun_again_and_nothing_else() {
    let project = with_base("FROM base\nCOPY a /a\nRUN cat /a > /b\nRUN test \"$(cat /b)\" = good\n", &[("a", "bad")]);
    let built = project.try_build();
    assert!(built.result.is_err());
    assert_eq!(built.executed(), ["COPY a /a", "RUN cat /a > /b"]);
    // A failure is no result.
    let again = project.try_build();
    assert!(again.result.is_err());
    assert_eq!((again.cached(), again.failed().len()), (vec!["COPY a /a".to_owned(), "RUN cat /a > /b".into()], 1));
    project.write("a", "good");
    assert_eq!(project.build().executed().len(), 3);
}

fn cancelling_ends_it_and_leaves_no_result() {
    let project = with_base("FROM base\nRUN echo it-began; sleep 100; touch /never\nRUN touch /later\n", &[]);
    let (cancel, recorder) = (Cancel::new(), Arc::new(Recorder::default()));
    let begin = Instant::now();
    let built = std::thread::scope(|scope| {
        let build = scope.spawn(|| project.run(&project.request, &cancel, &recorder, false));
        let began =
            |event: &TraceEvent| matches!(event, TraceEvent::NodeOutput { data, .. } if data.starts_with(b"it-began"));
        while !recorder.events().iter().any(began) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", recorder.events());
            std::thread::sleep(Duration::from_millis(10));
        }
        cancel.cancel();
        build.join().unwrap()
    });
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(built.result.unwrap_err().message.contains("cancelled"));
    let done = built.events.iter().rev().find_map(|event| match event {
        TraceEvent::NodeDone { step: _, outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(done, Some(StepOutcome::Cancelled));
    // Whoever asks next is told that both would run.
    let ahead = project.foresee();
    assert!(ahead.report("touch /never").executed());
}

fn stages_hand_files_on() {
    let dockerfile = "FROM base AS tools\nRUN echo 'echo made by a tool' > /tool; chmod 755 /tool\n\
                      FROM base AS build\nCOPY a /src/a\nRUN --mount=type=bind,from=tools,source=/tool,target=/t sh /t > /out\n\
                      FROM build AS more\nRUN cat /out /src/a > /all\n\
                      FROM scratch\nCOPY --from=more /all /final/\nCOPY --from=1 /src /src\n";
    let project = with_base(dockerfile, &[("a", "source\n")]);
    let tree = project.tree();
    assert_eq!(tree["final/all"], "100644 made by a tool\nsource\n");
    let expected = ["final", "final/all", "src", "src/a"].map(str::to_owned);
    assert_eq!(tree.into_keys().collect::<Vec<_>>(), expected);
    // An edit of what one stage mounts of another reaches the step that mounts it.
    project.replace("made by a tool", "made anew");
    let built = project.build();
    let ran = built.executed();
    assert!(
        ran.iter().any(|label| label.contains("--mount")) && ran.iter().any(|label| label.contains("/all")),
        "{ran:?}"
    );
    assert_eq!(built.cached(), ["COPY a /src/a", "COPY --from=1 /src /src"]);
    assert_eq!(project.tree()["final/all"], "100644 made anew\nsource\n");
}

fn only_the_stages_named_are_built_anew() {
    let dockerfile = "FROM base AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM base AS two\nRUN cat /proc/sys/kernel/random/uuid > /two\n\
                      FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let mut project = with_base(dockerfile, &[]);
    let before = project.tree();
    project.request.options.no_cache_filter = vec!["two".into()];
    let after = project.tree();
    assert_eq!(before["one"], after["one"]);
    assert_ne!(before["two"], after["two"]);
    project.request.options.no_cache_filter.clear();
    assert_eq!(project.tree(), after, "what was built anew is what is known from then on");
}
