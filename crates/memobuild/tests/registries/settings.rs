//! Settings of the user: the file, the variables, docker's credentials.

use std::fs;

use crate::{
    common::text,
    server::Registry,
    support::{Built, Project, has_busybox},
};

/// A registry with the base image as `library/base:latest` and as `team/base:latest`.
fn with_base(extra: &str, files: &[(&str, &[u8])]) -> Option<(Registry, Project)> {
    if !has_busybox() {
        return None;
    }
    let registry = Registry::start(extra, files)?;
    let project = Project::new("FROM base\nCOPY a /a\n", &[("a", "1")]);
    Some((registry, project))
}

fn push_base(project: &Project, registry: &Registry, names: &[&str]) {
    let mut args: Vec<String> = vec!["--push".into()];
    for name in names {
        args.extend(["-t".into(), registry.name(name)]);
    }
    project.dockerfile("FROM base\nLABEL pushed=yes\n");
    project.build_with(&args.iter().map(String::as_str).collect::<Vec<_>>());
    project.dockerfile("FROM base\nCOPY a /a\n");
}

#[test]
fn what_is_pulled_is_what_was_pushed() {
    let Some((registry, project)) = with_base("", &[]) else { return };
    let name = registry.name("team/app:1");
    project.build_with(&["-t", &name, "--push"]);
    let export = |cache: &str| {
        let dest = format!("type=oci,tar=false,dest=../{cache}.oci");
        let mut command = project.command(&["export", &name, "-o", &dest]);
        let out = command.env("MEMOBUILD_CACHE_DIR", project.place.path(&format!("../{cache}"))).output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
    };
    let mut pull = project.command(&["pull", "-q", &name]);
    let pulled = pull.env("MEMOBUILD_CACHE_DIR", project.place.path("../other")).output().unwrap();
    assert!(pulled.status.success(), "{}", text(&pulled.stderr));
    export("other");
    let digest = text(&pulled.stdout);
    let blob = project.place.path("../other.oci/blobs/sha256").join(digest.trim().trim_start_matches("sha256:"));
    assert!(blob.exists(), "{digest}");
    // And on under another name, without a byte of a layer.
    registry.traffic();
    let mut push = project.command(&["push", "-q", &name, &registry.name("other/app:2")]);
    let pushed = push.env("MEMOBUILD_CACHE_DIR", project.place.path("../other")).output().unwrap();
    assert_eq!(text(&pushed.stdout), digest);
    assert!(registry.traffic().0 < 20_000);
}

#[test]
fn a_mirror_stands_in_for_a_registry() {
    let Some((registry, project)) = with_base("", &[]) else { return };
    push_base(&project, &registry, &["hub/library/thing:latest"]);
    // A name that only the mirror can resolve.
    let file = format!("[registry.\"docker.io\"]\nmirrors = [\"{}\"]\n", registry.name("hub"));
    fs::create_dir_all(project.place.path("../.config/memobuild")).unwrap();
    fs::write(project.place.path("../.config/memobuild/config.toml"), file).unwrap();
    project.dockerfile("FROM thing\nCOPY a /a\n");
    project.build();
    assert!(registry.requests().iter().any(|r| r.starts_with("GET /v2/hub/library/thing/manifests/latest")));
}

#[test]
fn a_mistake_in_the_file_is_named() {
    let Some((_, project)) = with_base("", &[]) else { return };
    fs::write(project.place.path("../c.toml"), "[registry.\"x\"]\nmirror = []\n").unwrap();
    let out = project.build_command(&[]).env("MEMOBUILD_CONFIG", project.place.path("../c.toml")).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let stderr = text(&out.stderr);
    assert!(stderr.contains("c.toml") && stderr.contains("mirror") && stderr.contains("line 2"), "{stderr}");
    let out = project.build_command(&[]).env("MEMOBUILD_CONFIG", "nowhere.toml").output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
}

#[test]
fn variables_say_where_to_push_and_as_whom() {
    let made = std::process::Command::new("htpasswd").args(["-Bbn", "user", "secret"]).output();
    let Ok(made) = made else {
        println!("skipped: no htpasswd");
        return;
    };
    let auth = "auth: {htpasswd: {realm: r, path: DIR/htpasswd}}\n";
    let Some((registry, project)) = with_base(auth, &[("htpasswd", &made.stdout)]) else { return };
    let host = registry.name("").trim_end_matches('/').to_owned();
    let build = |token: Option<&str>, more: &[&str]| {
        let mut command = project.build_command(&[&["--push"], more].concat());
        command.env("MEMOBUILD_REGISTRY", &host).env("MEMOBUILD_REPO", "team/app");
        if let Some(token) = token {
            command.env("MEMOBUILD_TOKEN", token);
        }
        Built::of(command.output().unwrap())
    };
    let denied = build(None, &[]);
    let stderr = text(&denied.output.stderr);
    assert_eq!(denied.output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("access to team/app denied") && stderr.contains("docker login"), "{stderr}");
    let wrong = build(Some("user:wr0ng"), &[]);
    assert_eq!(wrong.output.status.code(), Some(5));
    assert!(!text(&wrong.output.stderr).contains("wr0ng"));
    let right = build(Some("user:secret"), &[]);
    assert!(right.output.status.success(), "{}", text(&right.output.stderr));
    // docker's own credentials do as well.
    let config = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"dXNlcjpzZWNyZXQ=\"}}}}}}");
    fs::create_dir_all(project.place.path("../.docker")).unwrap();
    fs::write(project.place.path("../.docker/config.json"), config).unwrap();
    project.build_with(&["-t", &registry.name("team/other:1"), "--push"]);
}
