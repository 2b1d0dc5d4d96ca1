//! What steps of random projects do: one entry for each way to depend on files.
//!
//! An entry makes steps that stand in the Dockerfile in this order, with others between them. Each writes what it saw to
//! `/out/s<number>`, so that a result that was reused wrongly shows. Each names the edits that change its outcome, so
//! that such edits happen often enough ([`Poke`]).
//!
//! Every entry is a function of its files, and only of those; the head of the crate lists what is left out for that.

mod changes;
mod config;
mod copies;
mod looks;
mod marks;
mod programs;
mod times;
mod users;

use crate::{
    context::{Context, Entry},
    project::{Features, Flavor, Poke, Step},
    rng::Rng,
};

/// What an entry needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// More than one user id.
    Users,
    /// The program `probe`.
    Probe,
    /// io_uring, and the probe.
    Uring,
    /// Block counts that are computed.
    Blocks,
    /// The full base image.
    Full,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// What it is called in Dockerfiles and summaries.
    pub name: &'static str,
    /// What it needs.
    pub need: Need,
    make: fn(&mut Draw<'_>) -> Vec<Step>,
}

const fn entry(name: &'static str, need: Need, make: fn(&mut Draw<'_>) -> Vec<Step>) -> Way {
    Way { name, need, make }
}

/// All entries.
pub fn all() -> Vec<Way> {
    [looks::ENTRIES, marks::ENTRIES, changes::ENTRIES, times::ENTRIES, users::ENTRIES, copies::ENTRIES]
        .into_iter()
        .chain([config::ENTRIES, programs::ENTRIES])
        .flatten()
        .copied()
        .collect()
}

impl Way {
    /// Whether it can be used.
    pub fn fits(&self, flavor: Flavor, features: Features) -> bool {
        match self.need {
            Need::Nothing => true,
            Need::Users => features.users,
            Need::Probe => features.probe,
            Need::Uring => features.uring,
            Need::Blocks => features.blocks,
            Need::Full => flavor == Flavor::Full,
        }
    }

    /// Makes its steps.
    pub fn draw(&self, draw: &mut Draw<'_>) -> Vec<Step> {
        draw.name = self.name;
        (self.make)(draw)
    }
}

/// What an entry chooses from, and where it leaves files that its steps need.
#[derive(Debug)]
pub struct Draw<'a> {
    /// For choices.
    pub rng: &'a mut Rng,
    /// The files of the project; new ones are added.
    pub context: &'a mut Context,
    /// Numbers that were not used yet, for names.
    pub next: &'a mut u32,
    /// Stages that can be copied from.
    pub stages: Vec<String>,
    name: &'static str,
}

impl<'a> Draw<'a> {
    /// For a stage after these.
    pub fn new(rng: &'a mut Rng, context: &'a mut Context, next: &'a mut u32, stages: Vec<String>) -> Self {
        Self { rng, context, next, stages, name: "" }
    }

    fn id(&mut self) -> u32 {
        *self.next += 1;
        *self.next
    }

    /// A text file of the context.
    fn file(&mut self) -> String {
        let of = |p: &&str| ["a/", "b/", "data/"].iter().any(|d| p.starts_with(d)) && !p.ends_with(".tar");
        let files: Vec<String> = self.context.files().into_iter().filter(of).map(str::to_owned).collect();
        self.rng.pick(&files).cloned().unwrap_or_else(|| "a/f0.txt".into())
    }

    /// A directory of the context with text files.
    fn dir(&mut self) -> String {
        self.rng.word(&["a", "a/deep", "b", "b/x", "data", "data/sub"])
    }

    /// A path that is not there, mostly: edits make it.
    fn absent(&mut self) -> String {
        let (dir, n) = (self.dir(), self.rng.below(4));
        format!("{dir}/extra{n}.txt")
    }

    /// A file of the context that an earlier step decides by: its path and the edit of it.
    fn knob(&mut self, values: &[&'static str]) -> (String, Poke) {
        let path = format!("conf/k{}", self.id());
        self.context.put(&path, Entry::file(values.first().copied().unwrap_or_default()));
        (format!("/src/{path}"), Poke::Knob(path, values.to_vec()))
    }

    /// A RUN of these lines, which must be complete commands, whose output is kept.
    fn run(&mut self, lines: &[String], pokes: Vec<Poke>) -> Step {
        self.run_with("", lines, pokes)
    }

    /// With flags.
    fn run_with(&mut self, flags: &str, lines: &[String], pokes: Vec<Poke>) -> Step {
        let id = self.id();
        let lines = vec![self.instruction(flags, id, lines)];
        Step { name: self.name, lines, pokes }
    }

    /// The text of a RUN that writes to `/out/s<id>`.
    fn instruction(&mut self, flags: &str, id: u32, lines: &[String]) -> String {
        let mut all = vec![format!("exec >/out/s{id} 2>&1")];
        all.extend_from_slice(lines);
        all.push("true".into());
        if self.rng.percent(60) {
            format!("RUN {flags}<<'END{id}'\n{}\nEND{id}", all.join("\n"))
        } else {
            format!("RUN {flags}{}", all.join("; \\\n    "))
        }
    }

    /// A step of plain instructions.
    fn plain(&self, lines: Vec<String>, pokes: Vec<Poke>) -> Step {
        Step { name: self.name, lines, pokes }
    }
}

/// `format!` for the lines of a script.
macro_rules! lines {
    ($($line:expr),* $(,)?) => { &[$(format!($line)),*] };
}
use lines;
