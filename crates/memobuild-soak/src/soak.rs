//! The test: projects, edits, two builds after each, and what is said at the end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    bases::Bases,
    build::{Build, Built},
    compare::differences,
    context::Context,
    edits::{Edit, Editor},
    error::{SoakError, at},
    generate::{self, Source},
    image::Layers,
    project::{Features, Flavor, Project},
};

/// How much is tested, and with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program under test.
    pub memobuild: PathBuf,
    /// Base images are kept here; projects come and go.
    pub work: PathBuf,
    /// Seed of the first project; each further one takes the next.
    pub seed: u64,
    /// Edits in all.
    pub edits: usize,
    /// No new edit after this time.
    pub time: Option<Duration>,
    /// Edits of each project.
    pub per_project: usize,
    /// Projects at a time.
    pub jobs: usize,
    /// Leave the directory of a project with a difference.
    pub keep: bool,
    /// No projects on the full base image, even if it can be made.
    pub small_only: bool,
    /// A kind of fact that the incremental builds are told to leave out.
    pub drop_fact: Option<String>,
}

/// What was done, and found.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Projects that were begun.
    pub projects: usize,
    /// Edits, each followed by two builds.
    pub edits: usize,
    /// Pairs of builds that failed alike.
    pub failed: usize,
    /// Steps that incremental builds ran.
    pub ran: usize,
    /// Steps that they reused.
    pub reused: usize,
    /// RUN steps among these.
    pub runs_reused: usize,
    /// How long it took.
    pub time: Duration,
    /// Edits that were aimed at steps of each entry of the catalogue.
    pub aimed: BTreeMap<&'static str, usize>,
    /// What was said about differences, one text for each project that has one.
    pub differences: Vec<String>,
    /// What could not be tested here.
    pub skipped: Vec<String>,
    /// How steps were run.
    pub mode: String,
}

impl Summary {
    /// One line for programs.
    pub fn json(&self) -> String {
        let steps = self.ran + self.reused;
        json!({
            "edits": self.edits, "projects": self.projects, "failed_builds": self.failed,
            "steps_run": self.ran, "steps_reused": self.reused, "run_steps_reused": self.runs_reused,
            "reused_percent": self.reused * 100 / steps.max(1),
            "seconds": (self.time.as_secs_f64() * 10.0).round() / 10.0,
            "mode": self.mode, "skipped": self.skipped, "differences": self.differences.len(),
        })
        .to_string()
    }

    /// What makes the test fail; none: it passed.
    pub fn failure(&self) -> Option<String> {
        if let Some(first) = self.differences.first() {
            return Some(first.clone());
        }
        (self.edits > 0 && self.runs_reused == 0)
            .then(|| "no RUN step was ever reused, so that this test shows nothing".into())
    }
}

/// Runs the test. `say` is told of what goes on.
///
/// # Errors
/// If the test itself could not go on; differences are no error but part of the summary.
pub fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Summary, SoakError> {
    let begin = Instant::now();
    let mut summary = Summary::default();
    let small = Bases::make(&options.work, Flavor::Small)?;
    let full = if options.small_only {
        None
    } else {
        Bases::make(&options.work, Flavor::Full)
            .map_err(|e| summary.skipped.push(format!("compiler and python: {e}")))
            .ok()
    };
    let mode = mode(options, &small)?;
    let features = small.features(&mode);
    for (name, there) in [
        ("users", features.users),
        ("static programs of our own", features.probe),
        ("io_uring", features.uring),
        ("block counts", features.blocks),
    ] {
        if !there {
            summary.skipped.push(name.to_owned());
        }
    }
    let shared =
        Shared { options, small, full, features, layers: Layers::default(), begin, say, state: Mutex::default() };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(|| shared.work())).collect();
        workers.into_iter().filter_map(|w| w.join().ok().and_then(Result::err)).next()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let state = shared.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Summary { time: begin.elapsed(), skipped: summary.skipped, mode, ..state.summary })
}

