//! Results that one machine shares with another: two cache directories play the machines.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "../memos/base.rs"]
mod base;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod inline;
mod local;
#[path = "../memos/support.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{Built, Project};

/// Two stages, four commands, a file that nobody reads.
const STEPS: &str = "\
FROM base AS build
WORKDIR /w
COPY . .
RUN cat src/a > out; head -c 300000 /dev/zero | tr '\\0' x > big; head -c 2000000 /dev/zero | tr '\\0' y > huge
RUN echo src/* > list; for i in 1 2 3 4 5; do echo $i > small$i; done
FROM base
COPY --from=build /w/out /w/list /w/huge /res/
RUN cat /res/out /res/list > /both
RUN wc -c < /res/huge > /size
";

fn project() -> Project {
    Project::new(STEPS, &[("src/a", "1"), ("src/b", "1"), ("README.md", "1"), (".dockerignore", "Dockerfile\n")])
}

/// A build on a machine of that name.
fn try_on(project: &Project, machine: &str, more: &[&str]) -> Built {
    let mut command = project.build_command(more);
    command.env("MEMOBUILD_CACHE_DIR", dir(project, machine));
    Built::of(command.output().unwrap())
}

fn on(project: &Project, machine: &str, more: &[&str]) -> Built {
    let built = try_on(project, machine, more);
    assert!(built.output.status.success(), "{}", common::text(&built.output.stderr));
    built
}

fn dir(project: &Project, machine: &str) -> PathBuf {
    project.place.path(&format!("../{machine}"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

/// Bundles and large files of a machine.
fn contents(project: &Project, machine: &str) -> Vec<PathBuf> {
    ["bundles", "blobs"].iter().flat_map(|part| files(&dir(project, machine).join(part))).collect()
}

/// The digest of the image that a build gives, all its times one.
fn image(project: &Project, machine: &str, more: &[&str]) -> String {
    let out = project.place.path(&format!("../{machine}.oci"));
    let _ = fs::remove_dir_all(&out);
    let dest = format!("type=oci,tar=false,dest={}", out.display());
    on(project, machine, &[&["--reproducible", "--output", &dest], more].concat());
    fs::read_to_string(out.join("index.json")).unwrap()
}

/// The warnings of a build.
fn warnings(built: &Built) -> Vec<String> {
    let events = common::text(&built.output.stderr);
    let events = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let warnings = events.filter(|event| event["event"] == "warning");
    warnings.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}
