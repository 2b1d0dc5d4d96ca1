//! Which stages are planned, from what, for which platform.
#![allow(clippy::unwrap_used, reason = "a failed step should end the test")]

mod support;

use std::sync::Mutex;

use memobuild_plan::model::{ContextSource, CopySource, Op, Options};
use memobuild_plan::{Hooks, PlanErrorKind};
use support::*;

#[test]
fn unused_stages_are_not_even_asked_for() {
    let images = Images::default();
    let text = "FROM nowhere AS a\nRUN x\nFROM busybox AS b\nRUN y\nFROM b\nCOPY --from=b /y /z\n";
    let planned = plan_with(text, &options(), &images, Hooks::default()).unwrap();
    assert_eq!(*images.asked.lock().unwrap(), ["busybox linux/amd64"]);
    assert_eq!(planned.plan.images.len(), 1);
    assert!(labels(&planned).iter().all(|label| !label.ends_with("RUN x")));
}

#[test]
fn equal_steps_are_one() {
    let text =
        "FROM busybox AS a\nRUN one\nRUN two\nFROM busybox AS b\nRUN one\nRUN three\nFROM a\nCOPY --from=b / /b\n";
    let planned = planned(text);
    let ones: Vec<&str> = labels(&planned).into_iter().filter(|label| label.ends_with("RUN one")).collect();
    assert_eq!(ones, ["[a 2/3] RUN one"]);
}

#[test]
fn inputs_stand_in_front_and_labels_count() {
    let planned = planned("FROM busybox\nWORKDIR /w\nCOPY a b\nENV X=1\nrun echo $X\n");
    for step in &planned.plan.steps {
        assert!(step.op.inputs().iter().all(|input| *input < step.id));
    }
    let digest = "0".repeat(64);
    assert_eq!(
        labels(&planned),
        [
            format!("[1/4] FROM docker.io/library/busybox:latest@sha256:{digest}").as_str(),
            "[2/4] WORKDIR /w",
            "[internal] load build context",
            "[3/4] COPY a b",
            "[4/4] RUN echo 1",
        ]
    );
}

#[test]
fn targets_by_name_without_regard_to_case() {
    let text = "FROM busybox AS one\nRUN 1\nFROM busybox AS two\nRUN 2\n";
    for wanted in ["one", "ONE"] {
        let planned = try_plan(text, &Options { target: Some(wanted.into()), ..options() }).unwrap();
        assert_eq!(planned.plan.targets[0].stage, "one");
    }
    // A number names no target, as BuildKit has it: a stage that is put in front must not change what is built.
    let error = try_plan(text, &Options { target: Some("0".into()), ..options() }).unwrap_err();
    assert_eq!(error.kind, PlanErrorKind::Request);
    let error = try_plan(text, &Options { target: Some("tow".into()), ..options() }).unwrap_err();
    assert_eq!(error.kind, PlanErrorKind::Request);
    let text = render(&error);
    assert!(text.contains("target stage \"tow\" could not be found (did you mean two?)"), "{text}");
    assert!(text.contains("one, two"), "{text}");
}

#[test]
fn stages_that_can_not_be_read() {
    assert!(error("FROM busybox AS a\nCOPY --from=a /x /y\n").contains("circular dependency detected on stage: a"));
    let circle = "FROM busybox AS a\nCOPY --from=b /x /y\nFROM busybox AS b\nRUN --mount=from=a,target=/m x\n";
    assert!(error(circle).contains("circular dependency"));
    let later = "FROM busybox AS a\nRUN --mount=from=b,target=/m x\nFROM a AS b\nRUN y\nFROM a\n";
    assert!(error(later).contains("cannot mount from stage \"b\" to \"/m\""), "{}", error(later));
    assert!(error("FROM busybox\nCOPY --from=1 /x /y\n").contains("invalid stage index 1"));
    assert!(error("FROM busybox\nCOPY --from=$X /x /y\n").contains("variable expansion is not supported for --from"));
    assert!(error("ARG X\nFROM $X\n").contains("should not be blank"));
}

#[test]
fn images_that_are_not_found_suggest_stages() {
    let error = try_plan("FROM busybox AS bild\nFROM build\n", &options()).unwrap_err();
    assert_eq!(error.kind, PlanErrorKind::BaseImage);
    let text = render(&error);
    assert!(text.contains("build: not found (did you mean bild?)") && text.contains("Dockerfile:2"), "{text}");
}

