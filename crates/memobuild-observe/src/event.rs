//! What happens in a build, as it happens.

use std::time::Duration;

use serde::Serialize;

/// A step as observers know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepInfo {
    /// Its number in the build; all other events name it.
    pub id: usize,
    /// `[stage 2/5] RUN make`.
    pub label: String,
    /// The stage's name or number.
    pub stage: String,
    /// The steps whose trees it takes.
    pub inputs: Vec<usize>,
    /// First line of its instruction, from 1.
    pub line: Option<usize>,
}

/// Which stream a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum StepOutcome {
    /// A known result was taken.
    Cached,
    /// It was executed.
    Executed,
    /// It failed; the text says how.
    Failed {
        /// For a person.
        message: String,
    },
    /// It was stopped because something else failed, or by the user.
    Cancelled,
}

/// One event. Times are the observer's own business: events arrive as they happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum TraceEvent {
    /// The plan is known and its steps begin.
    BuildStarted {
        /// All steps of the plan, inputs before users.
        steps: Vec<StepInfo>,
    },
    /// The first step that needs a sandbox has one.
    SandboxChosen {
        /// How steps are run: `traced`, `exact` or `chroot`.
        mode: String,
        /// Why this way, in one line.
        why: String,
    },
    /// A step is being executed.
    NodeExecuting {
        /// The step.
        step: usize,
        /// Why it runs and is not taken from the cache.
        reason: String,
        /// Whether it, or what stood in its place, has run in this cache before.
        again: bool,
    },
    /// A step's result was taken from the cache.
    NodeCached {
        /// The step.
        step: usize,
    },
    /// A step is over.
    NodeDone {
        /// The step.
        step: usize,
        /// How it ended.
        #[serde(flatten)]
        outcome: StepOutcome,
        /// From its begin to its end.
        #[serde(serialize_with = "millis", rename = "duration_ms")]
        duration: Duration,
    },
    /// A step wrote something.
    NodeOutput {
        /// The step.
        step: usize,
        /// Where to.
        stream: Stream,
        /// What; any bytes, not cut at lines.
        data: Vec<u8>,
    },
    /// A key was found.
    CacheHit {
        /// The step.
        step: usize,
        /// The key, in hexadecimal.
        key: String,
    },
    /// No key was found.
    CacheMiss {
        /// The step.
        step: usize,
        /// The key, in hexadecimal.
        key: String,
    },
    /// Bytes on their way: a pull, an export, an upload. Sent again as they move; `done == total` ends it.
    RemoteSync {
        /// What it is, for a person: `pull debian:12 sha256:0123...`.
        what: String,
        /// Bytes moved so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
        /// Set on the last event of this transfer.
        finished: bool,
    },
    /// A layer of the image is ready.
    LayerBuilt {
        /// Its digest.
        digest: String,
        /// Its size in bytes.
        size: u64,
    },
    /// Something is being written: `exporting to oci image format`.
    Exporting {
        /// What.
        what: String,
        /// Set when it is done.
        finished: bool,
    },
    /// Something that the user should know and the build goes on from.
    Warning {
        /// For a person.
        message: String,
    },
    /// The build fails with this.
    Error {
        /// For a person.
        message: String,
    },
    /// The build is over.
    BuildFinished {
        /// Whether it succeeded.
        ok: bool,
        /// From begin to end.
        #[serde(serialize_with = "millis", rename = "duration_ms")]
        duration: Duration,
        /// Steps taken from the cache.
        cached: usize,
        /// Steps executed.
        executed: usize,
    },
}

fn millis<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(duration.as_secs_f64() * 1000.0)
}

/// Whoever listens to a build. Called from many threads; must be quick.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: TraceEvent);
}

/// Listens and does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: TraceEvent) {}
}

/// Tells several listeners, in their order.
pub struct Several(pub Vec<std::sync::Arc<dyn Observer>>);

impl Observer for Several {
    fn event(&self, event: TraceEvent) {
        if let Some((last, others)) = self.0.split_last() {
            others.iter().for_each(|observer| observer.event(event.clone()));
            last.event(event);
        }
    }
}
