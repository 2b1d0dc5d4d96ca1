//! memobuild as a program uses it that has it as a library: a context and a store in a directory, builds, and all that an
//! observer was told.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

#[path = "../listing/mod.rs"]
mod listing;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use memobuild::{
    BuildOutcome, BuildRequest, Cancel, ContextInput, Destination, EngineError, Observer, Output, OutputKind,
    StepOutcome, StepReport, Store, TraceEvent,
};

/// Keeps what it is told.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<TraceEvent>>);

impl Observer for Recorder {
    fn event(&self, event: TraceEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    /// What it was told so far.
    pub fn events(&self) -> Vec<TraceEvent> {
        self.0.lock().unwrap().clone()
    }
}

/// A context, and a store beside it.
pub struct Project {
    dir: tempfile::TempDir,
    /// What every build is asked for besides.
    pub request: BuildRequest,
}

/// How a build went, and what was told on the way.
#[derive(Debug)]
pub struct Built {
    pub result: Result<BuildOutcome, EngineError>,
    pub events: Vec<TraceEvent>,
}

impl Project {
    pub fn new(dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut request =
            BuildRequest { context: ContextInput::Directory(dir.path().join("work")), ..Default::default() };
        request.options.build_args = BTreeMap::new();
        let project = Self { dir, request };
        project.write("Dockerfile", dockerfile);
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    /// Beside the context.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Replaces a part of the Dockerfile.
    pub fn replace(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.path("Dockerfile")).unwrap();
        assert!(text.contains(old), "no {old:?} in {text}");
        self.write("Dockerfile", &text.replace(old, new));
    }

    pub fn store(&self) -> Store {
        Store::open(&self.beside("store")).unwrap()
    }

    /// A build, as the request stands.
    pub fn try_build(&self) -> Built {
        self.run(&self.request, &Cancel::new(), &Arc::new(Recorder::default()), false)
    }

    /// One that must succeed.
    #[track_caller]
    pub fn build(&self) -> Built {
        let built = self.try_build();
        assert!(built.result.is_ok(), "{built:?}");
        built
    }

    /// What a build would do.
    #[track_caller]
    pub fn foresee(&self) -> Built {
        let built = self.run(&self.request, &Cancel::new(), &Arc::new(Recorder::default()), true);
        assert!(built.result.is_ok(), "{built:?}");
        built
    }

    /// One that others can watch and end.
    pub fn run(&self, request: &BuildRequest, cancel: &Cancel, recorder: &Arc<Recorder>, dry: bool) -> Built {
        let store = self.store();
        let observer: Arc<dyn Observer> = recorder.clone();
        let work = || match dry {
            true => memobuild::dry_run(&store, request, &observer),
            false => memobuild::build(&store, request, &observer, cancel),
        };
        // Trees may be deep, and whoever handles them recurses.
        let result = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(memobuild_tree::codec::STACK);
            thread.spawn_scoped(scope, work).unwrap().join().unwrap()
        });
        Built { result, events: recorder.events() }
    }

    /// The root file system that a build gives, as lines of path, mode, and content or target.
    #[track_caller]
    pub fn tree(&self) -> BTreeMap<String, String> {
        let out = self.beside("out");
        let _ = fs::remove_dir_all(&out);
        let output = Output { dest: Some(Destination::Path(out.clone())), ..Output::new(OutputKind::Local) };
        let request = BuildRequest { outputs: vec![output], ..self.request.clone() };
        let built = self.run(&request, &Cancel::new(), &Arc::new(Recorder::default()), false);
        assert!(built.result.is_ok(), "{built:?}");
        listing::lines(&out)
    }
}

impl Built {
    /// The commands of its steps, as they are numbered.
    pub fn labels(&self) -> Vec<String> {
        let started = self.events.iter().find_map(|event| match event {
            TraceEvent::BuildStarted { steps } => Some(steps.iter().map(|step| command(&step.label)).collect()),
            _ => None,
        });
        started.unwrap_or_default()
    }

    /// The steps that ended so, in the order in which they did.
    fn ended(&self, wanted: impl Fn(&StepOutcome) -> bool) -> Vec<String> {
        let labels = self.labels();
        let done = self.events.iter().filter_map(|event| match event {
            TraceEvent::NodeDone { step, outcome, .. } if wanted(outcome) => Some(labels[*step].clone()),
            _ => None,
        });
        done.collect()
    }

    pub fn cached(&self) -> Vec<String> {
        self.ended(|outcome| *outcome == StepOutcome::Cached).into_iter().filter(|label| !is_source(label)).collect()
    }

    /// What ran, in the order of the plan: steps side by side end in any order.
    pub fn executed(&self) -> Vec<String> {
        let ran = self.ended(|outcome| *outcome == StepOutcome::Executed);
        self.labels().into_iter().filter(|label| ran.contains(label)).collect()
    }

    pub fn failed(&self) -> Vec<String> {
        self.ended(|outcome| matches!(outcome, StepOutcome::Failed { .. }))
    }

    pub fn cancelled(&self) -> Vec<String> {
        self.ended(|outcome| *outcome == StepOutcome::Cancelled)
    }

    /// What steps wrote, all together.
    pub fn output(&self) -> String {
        let mut out = Vec::new();
        for event in &self.events {
            if let TraceEvent::NodeOutput { data, .. } = event {
                out.extend_from_slice(data);
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The report of the one step whose label ends so.
    #[track_caller]
    pub fn report(&self, end: &str) -> &StepReport {
        let steps = &self.result.as_ref().unwrap().steps;
        let found: Vec<&StepReport> = steps.iter().filter(|step| step.label.ends_with(end)).collect();
        assert_eq!(found.len(), 1, "{end:?}: {:?}", steps.iter().map(|step| &step.label).collect::<Vec<_>>());
        found[0]
    }
}

/// Contexts and base images, which are there and neither run nor are reused.
fn is_source(label: &str) -> bool {
    !["RUN ", "COPY ", "ADD ", "WORKDIR "].iter().any(|instruction| label.starts_with(instruction))
}

/// `RUN make` of `[build 2/5] RUN make`.
fn command(label: &str) -> String {
    label.split_once("] ").map_or(label, |(_, command)| command).to_owned()
}
