//! `memobuild verify`: an image is what its sources make, or the first thing that differs is named.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "memos/base.rs"]
mod base;
#[path = "common/mod.rs"]
mod common;
#[path = "memos/support.rs"]
mod support;

use common::text;
use support::{Project, traced};

const STEPS: &str =
    "FROM base\nARG WORD=one\nCOPY a /w/a\nRUN cat /w/a > /w/out; echo $WORD >> /w/out; mkdir /d\nCMD [\"x\"]\n";

/// Exit code and output.
fn verify(project: &Project, more: &[&str]) -> (Option<i32>, String) {
    let base = format!("base=oci-layout://{}", project.base().display());
    let args = [&["verify", "-q", "--build-context", &base], more, &["oci-layout://../image", "."]].concat();
    let out = project.command(&args).output().unwrap();
    (out.status.code(), format!("{}{}", text(&out.stdout), text(&out.stderr)))
}

fn build(project: &Project, more: &[&str]) {
    let _ = std::fs::remove_dir_all(project.place.path("../image"));
    project.build_with(&[&["-o", "type=oci,tar=false,dest=../image"], more].concat());
}

#[test]
fn an_image_is_what_its_sources_make() {
    if !traced() {
        return;
    }
    let project = Project::new(STEPS, &[("a", "1")]);
    build(&project, &["--reproducible"]);
    let (code, shown) = verify(&project, &[]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("is what its sources make: sha256:"), "{shown}");
    // Under another time as well.
    let mut command = project.build_command(&["--reproducible", "-o", "type=oci,tar=false,dest=../image"]);
    assert!(command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap().status.success());
    assert_eq!(verify(&project, &[]).0, Some(0));
}

#[test]
fn the_first_file_that_differs_is_named() {
    if !traced() {
        return;
    }
    let project = Project::new(STEPS, &[("a", "1")]);
    build(&project, &["--reproducible"]);
    let (code, shown) = verify(&project, &["--build-arg", "WORD=two"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("layer 3 of 3 differs: RUN"), "{shown}");
    assert!(shown.contains("/w/out: content of 5 bytes, rebuilt 5 bytes"), "{shown}");
    project.replace("mkdir /d", "mkdir -m 700 /d");
    let (code, shown) = verify(&project, &[]);
    assert!(code == Some(1) && shown.contains("/d: mode 755, rebuilt 700"), "{shown}");
    project.replace("mkdir -m 700 /d", "mkdir /d /e");
    assert!(verify(&project, &[]).1.contains("/e: only the rebuilt image has it"));
    project.replace("mkdir /d /e", "mkdir /d");
    project.replace("CMD [\"x\"]", "CMD [\"y\"]");
    let (code, shown) = verify(&project, &[]);
    assert!(code == Some(1) && shown.contains("config config: "), "{shown}");
}

#[test]
fn times_can_be_left_out() {
    if !traced() {
        return;
    }
    // What the step makes is older than the image, by more than a clock's step.
    let project = Project::new(&STEPS.replace("mkdir /d", "mkdir /d; sleep 1.1"), &[("a", "1")]);
    // Without --reproducible it keeps its time in the image.
    project.shell("touch -d 2001-02-03 a");
    build(&project, &[]);
    let (code, shown) = verify(&project, &[]);
    assert!(code == Some(1) && shown.contains("layer 2 of 3 differs: COPY a /w/a"), "{shown}");
    assert!(shown.contains("\n  /w: time "), "{shown}");
    assert_eq!(verify(&project, &["--ignore-times"]).0, Some(0));
    // Times alone: what else differs is told.
    project.replace("CMD [\"x\"]", "CMD [\"y\"]");
    let (code, shown) = verify(&project, &["--ignore-times"]);
    assert!(code == Some(1) && shown.contains("config config: ") && !shown.contains("\"created\""), "{shown}");
    project.replace("mkdir /d", "mkdir -m 700 /d");
    let (code, shown) = verify(&project, &["--ignore-times"]);
    assert!(code == Some(1) && shown.contains("layer 3 of 3 differs: RUN"), "{shown}");
    assert!(shown.contains("/d: mode 755, rebuilt 700"), "{shown}");
}
