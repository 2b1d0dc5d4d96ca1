//! A project whose steps try to get out, and the machine that they would get out to.

use std::{fs, process::Output};

use crate::{
    common::text,
    host::Host,
    program,
    support::{Built, Project},
    who::Who,
};

pub struct World {
    pub who: Who,
    pub mode: &'static str,
    pub project: Project,
    pub host: Host,
}

impl World {
    pub fn new(who: Who, mode: &'static str) -> Self {
        let mut project = Project::new("", &[]);
        project.flags(&["--sandbox", mode, "--no-cache"]);
        let mut world = Self { who, mode, project, host: Host::new() };
        world.remake_base("");
        who.takes_over(&mut world.project);
        world
    }

    /// A base image with the probe in it, also as a set-user-ID program of root's. `extra` is a shell script run in its
    /// root directory.
    pub fn remake_base(&mut self, extra: &str) {
        self.project.make_base(&format!(
            "cp {} probe; chmod 755 probe; cp probe probe-of-root; chmod 4755 probe-of-root
            echo 'somebody:x:1000:1000::/:/bin/sh' >> etc/passwd
            {extra}",
            program::probe().unwrap().display()
        ));
    }

    /// Runs a step that tries these things, each of which must go as the words beside it say (`EPERM`, `EROFS|EACCES`).
    /// `step` is the Dockerfile up to the words: `RUN /probe`.
    #[track_caller]
    pub fn tries<S: AsRef<str>>(&mut self, step: &str, attempts: &[(S, &str)]) {
        let words: Vec<&str> = attempts.iter().map(|(attempt, _)| attempt.as_ref()).collect();
        self.project.dockerfile(&format!("{step} {} > /tmp/said\n", words.join(" ")));
        let out = self.built();
        assert!(out.status.success(), "{}", text(&out.stderr));
        let said = fs::read_to_string(self.project.place.path("../out/tmp/said")).unwrap();
        let mut wrong = Vec::new();
        for (attempt, expected) in attempts {
            let attempt = attempt.as_ref();
            let went = said.lines().find_map(|line| line.strip_prefix(attempt)?.strip_prefix(' '));
            if !expected.split('|').any(|one| Some(one) == went) {
                wrong.push(format!("{attempt}: {} instead of {expected}", went.unwrap_or("no word")));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        self.host.is_unchanged();
    }

    /// Builds the project's Dockerfile into the directory `../out`, which may fail.
    pub fn built(&self) -> Output {
        let out = self.project.place.path("../out");
        let _ = fs::remove_dir_all(&out);
        let dest = format!("type=local,dest={}", out.display());
        let Built { output, .. } = self.project.try_build(&["--output", &dest]);
        output
    }

    /// Builds this Dockerfile; gives whether that worked. In no case may it have seen the secret or changed anything.
    #[track_caller]
    pub fn stays_in(&mut self, dockerfile: &str) -> bool {
        self.project.dockerfile(dockerfile);
        let output = self.built();
        let shown = text(&output.stderr);
        assert!(!shown.contains("panicked"), "{shown}");
        let mut seen = Vec::new();
        for path in crate::images::files_below(&self.project.place.path("../out")) {
            let is_file = fs::symlink_metadata(&path).unwrap().is_file();
            if is_file && text(&fs::read(&path).unwrap()).trim() == crate::host::SECRET {
                seen.push(path);
            }
        }
        assert!(seen.is_empty(), "a file of the machine is in the image: {seen:?}\n{dockerfile}");
        self.host.is_unchanged();
        output.status.success()
    }
}
