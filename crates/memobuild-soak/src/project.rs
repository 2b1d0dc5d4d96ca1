//! A project as a value: its context, its Dockerfile, which base image it takes.

use std::fmt::Write as _;

use crate::context::Context;

/// Which base images a project takes its variants from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavor {
    /// Busybox alone.
    Small,
    /// With a compiler, make, python3 and GNU's tools.
    Full,
}

/// What this machine can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// There is more than one user id in steps.
    pub users: bool,
    /// The static program `probe` could be compiled.
    pub probe: bool,
    /// io_uring works.
    pub uring: bool,
    /// Block counts of files below are computed from their sizes, and not those of some disk.
    pub blocks: bool,
}

/// An edit of the context that a step's result must depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poke {
    /// Other content of a file.
    Content(String),
    /// A file comes to be where none is, or goes where one is.
    Exist(String),
    /// One more file in a directory, or one less.
    Member(String),
    /// Other permission bits, of a file or directory.
    Mode(String),
    /// Another target of a link.
    Target(String),
    /// A directory becomes a file, a file a link, and back.
    Kind(String),
    /// The next of these contents for a file that an earlier step decides by.
    Knob(String, Vec<&'static str>),
    /// Another base image.
    Base,
}

/// Neighbouring instructions of a Dockerfile that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What of the catalogue it is.
    pub name: &'static str,
    /// The instructions.
    pub lines: Vec<String>,
    /// What changes its outcome.
    pub pokes: Vec<Poke>,
}

/// What a stage begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The base image.
    Base,
    /// The stage of that number.
    Stage(usize),
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// What it begins with.
    pub from: From,
    /// `COPY . /src/` at the beginning, or each directory when it is first needed.
    pub whole: bool,
    /// What comes after that.
    pub steps: Vec<Step>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Where its base images come from.
    pub flavor: Flavor,
    /// Which variant of the base image.
    pub base: usize,
    /// The files.
    pub context: Context,
    /// Lines of .dockerignore.
    pub ignored: Vec<String>,
    /// Values of `--build-arg`.
    pub args: Vec<(String, String)>,
    /// The last one is built.
    pub stages: Vec<Stage>,
}

/// Top directories of the context that are copied one by one.
pub const DIRS: [&str; 7] = ["a", "b", "c", "conf", "data", "lib", "py"];

impl Project {
    /// The Dockerfile.
    pub fn dockerfile(&self) -> String {
        let mut out = String::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let from = match stage.from {
                From::Stage(i) if i < number => self.stages.get(i).map_or("base", |s| &s.name),
                _ => "base",
            };
            let _ = writeln!(out, "FROM {from} AS {}", stage.name);
            if stage.whole {
                out.push_str("COPY . /src/\n");
            }
            let mut lacking: Vec<&str> = if stage.whole { Vec::new() } else { DIRS.to_vec() };
            for step in &stage.steps {
                let text = step.lines.join("\n");
                lacking.retain(|dir| {
                    let needed = text.contains(&format!("/src/{dir}"));
                    if needed {
                        let _ = writeln!(out, "COPY {dir} /src/{dir}");
                    }
                    !needed
                });
                let _ = writeln!(out, "# {}", step.name);
                out.push_str(&text);
                out.push('\n');
            }
        }
        out
    }

    /// The text of .dockerignore.
    pub fn dockerignore(&self) -> String {
        self.ignored.iter().fold(String::new(), |all, line| all + line + "\n")
    }

    /// All steps.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.stages.iter().flat_map(|s| &s.steps)
    }
}
