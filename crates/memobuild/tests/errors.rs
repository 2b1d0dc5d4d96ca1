//! What the user reads when something is wrong, and the exit code.

mod common;

use common::Place;

const DOCKERFILE: &str = "FROM scratch AS base\nCOPY a.txt /a\nFROM base\nLABEL x=y\n";

fn place() -> Place {
    Place::with(&[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")])
}

#[test]
fn usage() {
    let place = place();
    let all: String = [
        &["build"] as &[&str],
        &["build", "--ulimit", "files=1", "."],
        &["build", "--shm-size", "1x", "."],
        &["build", "--add-host", "x:host-gateway", "."],
        &["build", "--platform", "bogus", "."],
        &["build", "--secret", "id=a,src=nowhere", "."],
        &["build", "--output", "type=lcal,dest=x", "."],
        &["build", "--output", "type=oci,dest", "."],
        &["build", "--build-context", "x=nowhere", "."],
        &["build", "-t", "Upper", "."],
        &["build", "-f", "-", "-"],
        &["build", "--output", "-", "--output", "type=oci", "."],
        &["build", "--push", "."],
        &["build", "--load", "--platform", "linux/amd64,linux/arm64", "."],
        &["load"],
        &["load", "--to", "podman", "--namespace", "k8s.io", "app"],
        &["load", "--namespace", "a/b", "app"],
        &["prune", "--all", "--max-size", "1g"],
        &["bild"],
    ]
    .iter()
    .map(|args| format!("$ memobuild {}\n{}\n", args.join(" "), place.shown(args)))
    .collect();
    insta::assert_snapshot!(all);
}

#[test]
fn a_wrong_dockerfile_shows_the_place() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPPY a /a\n"), ("a", "")]);
    insta::assert_snapshot!(place.shown(&["build", "--progress", "plain", "."]));
}

#[test]
fn an_unknown_target_is_named() {
    insta::assert_snapshot!(place().shown(&["build", "--progress", "plain", "--target", "bas", "."]));
}

#[test]
fn a_missing_dockerfile_and_a_missing_context() {
    let place = Place::new();
    place.write("empty/x", "");
    insta::assert_snapshot!("missing_dockerfile", place.shown(&["build", "--progress", "plain", "empty"]));
    insta::assert_snapshot!("missing_context", place.shown(&["build", "--progress", "plain", "nowhere"]));
    insta::assert_snapshot!("missing_for_check", place.shown(&["check", "empty"]));
}

#[test]
fn a_missing_source_fails_its_step() {
    let place = Place::with(&[("Dockerfile", "FROM scratch\nCOPY b.txt /b\n"), ("a.txt", "a\n")]);
    let shown = place.shown(&["build", "--progress", "plain", "."]);
    assert!(shown.starts_with("exit code: 1\n"), "{shown}");
    // What stands before it depends on which of two steps begins first.
    insta::assert_snapshot!(shown.split_once("\nerror: ").unwrap().1);
}

#[test]
fn an_unknown_image() {
    let place = place();
    insta::assert_snapshot!("unknown_image_empty_store", place.shown(&["inspect", "app"]));
    place.stdout(&["build", "-q", "-t", "app", "."]);
    insta::assert_snapshot!("unknown_image", place.shown(&["export", "apq", "-o", "out"]));
}

#[test]
fn a_container_runtime_that_can_not_be_spoken_to() {
    let place = place();
    place.stdout(&["build", "-q", "-t", "app", "."]);
    let shown = |args: &[&str], variable: &str, value: &str| {
        let out = place.command(env!("CARGO_BIN_EXE_memobuild")).args(args).env(variable, value).output().unwrap();
        assert!(out.stdout.is_empty());
        let code = out.status.code().unwrap();
        format!("$ {variable}={value} memobuild {}\nexit code: {code}\n{}\n", args.join(" "), common::text(&out.stderr))
    };
    let nobody = "unix:///nowhere/docker.sock";
    let all = [
        shown(&["load", "app"], "DOCKER_HOST", nobody),
        shown(&["build", "--load", "--progress", "plain", "."], "DOCKER_HOST", nobody),
        shown(&["build", "--output", "type=docker", "--progress", "plain", "."], "DOCKER_HOST", "ssh://me@there"),
        shown(&["load", "app", "--to", "docker"], "DOCKER_CONTEXT", "work"),
        shown(&["load", "app", "--to", "podman"], "CONTAINER_HOST", "tcp://127.0.0.1:x"),
        shown(&["load", "app", "--to", "containerd"], "CONTAINERD_ADDRESS", "/nowhere/containerd.sock"),
    ];
    // Where a context lies is this test's own.
    insta::assert_snapshot!(all.concat().replace(place.path("..").canonicalize().unwrap().to_str().unwrap(), "DIR"));
}

#[test]
fn prune_does_not_remove_without_asking() {
    let place = place();
    place.stdout(&["build", "-q", "."]);
    insta::assert_snapshot!(place.shown(&["prune", "--all"]));
}

#[test]
fn a_cache_that_can_not_be_made() {
    let place = place();
    place.write("file", "");
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    command.args(["build", "."]).env("MEMOBUILD_CACHE_DIR", place.path("file/cache"));
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{}", common::text(&out.stderr));
    assert!(common::text(&out.stderr).starts_with("error: "), "{}", common::text(&out.stderr));
}
