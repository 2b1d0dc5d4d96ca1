//! A project with much to do at once, and what a cache must be like between builds.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    common::{Place, text},
    support::{busybox_layer, cache, place_with_base},
};

/// Stages that are built side by side.
const STAGES: usize = 8;

/// What a build takes and gives.
pub struct Project {
    pub place: Place,
}

/// Several steps in each of the stages, small and large files, a cache mount, and a last stage that takes all together.
/// What `salt` holds is an input of every step, and shows in none of what they make.
fn dockerfile() -> String {
    let run = "RUN --mount=type=bind,source=salt,target=/salt cat /salt >/dev/null &&";
    let mut out = String::new();
    for n in 1..=STAGES {
        let _ = writeln!(out, "FROM base AS s{n}");
        let _ = writeln!(out, "{run} mkdir /s{n} && echo {n} >/s{n}/a");
        let _ = writeln!(out, "{run} head -c {n}00000 /dev/zero >/s{n}/large && echo large {n} >>/s{n}/a");
        let _ = writeln!(out, "{run} for i in 0 1 2 3 4 5 6 7 8 9; do echo {n} $i >/s{n}/$i; done");
    }
    out.push_str("FROM base\n");
    for n in 1..=STAGES {
        let _ = writeln!(out, "COPY --from=s{n} /s{n} /s{n}");
    }
    let _ = writeln!(out, "{run} cat /s*/a /s*/9 >/end");
    let _ = writeln!(out, "RUN --mount=type=cache,target=/c echo x >>/c/log && wc -c /s*/large >>/end");
    out
}

const BUILD: [&str; 12] = [
    "build",
    "--progress=plain",
    "--build-context",
    "base=oci-layout://base",
    "--reproducible",
    "-t",
    "app",
    "--output",
    "type=image",
    "--output",
    "type=oci,dest=out.tar",
    ".",
];

impl Project {
    /// None where there is no base to be had: said, and the test ends.
    pub fn new() -> Option<Self> {
        let (place, _) = place_with_base(&dockerfile(), &[busybox_layer()?]);
        place.write("salt", "0");
        Some(Self { place })
    }

    /// A build that is still to be started.
    pub fn command(&self) -> Command {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_memobuild"));
        command.args(BUILD);
        command
    }

    /// The same by a command that takes another as its last arguments.
    pub fn command_by(&self, mut by: Command) -> Command {
        by.arg(env!("CARGO_BIN_EXE_memobuild")).args(BUILD);
        by
    }

    /// A build that must succeed; the image.
    #[track_caller]
    pub fn build(&self) -> Vec<u8> {
        self.image(&self.command().output().unwrap())
    }

    /// The image of a build that must have succeeded.
    #[track_caller]
    pub fn image(&self, out: &Output) -> Vec<u8> {
        assert!(out.status.success(), "{}", text(&out.stderr));
        let image = fs::read(self.place.path("out.tar")).unwrap();
        fs::remove_file(self.place.path("out.tar")).unwrap();
        image
    }

    /// The image of a build from nothing, and how long that takes.
    pub fn reference(&self) -> (Vec<u8>, Duration) {
        let other = self.place.path("../reference");
        let begin = Instant::now();
        let image = self.image(&self.command().env("MEMOBUILD_CACHE_DIR", &other).output().unwrap());
        let took = begin.elapsed();
        fs::remove_dir_all(other).unwrap();
        (image, took)
    }
}

/// What `fsck` finds in a place's cache: kinds and places.
pub fn faults(place: &Place) -> Vec<(String, String)> {
    let out = place.memobuild(&["fsck", "--json"]);
    let found: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out.stderr)));
    let fault = |finding: &Value| {
        let word = |name: &str| finding[name].as_str().unwrap().to_owned();
        (word("kind"), format!("{}: {}", word("at"), word("what")))
    };
    let all: Vec<_> = found["findings"].as_array().unwrap().iter().map(fault).collect();
    assert_eq!(out.status.code(), Some(if all.is_empty() { 0 } else { 4 }), "{}", text(&out.stderr));
    all
}

#[track_caller]
pub fn is_clean(place: &Place) {
    assert_eq!(faults(place), []);
}

/// What lies in a place's cache for things under way, and beside its output.
pub fn under_way(place: &Place) -> Vec<String> {
    let names = |dir: &Path, of: &dyn Fn(&str) -> bool| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| of(name)).map(|name| format!("{}/{name}", dir.display())).collect()
    };
    let in_cache = |dir: &str| names(&cache(place).join(dir), &|name| name != "gate");
    let mut out = [in_cache("tmp"), in_cache("leases"), in_cache("oci/partial")].concat();
    out.extend(names(&place.path(""), &|name| name.starts_with(".memobuild") || name.starts_with(".tmp")));
    out
}

/// What is mounted in a place, as this process sees it.
pub fn mounts_of(place: &Place) -> Vec<String> {
    let dir: PathBuf = place.path("..").canonicalize().unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned).collect()
}

/// Files of a place's cache that were found damaged.
pub fn damaged(place: &Place) -> Vec<PathBuf> {
    let mut all = crate::support::files_below(&cache(place));
    all.retain(|path| path.to_string_lossy().ends_with(".damaged") || path.to_string_lossy().contains("index.corrupt"));
    all
}
