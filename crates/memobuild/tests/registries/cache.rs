//! `type=registry`: what is moved between two machines.

use crate::{
    common::text,
    server::Registry,
    support::{Built, Project, traced},
};

const STEPS: &str = "\
FROM base AS build
WORKDIR /w
COPY . .
RUN cat src/a > out; head -c 300000 /dev/urandom > big; head -c 3000000 /dev/urandom > huge
RUN echo src/* > list
FROM base
COPY --from=build /w/out /w/list /w/huge /res/
RUN cat /res/out /res/list > /both
";

fn setting() -> Option<(Registry, Project)> {
    if !traced() {
        return None;
    }
    let registry = Registry::start("", &[])?;
    let files = [("src/a", "1"), ("src/b", "1"), ("README.md", "1"), (".dockerignore", "Dockerfile\n")];
    Some((registry, Project::new(STEPS, &files)))
}

fn on(project: &Project, machine: &str, more: &[&str]) -> Built {
    let mut command = project.build_command(more);
    command.env("MEMOBUILD_CACHE_DIR", project.place.path(&format!("../{machine}")));
    let built = Built::of(command.output().unwrap());
    let stderr = text(&built.output.stderr);
    assert!(built.output.status.success() && !stderr.contains("\"warning\""), "{stderr}");
    built
}

#[test]
fn a_cold_machine_asks_for_two_documents() {
    let Some((registry, project)) = setting() else { return };
    let (cache, to) =
        (registry.name("app:cache"), format!("type=registry,ref={},mode=max", registry.name("app:cache")));
    on(&project, "one", &["--cache-to", &to]);
    registry.requests();
    registry.traffic();
    let second = on(&project, "two", &["--cache-from", &cache]);
    assert!(second.ran.is_empty(), "{second:?}");
    let asked = registry.requests();
    let documents = |r: &&String| r.contains("/manifests/cache") || r.contains("/blobs/sha256:");
    assert_eq!(asked.iter().filter(documents).count(), 2, "{asked:?}");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(registry.traffic().1 < 100_000);
}

/// What a step yields is on the registry while a later one still runs.
#[test]
fn results_are_sent_while_the_build_goes_on() {
    let Some((registry, project)) = setting() else { return };
    project.dockerfile(
        "FROM base\nRUN head -c 200000 /dev/urandom > /made\nRUN while [ ! -e /tmp/never ]; do sleep 1; done\n",
    );
    let to = format!("type=registry,ref={}", registry.name("app:cache"));
    let mut build = project.build_command(&["--cache-to", &to]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut seen = Vec::new();
    for _ in 0..300 {
        seen.extend(registry.requests());
        if seen.iter().any(|r: &String| r.starts_with("PUT /v2/app/blobs/uploads/")) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let running = build.try_wait().unwrap().is_none();
    rustix::process::kill_process(rustix::process::Pid::from_child(&build), rustix::process::Signal::INT).unwrap();
    build.wait().unwrap();
    assert!(running && seen.iter().any(|r| r.starts_with("PUT /v2/app/blobs/uploads/")), "{seen:?}");
    // A build that is stopped leaves no directory behind, so nobody finds half a cache.
    assert!(!registry.requests().iter().any(|r| r.contains("/manifests/cache") && r.starts_with("PUT")));
}

/// The base image lies on the registry too: of it a cold machine reads manifest and config.
#[test]
fn a_cold_machine_pulls_no_layer_of_its_base() {
    let Some((registry, project)) = setting() else { return };
    let base = registry.name("base:1");
    project.dockerfile("FROM base\nLABEL pushed=yes\n");
    on(&project, "zero", &["-t", &base, "--push"]);
    let lines: String = (0..18).map(|n| format!("RUN cat /data/a > /out{n}\n")).collect();
    project.dockerfile(&format!("FROM {base}\nUSER root\nCOPY src /data/\n{lines}WORKDIR /last\n"));
    let (cache, to) = (registry.name("app:cache"), format!("type=registry,ref={}", registry.name("app:cache")));
    on(&project, "one", &["--cache-to", &to]);
    registry.requests();
    registry.traffic();
    let second = on(&project, "two", &["-t", "app", "--cache-from", &cache]);
    assert!(second.ran.is_empty() && second.reused.len() >= 20, "{second:?}");
    let asked = registry.requests();
    assert!(asked.iter().all(|r| r.starts_with("GET ")) && asked.len() == 4, "{asked:?}");
    assert!(registry.traffic().1 < 100_000);
    // An edit needs to know what is in the base, which the cache tells as well.
    project.write("src/b", "2");
    let third = on(&project, "two", &["--cache-from", &cache]);
    assert_eq!(third.ran, ["COPY src /data/"]);
    let asked = registry.requests();
    assert!(!asked.iter().any(|r| r.contains("/base/blobs/") && registry_layer(r, &project)), "{asked:?}");
}

/// Whether a request is for the base image's layer.
fn registry_layer(request: &str, project: &Project) -> bool {
    let blobs = std::fs::read_dir(project.base().join("blobs/sha256")).unwrap();
    let layer = blobs.map(Result::unwrap).max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    request.contains(&*layer.file_name().to_string_lossy())
}

#[test]
fn only_what_is_missing_moves() {
    let Some((registry, project)) = setting() else { return };
    let to = format!("type=registry,ref={},mode=max", registry.name("app:cache"));
    on(&project, "one", &["--cache-to", &to]);
    assert!(registry.traffic().0 > 3_000_000);
    // Again, with nothing new: no content is sent.
    on(&project, "one", &["--cache-to", &to]);
    let (sent, _) = registry.traffic();
    assert!(sent < 60_000, "{sent}");
    // A small edit moves about its own size: the other three megabytes are known to be there.
    project.write("README.md", "2");
    let third = on(&project, "two", &["--cache-from", &registry.name("app:cache"), "--cache-to", &to]);
    assert!(third.runs().is_empty(), "{third:?}");
    let (sent, received) = registry.traffic();
    assert!(sent < 100_000 && received < 200_000, "{sent} {received}");
}

#[test]
fn an_image_whose_steps_ran_elsewhere_is_pushed_without_its_layers() {
    let Some((registry, project)) = setting() else { return };
    let (cache, to) =
        (registry.name("app:cache"), format!("type=registry,ref={},mode=max", registry.name("app:cache")));
    let (app, reproducible) = (registry.name("app:1"), "--reproducible");
    on(&project, "one", &[reproducible, "--cache-to", &to, "-t", &app, "--push"]);
    let pushed = registry.requests();
    registry.traffic();
    assert!(pushed.iter().any(|r| r.starts_with("PUT /v2/app/manifests/1")));
    on(&project, "two", &[reproducible, "--cache-from", &cache, "-t", &registry.name("app:2"), "--push"]);
    let asked = registry.requests();
    assert!(!asked.iter().any(|r| r.starts_with("POST") || r.starts_with("PATCH")), "{asked:?}");
    let (sent, received) = registry.traffic();
    assert!(sent < 50_000 && received < 100_000, "{sent} {received}");
}

#[test]
fn an_image_on_a_registry_is_a_cache() {
    let Some((registry, project)) = setting() else { return };
    let app = registry.name("app:1");
    on(&project, "one", &["--cache-to", "type=inline", "-t", &app, "--push"]);
    let second = on(&project, "two", &["--cache-from", &app]);
    assert!(second.ran.is_empty(), "{second:?}");
}
