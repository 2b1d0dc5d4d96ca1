//! A project that is built again and again: which steps ran, which were reused, and what came out.

#[path = "../listing/mod.rs"]
mod listing;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    base,
    common::{Place, text},
};

/// A directory with a Dockerfile, a base image made of this machine's static busybox, and a cache.
pub struct Project {
    pub place: Place,
    /// Flags of every build.
    pub flags: Vec<String>,
    /// The context, as seen from the place's directory.
    pub context: String,
    /// What memobuild is run by, if not directly: a command that takes another as its last arguments.
    pub runner: Vec<String>,
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
    /// How steps were run, if any was.
    pub mode: String,
    pub output: Output,
}

/// Whether steps can be traced here; else says so, for a test that ends there.
pub fn traced() -> bool {
    let probe = Place::new();
    let doctor = probe.memobuild(&["doctor"]);
    let able = text(&doctor.stdout).lines().any(|l| l.starts_with("traced ") && l.contains(" ok "));
    if !able {
        println!("skipped: needs FUSE and namespaces");
    }
    able && has_busybox()
}

/// Whether a base image can be made here; else says so.
pub fn has_busybox() -> bool {
    let busybox = Path::new(base::BUSYBOX).exists();
    if !busybox {
        println!("skipped: needs a static busybox");
    }
    busybox
}

/// Whether the steps of a build were traced; else says so.
pub fn is_traced(built: &Built) -> bool {
    assert!(built.sandbox, "no step ran: {built:?}");
    let traced = built.mode == "traced";
    if !traced {
        println!("skipped: needs FUSE and namespaces");
    }
    traced
}

impl Project {
    pub fn new(dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let place = Place::with(files);
        let project = Self { place, flags: Vec::new(), context: ".".into(), runner: Vec::new() };
        project.dockerfile(dockerfile);
        project.make_base("");
        project
    }

    /// (Re)makes the base image. `extra` is a shell script run in its root directory before it is packed.
    pub fn make_base(&self, extra: &str) {
        let kept = base::kept(extra);
        let _ = fs::remove_dir_all(self.base());
        base::copy(&kept, &self.base());
    }

    pub fn base(&self) -> PathBuf {
        self.place.path("../base")
    }

    pub fn write(&self, name: &str, content: &str) {
        self.place.write(name, content);
    }

    /// Changes the context by a shell script.
    pub fn shell(&self, script: &str) {
        let out = self.place.command("sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", text(&out.stderr));
    }

    /// Replaces a part of the Dockerfile.
    pub fn replace(&self, old: &str, new: &str) {
        let text = self.place.read("Dockerfile");
        assert!(text.contains(old), "no {old:?} in {text}");
        self.place.write("Dockerfile", &text.replace(old, new));
    }

    /// Adds flags to every build from now on.
    pub fn flags(&mut self, more: &[&str]) {
        self.flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    }

    pub fn remove(&self, name: &str) {
        let path = self.place.path(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Replaces the Dockerfile. One that names no base stands on the base image.
    pub fn dockerfile(&self, text: &str) {
        let from = if text.lines().any(|line| line.starts_with("FROM ")) { "" } else { "FROM base\n" };
        self.place.write("Dockerfile", &format!("{from}{text}"));
    }

    pub fn cache(&self) -> PathBuf {
        self.place.path("").parent().unwrap().join("cache")
    }

    /// Makes the project and its cache nobody's, and has memobuild run by nobody: with a range of ids if so asked, from an
    /// /etc/subuid of this command's own. For root.
    pub fn by_nobody(&mut self, ranges: bool) -> bool {
        let given = Path::new("/usr/bin/newuidmap").exists() && Path::new("/usr/bin/newgidmap").exists();
        if ranges && !given {
            println!("skipped: needs newuidmap (package uidmap)");
            return false;
        }
        let top = self.place.path("..");
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        // The build directory may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_memobuild"), top.join("memobuild")).unwrap();
        self.shell("cd ..; chown -R 65534:65534 . && chown 65534:65534 work/..");
        let line = if ranges { "65534:200000:65536" } else { "" };
        let script = format!(
            "echo '{line}' > ../ranges; mount --bind ../ranges /etc/subuid; mount --bind ../ranges /etc/subgid; shift
            exec setpriv --reuid=65534 --regid=65534 --clear-groups ../memobuild \"$@\""
        );
        self.runner = ["unshare", "--mount", "sh", "-ec", &script, "by-nobody"].map(str::to_owned).to_vec();
        true
    }

    /// memobuild with these arguments, in the project's directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_memobuild");
        let Some((runner, rest)) = self.runner.split_first() else {
            let mut command = self.place.command(program);
            command.args(args);
            return command;
        };
        let mut command = self.place.command(runner);
        command.args(rest).arg(program).args(args);
        command
    }

    /// A build that is still to be started.
    pub fn build_command(&self, more: &[&str]) -> Command {
        let base = format!("base=oci-layout://{}", self.base().display());
        let mut args = vec!["build", "--progress", "rawjson", "--build-context", &base];
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(more);
        args.push(&self.context);
        self.command(&args)
    }

    pub fn try_build(&self, more: &[&str]) -> Built {
        Built::of(self.build_command(more).output().unwrap())
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
        listing::lines(&out)
    }
}

impl Built {
    pub fn of(output: Output) -> Self {
        let mut built = Self {
            ran: vec![],
            reused: vec![],
            reasons: BTreeMap::new(),
            sandbox: false,
            mode: String::new(),
            output: output.clone(),
        };
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
                "sandbox_chosen" => {
                    built.sandbox = true;
                    built.mode = event["mode"].as_str().unwrap_or_default().to_owned();
                }
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
