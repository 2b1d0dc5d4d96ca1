//! Files for CI systems and Kubernetes. That they are valid by these systems' schemas, and that their commands work, is
//! tested by scripts/tests/generated.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{Place, text};

const BINARY: &str = "https://files.example/memobuild";

#[test]
fn workflows_for_github() {
    let place = Place::new();
    insta::assert_snapshot!("github", place.stdout(&["generate-ci", "--output", "-"]));
    insta::assert_snapshot!(
        "github_all",
        place.stdout(&[
            "generate-ci",
            "github",
            "--output",
            "-",
            "--cache",
            "server",
            "--tag",
            "registry.example:5000/team/app",
            "--branch",
            "release",
            "--context",
            "the app",
            "--file",
            "docker/Dockerfile",
            "--platform",
            "linux/amd64,linux/arm64",
            "--build-arg",
            "MESSAGE=it's $(me)",
            "--runner",
            "self-hosted",
            "--binary",
            BINARY,
            "--sha256",
            &"ab".repeat(32),
        ])
    );
}

#[test]
fn pipelines_for_gitlab() {
    let place = Place::new();
    insta::assert_snapshot!("gitlab", place.stdout(&["generate-ci", "gitlab", "--output", "-"]));
    insta::assert_snapshot!(
        "gitlab_all",
        place.stdout(&[
            "generate-ci",
            "gitlab",
            "--output",
            "-",
            "--cache",
            "server",
            "--tag",
            "team/app",
            "--target",
            "release",
            "--cargo-git",
            "https://git.example/memobuild",
            "--rev",
            "v1",
        ])
    );
}

#[test]
fn jobs_for_kubernetes() {
    let place = Place::new();
    let job = |more: &[&str]| {
        let mut args = vec!["generate-k8s", "--image", "registry.example/memobuild:1"];
        args.extend(more);
        place.stdout(&args)
    };
    insta::assert_snapshot!(
        "k8s_job",
        job(&[
            "--git",
            "https://git.example/app.git#main",
            "--tag",
            "registry.example/app:1",
            "--registry-secret",
            "registry"
        ])
    );
    insta::assert_snapshot!(
        "k8s_job_on_a_volume",
        job(&[
            "--pvc",
            "sources:app/web",
            "--run-as",
            "user",
            "--cache",
            "registry",
            "--tag",
            "registry.example:5000/app:1",
            "--namespace",
            "builds",
            "--name",
            "web",
            "--fuse",
            "example.com/fuse",
            "--memory",
            "8Gi",
            "--build-arg",
            "A=$(HOME) \"x\"",
        ])
    );
    insta::assert_snapshot!(
        "k8s_job_as_root",
        job(&["--git", "https://git.example/app.git", "--run-as", "root", "--cache", "none"])
    );
}

#[test]
fn a_server_for_kubernetes_gets_a_token_of_its_own() {
    let place = Place::new();
    let made =
        || place.stdout(&["generate-k8s", "--image", "registry.example/memobuild:1", "--server", "--volume", "1Ti"]);
    let token = |document: &str| {
        let line = document.lines().find_map(|line| line.strip_prefix("  token: ")).unwrap();
        line.to_owned()
    };
    let (one, other) = (made(), made());
    assert_ne!(token(&one), token(&other));
    let hash = one.lines().find_map(|line| line.split_once("blake3:")).unwrap().1;
    assert!(hash.len() == 64 && !token(&one).contains(hash), "{hash}");
    insta::assert_snapshot!("k8s_server", one.replace(&token(&one), "TOKEN").replace(hash, "HASH"));
}

#[test]
fn what_is_there_is_not_overwritten() {
    let place = Place::new();
    let out = place.memobuild(&["generate-ci", "gitlab"]);
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert_eq!(text(&out.stderr), "wrote .gitlab-ci.yml\n");
    place.write(".gitlab-ci.yml", "mine\n");
    let out = place.memobuild(&["generate-ci", "gitlab"]);
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(text(&out.stderr).contains("is there already") && text(&out.stderr).contains("--force"), "{out:?}");
    assert_eq!(place.read(".gitlab-ci.yml"), "mine\n");
    place.stdout(&["generate-ci", "gitlab", "--force"]);
    assert!(place.read(".gitlab-ci.yml").contains("memobuild build"));
    place.stdout(&["generate-ci"]);
    assert!(place.path(".github/workflows/image.yml").exists());
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let place = Place::new();
    for (args, said) in [
        (&["generate-k8s", "--image", "x"][..], "neither --git nor --pvc"),
        (&["generate-k8s", "--git", "https://x"], "--image"),
        (&["generate-k8s", "--image", "x", "--git", "a", "--pvc", "b"], "cannot be used with"),
        (&["generate-k8s", "--image", "x", "--pvc", "a:../b"], "does not lie on the volume"),
        (&["generate-k8s", "--image", "x", "--pvc", "a/b"], "expected at most 50"),
        (&["generate-k8s", "--image", "x", "--git", "a", "--name", "A"], "expected at most 50"),
        (&["generate-k8s", "--image", "x", "--git", "a", "--memory", "much"], "expected a quantity"),
        (&["generate-k8s", "--image", "x", "--git", "a", "--cache", "registry"], "needs --tag"),
        (&["generate-ci", "--tag", "a\nb"], "without line breaks"),
        (&["generate-ci", "--sha256", "ab", "--binary", "x"], "64 lower-case"),
        (&["generate-ci", "--branch", "a\"b"], "without quotes"),
        (&["generate-ci", "jenkins"], "possible values"),
    ] {
        let out = place.memobuild(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {out:?}");
        assert!(text(&out.stderr).contains(said), "{args:?}: {}", text(&out.stderr));
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}
