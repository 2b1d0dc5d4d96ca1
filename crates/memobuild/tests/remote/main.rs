//! Builds that share results through `memobuild server`: cache directories play machines, a proxy counts and does harm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "../memos/base.rs"]
mod base;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod proxy;
mod server;
mod sharing;
#[path = "../memos/support.rs"]
mod support;
mod tls;

use std::{fs, path::PathBuf};

use serde_json::Value;

use common::text;
use support::{Built, Project};

/// Two stages, four commands, large and small files, a file that nobody reads.
const STEPS: &str = "\
FROM base AS build
WORKDIR /w
COPY . .
RUN cat src/a > out; head -c 300000 /dev/zero | tr '\\0' x > big; head -c 3000000 /dev/urandom > huge
RUN echo src/* > list; for i in 1 2 3 4 5; do echo $i > small$i; done
FROM base
COPY --from=build /w/out /w/list /w/huge /res/
RUN cat /res/out /res/list > /both
RUN wc -c < /res/huge > /size
";

fn project() -> Project {
    Project::new(STEPS, &[("src/a", "1"), ("src/b", "1"), ("README.md", "1"), (".dockerignore", "Dockerfile\n")])
}

fn dir(project: &Project, machine: &str) -> PathBuf {
    project.place.path(&format!("../{machine}"))
}

/// A build on a machine of that name, with a server at that address.
fn try_on(project: &Project, machine: &str, url: &str, more: &[&str]) -> Built {
    let mut command = project.build_command(more);
    command.env("MEMOBUILD_CACHE_DIR", dir(project, machine)).env("MEMOBUILD_REMOTE_URL", url);
    Built::of(command.output().unwrap())
}

fn on(project: &Project, machine: &str, url: &str, more: &[&str]) -> Built {
    let built = try_on(project, machine, url, more);
    assert!(built.output.status.success(), "{}", text(&built.output.stderr));
    built
}

/// The same; nothing may be wrong.
fn well(project: &Project, machine: &str, url: &str, more: &[&str]) -> Built {
    let built = on(project, machine, url, more);
    assert!(warnings(&built).is_empty(), "{:?}", warnings(&built));
    built
}

/// The layout that a build gives, all its times one: its index names all of it by digest.
fn image(project: &Project, machine: &str, url: &str, more: &[&str]) -> (String, Built) {
    let out = project.place.path(&format!("../{machine}.oci"));
    let _ = fs::remove_dir_all(&out);
    let dest = format!("type=oci,tar=false,dest={}", out.display());
    let built = on(project, machine, url, &[&["--reproducible", "--output", &dest], more].concat());
    (fs::read_to_string(out.join("index.json")).unwrap(), built)
}

fn events(built: &Built, name: &str) -> Vec<Value> {
    let stderr = text(&built.output.stderr);
    let events = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == name).collect()
}

fn warnings(built: &Built) -> Vec<String> {
    events(built, "warning").iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// What the build said of the server at its end.
fn summary(built: &Built) -> String {
    let all = events(built, "remote_sync");
    let mut lines = all.iter().filter_map(|event| event["what"].as_str().filter(|w| w.starts_with("shared cache ")));
    let line = lines.next().expect("a summary").to_owned();
    assert_eq!(lines.next(), None);
    line
}
