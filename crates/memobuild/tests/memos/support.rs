//! A project that is built again and again: which steps ran, which were reused, and what came out.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::common::{Place, text};

/// A directory with a Dockerfile, a base image made of this machine's static busybox, and a cache.
pub struct Project {
    pub place: Place,
    /// Flags of every build.
    pub flags: Vec<String>,
}

/// What a build did.
#[derive(Debug)]
pub struct Built {
    /// Commands of the steps that were executed (`RUN make` without the place in front), each as often as it was.
    pub ran: Vec<String>,
    /// Commands of the steps that were reused.
    pub reused: Vec<String>,
    /// Why each of `ran` ran.
    pub reasons: BTreeMap<String, String>,
    /// Whether a sandbox was started.
    pub sandbox: bool,
    pub output: Output,
}

/// Whether steps can be traced here; else says so, for a test that ends there.
pub fn traced() -> bool {
    let probe = Place::new();
    let doctor = probe.memobuild(&["doctor"]);
    let able = text(&doctor.stdout).lines().any(|l| l.starts_with("traced ") && l.contains(" ok "));
    let busybox = Path::new("/bin/busybox").exists();
    if !able || !busybox {
        println!("skipped: needs FUSE, namespaces and a static busybox");
    }
    able && busybox
}

impl Project {
    pub fn new(dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let place = Place::with(files);
        place.write("Dockerfile", &format!("FROM base\n{dockerfile}"));
        let project = Self { place, flags: Vec::new() };
        project.make_base("");
        project
    }

    /// (Re)makes the base image. `extra` is a shell script run in its root directory before it is packed.
    pub fn make_base(&self, extra: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/make-busybox-base");
        let mut command = Command::new(script);
        let made = command.arg(self.base()).env("BASE_EXTRA", extra).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
    }

    pub fn base(&self) -> PathBuf {
        self.place.path("../base")
    }

    pub fn write(&self, name: &str, content: &str) {
        self.place.write(name, content);
    }

    pub fn remove(&self, name: &str) {
        let path = self.place.path(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Replaces the Dockerfile, but for its FROM.
    pub fn dockerfile(&self, text: &str) {
        self.place.write("Dockerfile", &format!("FROM base\n{text}"));
    }

    pub fn try_build(&self, more: &[&str]) -> Built {
        let base = format!("base=oci-layout://{}", self.base().display());
        let mut args = vec!["build", "--progress", "rawjson", "--build-context", &base];
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(more);
        args.push(".");
        let output = self.place.memobuild(&args);
        Built::of(output)
    }

    pub fn build(&self) -> Built {
        self.build_with(&[])
    }

    pub fn build_with(&self, more: &[&str]) -> Built {
        let built = self.try_build(more);
        assert!(built.output.status.success(), "{}", text(&built.output.stderr));
        built
    }

    /// The root file system that a build gives, as lines of path, kind, mode, and content or target.
    pub fn tree(&self, more: &[&str]) -> BTreeMap<String, String> {
        let out = self.place.path("../out");
        let _ = fs::remove_dir_all(&out);
        let dest = format!("type=local,dest={}", out.display());
        self.build_with(&[&["--output", &dest], more].concat());
        let mut lines = BTreeMap::new();
        list(&out, &out, &mut lines);
        lines
    }
}

fn list(root: &Path, dir: &Path, lines: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            list(root, &path, lines);
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            text(&fs::read(&path).unwrap())
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        lines.insert(name, format!("{:o} {what}", meta.mode()));
    }
}

impl Built {
    fn of(output: Output) -> Self {
        let mut built =
            Self { ran: vec![], reused: vec![], reasons: BTreeMap::new(), sandbox: false, output: output.clone() };
        let mut labels: Vec<String> = Vec::new();
        for line in text(&output.stderr).lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let step = || -> String { labels[event["step"].as_u64().unwrap() as usize].clone() };
            match event["event"].as_str().unwrap_or_default() {
                "build_started" => labels = event["steps"].as_array().unwrap().iter().map(command).collect(),
                "node_executing" => {
                    built.ran.push(step());
                    built.reasons.insert(step(), event["reason"].as_str().unwrap().to_owned());
                }
                "node_cached" => built.reused.push(step()),
                "sandbox_chosen" => built.sandbox = true,
                _ => {}
            }
        }
        built
    }

    /// The RUN steps that were executed, by their commands, in order.
    pub fn runs(&self) -> Vec<&str> {
        self.ran.iter().filter_map(|label| label.strip_prefix("RUN ")).collect()
    }
}

/// `RUN make` of `[build 2/5] RUN make`.
fn command(step: &Value) -> String {
    let label = step["label"].as_str().unwrap();
    label.split_once("] ").map_or(label, |(_, command)| command).to_owned()
}
