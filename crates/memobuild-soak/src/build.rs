//! Runs `memobuild build` and reads what it tells.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::error::{SoakError, at};

/// A build that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(300);

/// A build that is to be made.
#[derive(Debug)]
pub struct Build<'a> {
    /// The program.
    pub memobuild: &'a Path,
    /// Holds `context` and `Dockerfile`; the output and messages go there as well.
    pub dir: &'a Path,
    /// The base image's layout.
    pub base: &'a Path,
    /// Names the cache and the output.
    pub name: &'a str,
    /// A kind of fact to leave out: see the head of the crate.
    pub drop_fact: Option<&'a str>,
}

/// How a build went.
#[derive(Debug, Default)]
pub struct Built {
    /// Exit code; none: a signal, or it hung and was killed.
    pub code: Option<i32>,
    /// Labels of steps whose results were reused.
    pub reused: Vec<String>,
    /// Labels of steps that ran.
    pub ran: Vec<String>,
    /// What it said went wrong.
    pub error: String,
    /// How steps were run; empty: none was.
    pub mode: String,
}

impl Build<'_> {
    /// Its cache.
    pub fn cache(&self) -> PathBuf {
        self.dir.join(format!("cache-{}", self.name))
    }

    /// The OCI layout that it writes.
    pub fn output(&self) -> PathBuf {
        self.dir.join(format!("image-{}", self.name))
    }

    /// Builds, with these values of `--build-arg`.
    ///
    /// # Errors
    /// If the program can't be run.
    pub fn run(&self, args: &[(String, String)]) -> Result<Built, SoakError> {
        let log = self.dir.join(format!("log-{}", self.name));
        let file = fs::File::create(&log).map_err(at(&log))?;
        let mut command = Command::new(self.memobuild);
        command
            .current_dir(self.dir)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir)
            .env("MEMOBUILD_CACHE_DIR", self.cache())
            .args(["build", "--progress", "rawjson", "-f", "Dockerfile"])
            .arg("--build-context")
            .arg(format!("base=oci-layout://{}", self.base.display()))
            .arg("--output")
            .arg(format!("type=oci,tar=false,compression=uncompressed,dest={}", self.output().display()));
        for (name, value) in args {
            command.arg("--build-arg").arg(format!("{name}={value}"));
        }
        if let Some(fact) = self.drop_fact {
            command.env("MEMOBUILD_TEST_DROP_FACT", fact);
        }
        // The base's layers need not be written again each time: those that are there are taken as they are.
        self.link_base()?;
        let mut child = command
            .arg("context")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(at(self.memobuild))?;
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(at(self.memobuild))? {
                break status;
            }
            if begin.elapsed() > DEADLINE {
                child.kill().map_err(at(self.memobuild))?;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = fs::read(&log).map_err(at(&log))?;
        let mut built = Built { code: status.code(), ..Built::default() };
        built.read(&String::from_utf8_lossy(&text));
        Ok(built)
    }

    fn link_base(&self) -> Result<(), SoakError> {
        let (from, to) = (self.base.join("blobs/sha256"), self.output().join("blobs/sha256"));
        if !to.is_dir() {
            fs::create_dir_all(&to).map_err(at(&to))?;
        }
        for blob in fs::read_dir(&from).map_err(at(&from))? {
            let blob = blob.map_err(at(&from))?;
            let new = to.join(blob.file_name());
            if !new.exists() {
                std::os::unix::fs::symlink(blob.path(), &new).map_err(at(&new))?;
            }
        }
        Ok(())
    }
}

impl Built {
    fn read(&mut self, events: &str) {
        let mut labels = Vec::new();
        for line in events.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                self.error += line;
                self.error.push('\n');
                continue;
            };
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str().unwrap_or_default() {
                "build_started" => {
                    let steps = event["steps"].as_array().into_iter().flatten();
                    labels = steps.map(|s| s["label"].as_str().unwrap_or_default().to_owned()).collect();
                    // Damage makes a build begin anew.
                    (self.reused, self.ran) = (Vec::new(), Vec::new());
                }
                "sandbox_chosen" => self.mode = text("mode"),
                "node_done" => {
                    let step = event["step"].as_u64().and_then(|s| labels.get(s as usize)).cloned().unwrap_or_default();
                    match event["outcome"].as_str().unwrap_or_default() {
                        "cached" => self.reused.push(step),
                        "executed" => self.ran.push(step),
                        _ => {}
                    }
                }
                "error" => self.error += &(text("message") + "\n"),
                _ => {}
            }
        }
    }
}