#[test]
fn named_contexts_stand_in_for_images_and_stages() {
    let contexts = [
        ("busybox", ContextSource::OciLayout("/layout".into())),
        ("src", ContextSource::Local("../src".into())),
        ("built", ContextSource::Local("out".into())),
        ("file", ContextSource::Http("https://h/f".into())),
    ];
    let contexts = contexts.map(|(name, source)| (name.to_owned(), source)).into();
    let options = Options { contexts, ..options() };
    let text = "FROM nowhere AS built\nRUN never\nFROM busybox:latest\nCOPY --from=src a/*.c /a/\n\
                COPY --from=built x /x\nADD --link . /all\nCOPY --from=file context /f\n";
    let planned = try_plan(text, &options).unwrap();
    let locals: Vec<(Option<&str>, Vec<&str>)> = planned
        .plan
        .locals
        .iter()
        .map(|local| (local.name.as_deref(), local.paths.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(locals.len(), 3);
    assert!(locals.contains(&(Some("src"), vec!["/a/*.c"])));
    assert!(locals.contains(&(Some("built"), vec!["/x"])));
    assert!(locals.contains(&(None, vec!["/"])));
    assert!(planned.plan.steps.iter().any(|step| matches!(&step.op, Op::Http(http) if http.filename == "context")));
}

#[test]
fn triggers_of_images_and_stages_run_first_and_may_bring_stages() {
    let images = Images {
        more: vec![("trig", r#"{"os":"linux","config":{"OnBuild":["COPY --from=tool /t /t","RUN build $A"]}}"#)],
        asked: Mutex::default(),
    };
    let text = "FROM busybox AS tool\nRUN make\nFROM trig AS base\nONBUILD ENV A=1\nRUN own\nFROM base\nRUN last\n";
    let planned = plan_with(text, &options(), &images, Hooks::default()).unwrap();
    assert_eq!(
        history(&planned),
        [
            "COPY /t /t # buildkit",
            "RUN /bin/sh -c build $A # buildkit",
            "RUN /bin/sh -c own # buildkit",
            "ENV A=1",
            "RUN /bin/sh -c last # buildkit"
        ]
    );
    assert!(step(&planned, "ONBUILD RUN build $A").label.starts_with("[base 3/4]"));
    assert!(planned.plan.targets[0].config.config.on_build.is_empty());
    let recorded = support::planned("FROM busybox\nONBUILD RUN a\nONBUILD COPY . /b\n");
    assert_eq!(recorded.plan.targets[0].config.config.on_build, ["RUN a", "COPY . /b"]);
}

#[test]
fn broken_triggers_point_at_the_from() {
    let images =
        Images { more: vec![("trig", r#"{"os":"linux","config":{"OnBuild":["RNU x"]}}"#)], ..Images::default() };
    let error = plan_with("ARG X\nFROM trig\n", &options(), &images, Hooks::default()).unwrap_err();
    let text = render(&error);
    assert!(text.contains("RNU") && text.contains("Dockerfile:2"), "{text}");
}

#[test]
fn platforms_share_what_is_equal() {
    let text = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN fetch\nARG TARGETARCH\nRUN compile $TARGETARCH\n\
                FROM busybox\nCOPY --from=build /o /o\n";
    let platforms = ["linux/amd64", "linux/arm64"].map(|p| p.parse().unwrap()).to_vec();
    let planned = try_plan(text, &Options { platforms, ..options() }).unwrap();
    let count = |end: &str| labels(&planned).into_iter().filter(|label| label.contains(end)).count();
    assert_eq!((count("RUN fetch"), count("RUN compile"), count("COPY")), (1, 2, 2));
    assert_eq!(planned.plan.targets.len(), 2);
    assert_eq!(planned.plan.images.len(), 2);
    let arm = &planned.plan.targets[1];
    assert_eq!(
        (arm.platform.to_string().as_str(), arm.config.platform.architecture.as_str()),
        ("linux/arm64", "arm64")
    );
    assert!(labels(&planned).contains(&"[linux/amd64->arm64 build 3/3] RUN compile arm64"), "{:?}", labels(&planned));
}

#[test]
fn a_target_for_another_stage_leaves_its_platform_alone() {
    let planned = planned("FROM --platform=linux/arm64 scratch\nCOPY a /a\n");
    assert_eq!(planned.plan.targets[0].config.platform, amd64());
    assert!(error("FROM --platform=$TARGTPLATFORM busybox\n").contains("did you mean TARGETPLATFORM?"));
    assert!(error("FROM --platform=linux//x busybox\n").contains("failed to parse platform"));
}

#[test]
fn all_stages_are_checked_when_asked_for() {
    let images = Images::default();
    let hooks = Hooks { all_stages: true, ..Hooks::default() };
    let planned =
        plan_with("FROM busybox AS a\nRUN x\nENV A=$B\nFROM scratch\nCOPY c /c\n", &options(), &images, hooks).unwrap();
    assert!(findings(&planned).iter().any(|finding| finding.contains("UndefinedVar")));
    assert!(planned.plan.steps.iter().all(|step| !step.label.ends_with("RUN x")));
    let copy = step(&planned, "COPY c /c");
    assert!(matches!(&copy.op, Op::Copy(copy) if matches!(copy.sources[0], CopySource::Path { .. })));
}
