//! Runs the real program in a directory of its own, with an environment of its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A directory with a cache beside it.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir }
    }

    /// With these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let place = Self::new();
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A command that knows nothing of the environment that the tests run in.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bin = Path::new(env!("CARGO_BIN_EXE_memobuild")).parent().unwrap();
        command
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
            .env("HOME", self.dir.path())
            .env("MEMOBUILD_CACHE_DIR", self.dir.path().join("cache"))
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        // Where scripts/coverage has programs write down what they ran.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", profile);
        }
        command
    }

    pub fn memobuild(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_memobuild")).args(args).output().unwrap()
    }

    /// Exit code, standard output and standard error, for a snapshot.
    pub fn shown(&self, args: &[&str]) -> String {
        let out = self.memobuild(args);
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        self.scrub(&format!("exit code: {}\n{stdout}----- stderr\n{stderr}", out.status.code().unwrap_or(-1)))
    }

    /// Standard output of a command that must succeed.
    pub fn stdout(&self, args: &[&str]) -> String {
        let out = self.memobuild(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Without what differs from run to run: times, and where the directory is.
    fn scrub(&self, shown: &str) -> String {
        let shown = shown.replace(self.dir.path().to_str().unwrap(), "DIR");
        let mut out = String::new();
        for line in shown.lines() {
            let line = match line.rsplit_once(' ') {
                Some((rest, time)) if rest.ends_with("DONE") && time.ends_with('s') => format!("{rest} TIME"),
                _ => line.to_owned(),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