/// How steps are run here, found out with a step.
fn mode(options: &Options, bases: &Bases) -> Result<String, SoakError> {
    let dir = tempfile::tempdir_in(&options.work).map_err(at(&options.work))?;
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("context")).map_err(at(dir.path()))?;
    fs::write(path("Dockerfile"), "FROM base\nRUN true\n").map_err(at(dir.path()))?;
    let build =
        Build { memobuild: &options.memobuild, dir: dir.path(), base: bases.layout(0), name: "first", drop_fact: None };
    let built = build.run(&[])?;
    match built.code {
        Some(0) => Ok(built.mode),
        Some(6) => Err(SoakError::NoSandbox(built.error.trim().to_owned())),
        _ => Err(SoakError::FirstBuild(built.error.trim().to_owned())),
    }
}

#[derive(Debug, Default)]
struct State {
    summary: Summary,
    /// Projects and edits that were given out.
    projects: u64,
    edits: usize,
}

struct Shared<'a> {
    options: &'a Options,
    small: Bases,
    full: Option<Bases>,
    features: Features,
    layers: Layers,
    begin: Instant,
    say: &'a (dyn Fn(&str) + Sync),
    state: Mutex<State>,
}

impl Shared<'_> {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn over(&self) -> bool {
        self.options.time.is_some_and(|t| self.begin.elapsed() >= t) || self.with(|s| !s.summary.differences.is_empty())
    }

    fn work(&self) -> Result<(), SoakError> {
        loop {
            let (seed, edits) = self.with(|s| {
                let edits = self.options.per_project.min(self.options.edits.saturating_sub(s.edits));
                let seed = self.options.seed.wrapping_add(s.projects);
                s.edits += edits;
                s.projects += u64::from(edits > 0);
                (seed, edits)
            });
            if edits == 0 || self.over() {
                return Ok(());
            }
            self.with(|s| s.summary.projects += 1);
            self.project(seed, edits)?;
        }
    }

    /// One project with its edits.
    fn project(&self, seed: u64, edits: usize) -> Result<(), SoakError> {
        let (flavor, bases) = match &self.full {
            Some(full) if generate::flavor(seed) == Flavor::Full => (Flavor::Full, full),
            _ => (Flavor::Small, &self.small),
        };
        let mut place = Place::new(&self.options.work, seed)?;
        let mut source = Source::new(seed, flavor, self.features);
        let mut project = generate::project(&mut source, seed, flavor);
        let mut editor = Editor::new(source);
        let mut told: Vec<Vec<Edit>> = Vec::new();
        for number in 0..=edits {
            if number > 0 && self.over() {
                break;
            }
            place.write(&project)?;
            let outcome = place.build(self, bases, &project)?;
            let failed = outcome.incremental.code != Some(0);
            self.with(|s| s.summary.count(number, &outcome, told.last()));
            if !outcome.differences.is_empty() {
                let report = report(self.options, seed, number, &told, &outcome, &mut place);
                (self.say)(&report);
                self.with(|s| s.summary.differences.push(report));
                break;
            }
            told.push(editor.edit(&mut project, failed));
        }
        Ok(())
    }
}

impl Summary {
    fn count(&mut self, number: usize, outcome: &Outcome, edits: Option<&Vec<Edit>>) {
        let built = &outcome.incremental;
        self.failed += usize::from(built.code != Some(0));
        if number == 0 {
            return;
        }
        self.edits += 1;
        self.ran += built.ran.len();
        self.reused += built.reused.len();
        self.runs_reused += built.reused.iter().filter(|label| label.contains("] RUN ")).count();
        for name in edits.into_iter().flatten().filter_map(|e| e.aimed_at) {
            *self.aimed.entry(name).or_default() += 1;
        }
    }
}

/// Two builds of the same thing.
#[derive(Debug, Default)]
struct Outcome {
    incremental: Built,
    differences: Vec<String>,
    /// Whether two builds from nothing differ as well.
    unstable: bool,
}

/// A project on disk.
struct Place {
    dir: tempfile::TempDir,
    context: Context,
}

