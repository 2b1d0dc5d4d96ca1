//! What is known of builds, as the API shows it. Times are milliseconds since 1970.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

use super::BatchError;

/// A build's name among all: 8 to 64 of `0-9`, `a-z` and `-`, made up by its client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BuildId(String);

impl BuildId {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = BatchError;

    fn from_str(text: &str) -> Result<Self, BatchError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match (8..=64).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(BatchError::Id(text.chars().take(100).collect())),
        }
    }
}

/// Declares an enum of states with their names, which the API and the database share.
macro_rules! states {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// As the API has it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The state of that name.
            pub(crate) fn of(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }
    };
}

states! {
    /// How far a build is.
    BuildState {
        /// Events still come.
        Running = "running",
        /// It is over, and did what it should.
        Succeeded = "succeeded",
        /// It is over, with an error.
        Failed = "failed",
        /// It was stopped.
        Cancelled = "cancelled",
        /// It began, and nothing was heard of it for long.
        Lost = "lost",
    }
}

states! {
    /// How far a step is.
    StepState {
        /// It has not begun.
        Pending = "pending",
        /// It is being executed.
        Running = "running",
        /// Its result was taken from a cache.
        Cached = "cached",
        /// It brought something in that is no result of a step: a base image, a context.
        Loaded = "loaded",
        /// It was executed.
        Done = "done",
        /// It failed.
        Failed = "failed",
        /// It was stopped.
        Cancelled = "cancelled",
        /// The build ended before it began.
        Skipped = "skipped",
    }
}

/// How many steps are how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// Those that are over, however they ended.
    pub ended: u64,
    /// Those being executed.
    pub running: u64,
    /// Those taken from a cache.
    pub cached: u64,
    /// Those that were executed.
    pub executed: u64,
    /// Those that failed.
    pub failed: u64,
}

/// A build, without its steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Its place in the order in which builds began; a page of the list ends with one.
    pub number: i64,
    /// What it builds, in its client's words.
    pub name: String,
    /// The name of the token that it was told with; `-` without one.
    pub client: String,
    /// How far it is.
    pub state: BuildState,
    /// When the first event came.
    pub started: i64,
    /// When the last one came.
    pub updated: i64,
    /// From begin to end, in milliseconds, once it is over.
    pub duration_ms: Option<f64>,
    /// Its steps, counted.
    pub steps: Counts,
    /// About how long the steps that were taken from a cache took when they were last executed, in milliseconds.
    pub saved_ms: f64,
    /// What it failed with.
    pub error: Option<String>,
    /// How its steps are run.
    #[serde(skip)]
    pub sandbox: Option<String>,
    /// What its user was told.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// The number of the event that comes next.
    #[serde(skip)]
    pub next: u64,
}

/// A step of a build, without its output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its number in the build.
    pub id: u32,
    /// `[stage 2/5] RUN make`.
    pub label: String,
    /// The stage.
    pub stage: String,
    /// First line of its instruction, from 1.
    pub line: Option<u32>,
    /// The steps whose trees it takes; all of them have rows of their own.
    pub inputs: Vec<u32>,
    /// How far it is.
    pub state: StepState,
    /// Why it was executed and not taken from a cache.
    pub reason: Option<String>,
    /// Whether it had been executed before.
    pub again: bool,
    /// When it began.
    pub began: Option<i64>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<f64>,
    /// How long it took when it was last executed, if it was taken from a cache now, in milliseconds.
    pub saved_ms: f64,
    /// What it failed with.
    pub message: Option<String>,
}

/// The end of a step's output, made readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The step.
    pub step: u32,
    /// Lines; escape sequences are gone.
    pub text: String,
    /// Whether more was written before it.
    pub cut: bool,
}

/// A layer of an image that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes, compressed.
    pub size: u64,
}

/// A layer, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerUse {
    /// The layer.
    #[serde(flatten)]
    pub layer: Layer,
    /// In how many builds it was made.
    pub builds: u64,
    /// The last of them.
    pub build: BuildId,
    /// Its name.
    pub name: String,
}

/// A build with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detail {
    /// The build.
    #[serde(flatten)]
    pub build: Build,
    /// How its steps are run: `traced: ...`.
    pub sandbox: Option<String>,
    /// What its user was told.
    pub warnings: Vec<String>,
    /// Its steps, in the plan's order.
    pub plan: Vec<Step>,
    /// Ends of their outputs.
    pub logs: Vec<Output>,
    /// The image's layers.
    pub layers: Vec<Layer>,
}

impl Detail {
    /// Out of its parts.
    pub(super) fn new(mut build: Build, steps: Steps, logs: Vec<Output>, layers: Vec<Layer>) -> Self {
        let (sandbox, warnings) = (build.sandbox.take(), std::mem::take(&mut build.warnings));
        Self { build, sandbox, warnings, plan: steps.into_values().collect(), logs, layers }
    }
}

/// What a batch of events changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The build as it is now.
    pub build: Build,
    /// The steps that changed, as they are now.
    pub steps: Vec<Step>,
    /// The steps are other ones than before: what is known of them is to be asked for again.
    pub replaced: bool,
    /// Ends of the outputs that grew.
    pub logs: Vec<Output>,
    /// Whether the build ended with this.
    pub ended: bool,
}

/// Sums over builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Totals {
    /// How many.
    pub builds: u64,
    /// Those that did what they should.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Steps taken from a cache.
    pub cached: u64,
    /// Steps executed, failed ones included.
    pub executed: u64,
    /// Milliseconds saved.
    pub saved_ms: f64,
    /// Milliseconds that builds took.
    pub duration_ms: f64,
}

impl Totals {
    /// The share of steps that were taken from a cache, 0 to 1; `None` without any step.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.cached + self.executed;
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        (all > 0).then(|| self.cached as f64 / all as f64)
    }
}

/// A day's sums.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// `2024-05-31`, UTC.
    pub day: String,
    /// The sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Sums over some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Analytics {
    /// Over all of it.
    pub totals: Totals,
    /// By day, the oldest first; days without a build are left out.
    pub days: Vec<Day>,
    /// Builds under way.
    pub running: u64,
}

/// Steps by their numbers.
pub(super) type Steps = BTreeMap<u32, Step>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_none_are_refused() {
        assert!("0123456789abcdef".parse::<BuildId>().is_ok());
        assert!("6f1b0c1e-5d3a-4d0e-9a53-6c0c1f1c7c11".parse::<BuildId>().is_ok());
        let long = "a".repeat(65);
        for bad in ["", "short", "../../etc/passwd", "ABCDEFGH", "a b c d e f", "<img src=x>", "abcdefg\0", &long] {
            assert!(bad.parse::<BuildId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_states_lead_back() {
        for state in [StepState::Pending, StepState::Loaded, StepState::Skipped] {
            assert_eq!(StepState::of(state.name()), Some(state));
        }
        assert_eq!(BuildState::of("lost"), Some(BuildState::Lost));
        assert_eq!(BuildState::of("Lost"), None);
    }
}
