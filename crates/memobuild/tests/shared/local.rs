//! `type=local`.

use std::fs;

use crate::{
    common::text,
    contents, dir, files, image, on, project,
    support::{Project, traced},
    warnings,
};

const TO: &str = "type=local,dest=../shared,mode=max";
const FROM: &str = "type=local,src=../shared";

#[test]
fn a_second_machine_runs_nothing_and_brings_no_content() {
    if !traced() {
        return;
    }
    let project = project();
    let first = on(&project, "one", &["--cache-to", TO]);
    assert_eq!(first.runs().len(), 4);
    assert!(warnings(&first).is_empty(), "{:?}", warnings(&first));
    let second = on(&project, "two", &["--cache-from", FROM]);
    assert!(second.ran.is_empty() && !second.sandbox, "{second:?}");
    assert!(warnings(&second).is_empty(), "{:?}", warnings(&second));
    assert!(contents(&project, "two").is_empty(), "{:?}", contents(&project, "two"));
}

#[test]
fn what_another_machine_made_is_the_same_image() {
    if !traced() {
        return;
    }
    let project = project();
    let alone = image(&project, "alone", &[]);
    image(&project, "one", &["--cache-to", TO]);
    let built = image(&project, "two", &["--cache-from", FROM]);
    assert_eq!(built, alone);
    // Contents came with it, and nothing but those of the image's own steps.
    assert!(!contents(&project, "two").is_empty());
    assert!(contents(&project, "two").len() < contents(&project, "one").len());
}

#[test]
fn facts_hold_on_another_machine_too() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["--cache-to", TO]);
    project.write("README.md", "2");
    let second = on(&project, "two", &["--cache-from", FROM]);
    assert!(second.runs().is_empty(), "{second:?}");
    project.write("src/a", "2");
    let third = on(&project, "three", &["--cache-from", FROM]);
    let cat =
        "cat src/a > out; head -c 300000 /dev/zero | tr '\\0' x > big; head -c 2000000 /dev/zero | tr '\\0' y > huge";
    // Later steps compare times, so that more may run; but not what looks at none of it.
    assert_eq!(third.runs().first(), Some(&cat), "{:?}", third.reasons);
    assert!(!third.runs().contains(&"wc -c < /res/huge > /size"), "{:?}", third.reasons);
    let reason = &third.reasons[&format!("RUN {cat}")];
    assert!(reason.contains("src/a changed"), "{reason}");
    let shared = image(&project, "three", &["--cache-from", FROM]);
    assert_eq!(shared, image(&project, "alone", &[]));
}

#[test]
fn a_dry_run_knows_what_others_have() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["--cache-to", TO]);
    let ahead = on(&project, "two", &["--cache-from", FROM, "--dry-run"]);
    assert!(!text(&ahead.output.stdout).contains("would run"), "{}", text(&ahead.output.stdout));
    assert!(contents(&project, "two").is_empty());
}

#[test]
fn only_what_is_new_is_written() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["--cache-to", TO]);
    let before = files(&project.place.path("../shared/blobs"));
    on(&project, "one", &["--cache-to", TO]);
    // A new directory, since that holds the time; the same tables, packs and files.
    let after = files(&project.place.path("../shared/blobs"));
    let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
    assert!(new.len() <= 2, "{new:?}");
    project.write("src/a", "2");
    on(&project, "one", &["--cache-to", TO]);
    let third = files(&project.place.path("../shared/blobs"));
    let bytes: u64 = third.iter().filter(|path| !after.contains(path)).map(|p| fs::metadata(p).unwrap().len()).sum();
    // The two megabytes that did not change are not among them.
    assert!(bytes < 100_000, "{bytes}");
}

#[test]
fn earlier_builds_stay() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["--cache-to", TO]);
    project.write("src/a", "2");
    on(&project, "two", &["--cache-to", TO]);
    project.write("src/a", "1");
    let third = on(&project, "three", &["--cache-from", FROM]);
    assert!(third.ran.is_empty(), "{third:?}");
    project.write("src/a", "2");
    let fourth = on(&project, "four", &["--cache-from", FROM]);
    assert!(fourth.ran.is_empty(), "{fourth:?}");
}

#[test]
fn without_mode_max_other_stages_are_made_again_when_they_are_needed() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["--cache-to", "type=local,dest=../shared"]);
    let same = on(&project, "two", &["--cache-from", FROM]);
    assert!(same.ran.is_empty(), "{same:?}");
    // Another file of the other stage is wanted now, which nobody kept.
    project.replace("/w/huge /res/", "/w/huge /w/big /res/");
    let alone = image(&project, "alone", &[]);
    assert_eq!(image(&project, "three", &["--cache-from", FROM]), alone);
}

#[test]
fn an_image_whose_layers_are_elsewhere_is_exported_from_there() {
    if !traced() {
        return;
    }
    let project = project();
    on(&project, "one", &["-t", "app", "--cache-to", TO]);
    on(&project, "two", &["-t", "app", "--cache-from", FROM]);
    assert!(contents(&project, "two").is_empty());
    let export = |machine: &str| {
        let dest = format!("type=tar,dest=../{machine}.tar");
        let mut command = project.command(&["export", "app", "-o", &dest]);
        let out = command.env("MEMOBUILD_CACHE_DIR", dir(&project, machine)).output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        fs::read(project.place.path(&format!("../{machine}.tar"))).unwrap()
    };
    assert!(export("one") == export("two"));
}

#[test]
fn cache_mounts_are_shared_where_that_is_asked_for() {
    if !traced() {
        return;
    }
    let steps = "FROM base\nRUN --mount=type=cache,target=/c cat /c/* > /had 2>/dev/null; echo one > /c/f; mkdir -p /c/d; ln -sf f /c/l\n";
    let project = Project::new(steps, &[("a", "1")]);
    on(&project, "one", &["--cache-to", &format!("{TO},mounts=true")]);
    project.replace("echo one", "echo two");
    let dest = project.place.path("../tree");
    let out = format!("type=local,dest={}", dest.display());
    on(&project, "two", &["--cache-from", FROM, "-o", &out]);
    assert_eq!(fs::read_to_string(dest.join("had")).unwrap(), "one\none\n");
    // Without it they start empty.
    let steps = fs::read_to_string(project.place.path("Dockerfile")).unwrap();
    fs::remove_dir_all(project.place.path("../shared")).unwrap();
    on(&project, "three", &["--cache-to", TO]);
    project.place.write("Dockerfile", &steps.replace("echo two", "echo three"));
    on(&project, "four", &["--cache-from", FROM, "-o", &out]);
    assert_eq!(fs::read_to_string(dest.join("had")).unwrap(), "");
}

#[test]
fn what_was_done_before_a_step_failed_is_shared() {
    if !traced() {
        return;
    }
    let project = Project::new("COPY a /\nRUN cat /a > /b\nRUN test -e /c\n", &[("a", "1")]);
    let failed = crate::try_on(&project, "one", &["--cache-to", TO]);
    assert_eq!(failed.output.status.code(), Some(1));
    project.replace("test -e /c", "test ! -e /c");
    let second = on(&project, "two", &["--cache-from", FROM]);
    assert_eq!(second.runs(), ["test ! -e /c"]);
}