impl Place {
    fn new(work: &Path, seed: u64) -> Result<Self, SoakError> {
        let dir = tempfile::Builder::new().prefix(&format!("project-{seed}-")).tempdir_in(work).map_err(at(work))?;
        let context = dir.path().join("context");
        fs::create_dir(&context).map_err(at(&context))?;
        Ok(Self { dir, context: Context::default() })
    }

    fn write(&mut self, project: &Project) -> Result<(), SoakError> {
        let context = self.dir.path().join("context");
        project.context.write(&self.context, &context).map_err(at(&context))?;
        self.context = project.context.clone();
        for (path, text) in [("context/.dockerignore", project.dockerignore()), ("Dockerfile", project.dockerfile())] {
            let path = self.dir.path().join(path);
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                fs::write(&path, &text).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    fn build(&self, shared: &Shared<'_>, bases: &Bases, project: &Project) -> Result<Outcome, SoakError> {
        let base = bases.layout(project.base);
        let build = |name, drop_fact| Build {
            memobuild: &shared.options.memobuild,
            dir: self.dir.path(),
            base,
            name,
            drop_fact,
        };
        let image = |build: &Build<'_>| shared.layers.image(&build.output(), 2);
        let long_lived = build("incremental", shared.options.drop_fact.as_deref());
        let incremental = long_lived.run(&project.args)?;
        let fresh = build("fresh", None);
        remove(&fresh)?;
        let truth = fresh.run(&project.args)?;
        let mut outcome = Outcome { incremental, ..Outcome::default() };
        let code = |b: &Built| b.code.map_or("none".to_owned(), |c| c.to_string());
        if outcome.incremental.code != truth.code {
            outcome.differences.push(format!(
                "exit code:\n    {} {}\n    {} {}",
                code(&outcome.incremental),
                outcome.incremental.error.trim(),
                code(&truth),
                truth.error.trim(),
            ));
        } else if truth.code == Some(0) {
            outcome.differences = differences(&image(&long_lived)?, &image(&fresh)?);
        } else if truth.code != Some(1) && truth.code != Some(3) {
            // 1: a step failed; 3: the Dockerfile, of which a source or a user can lack. Others have no reason here.
            outcome.differences.push(format!("both builds end with {}: {}", code(&truth), truth.error.trim()));
        }
        if !outcome.differences.is_empty() {
            let again = build("again", None);
            let second = again.run(&project.args)?;
            outcome.unstable = second.code != truth.code
                || truth.code == Some(0) && !differences(&image(&again)?, &image(&fresh)?).is_empty();
        }
        Ok(outcome)
    }
}

fn remove(build: &Build<'_>) -> Result<(), SoakError> {
    for path in [build.cache(), build.output()] {
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(e)),
            _ => {}
        }
    }
    Ok(())
}

fn report(
    options: &Options,
    seed: u64,
    number: usize,
    told: &[Vec<Edit>],
    outcome: &Outcome,
    place: &mut Place,
) -> String {
    let mut out = format!("seed {seed}, edit {number}: the incremental build (first) differs from one from nothing\n");
    for difference in outcome.differences.iter().take(8) {
        let _ = writeln!(out, "  {difference}");
    }
    if outcome.differences.len() > 8 {
        let _ = writeln!(out, "  and {} more", outcome.differences.len() - 8);
    }
    if outcome.unstable {
        out.push_str("  Two builds from nothing differ as well: a step is no function of its files.\n");
    }
    let _ = writeln!(out, "  edits:");
    for (i, edits) in told.iter().enumerate().rev().take(4).rev() {
        let what: Vec<&str> = edits.iter().map(|e| e.what.as_str()).collect();
        let _ = writeln!(out, "    {}: {}", i + 1, what.join("; "));
    }
    let _ = writeln!(out, "  reused:");
    for label in &outcome.incremental.reused {
        let _ = writeln!(out, "    {}", label.replace('\n', " "));
    }
    if options.keep {
        place.dir.disable_cleanup(true);
        let _ = writeln!(out, "  kept: {}", place.dir.path().display());
    }
    let full = if options.small_only { " --small-only" } else { "" };
    let _ = writeln!(out, "  again: memobuild-soak --seed {seed} --edits {}{full} --keep", number.max(1));
    out
}
