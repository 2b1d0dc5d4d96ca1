//! Builds' records in words and as JSON: what `explain-cache` and `history` have in common.

use std::time::{Duration, SystemTime};

use memobuild_engine::{
    StepReport,
    history::{BuildRecord, FoundBy, Outcome},
};
use serde_json::{Map, Value};

use super::text::{ago, seconds};

/// What a build was of.
pub(crate) fn context(build: &BuildRecord) -> String {
    match &build.dockerfile {
        Some(file) => format!("{} ({file})", build.context),
        None => build.context.clone(),
    }
}

/// What its steps came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Steps that are no sources.
    pub(crate) steps: usize,
    pub(crate) reused: usize,
    /// Executed, well or not, or perhaps to be executed.
    pub(crate) run: usize,
    /// Those of `run` of which that can't be told.
    pub(crate) unknown: usize,
    pub(crate) saved_ms: u64,
}

impl Sums {
    pub(crate) fn of(build: &BuildRecord) -> Self {
        let mut sums = Self::default();
        for step in &build.steps {
            sums.steps += usize::from(step.outcome != Outcome::Source);
            sums.reused += usize::from(step.outcome == Outcome::Hit);
            sums.run += usize::from(step.executed());
            sums.unknown += usize::from(step.outcome == Outcome::Unknown);
            sums.saved_ms = sums.saved_ms.saturating_add(step.saved_ms);
        }
        sums
    }
}

/// A build that is over, in a line, and its error in another.
pub(crate) fn headline(build: &BuildRecord) -> String {
    let (took, when, of) = (time(build.duration_ms), since(build.time), context(build));
    let Sums { steps, run, saved_ms, .. } = Sums::of(build);
    let ended = if build.ok { "done in" } else { "failed after" };
    let ran = format!("{run} of {steps} steps ran, {} saved", time(saved_ms));
    let mut out = format!("Build {} of {of}, {when}: {ended} {took}; {ran}\n", build.id);
    if let Some(error) = &build.error {
        out.push_str(error.lines().next().unwrap_or_default());
        out.push('\n');
    }
    out
}

/// The same as JSON, without its steps.
pub(crate) fn head(build: &BuildRecord) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.into(), value);
    };
    put("build", build.id.as_str().into());
    put("time", memobuild_image::time::rfc3339(build.time, 0).into());
    put("context", build.context.as_str().into());
    put("dockerfile", build.dockerfile.as_deref().into());
    put("targets", build.targets.clone().into());
    put("ok", build.ok.into());
    put("error", build.error.as_deref().into());
    put("durationMs", build.duration_ms.into());
    out
}

/// `35ms`, `2.4s`.
pub(crate) fn time(millis: u64) -> String {
    if millis < 1000 { format!("{millis}ms") } else { seconds(Duration::from_millis(millis)) }
}

/// How long ago something was, in seconds since 1970.
pub(crate) fn since(secs: i64) -> String {
    let then = u64::try_from(secs).ok().and_then(|secs| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs)));
    then.map_or_else(|| "at some time".into(), |then| ago(then, SystemTime::now()))
}

/// The state of a step in one word.
pub(crate) fn word(outcome: Outcome, ahead: bool) -> &'static str {
    match outcome {
        Outcome::Source => "source",
        Outcome::Hit => "hit",
        Outcome::Ran if ahead => "would run",
        Outcome::Ran => "ran",
        Outcome::Failed => "failed",
        Outcome::NotReached => "not reached",
        Outcome::Unknown => "unknown",
    }
}

pub(crate) fn colour_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "32",
        Outcome::Ran => "33",
        Outcome::Failed => "31",
        Outcome::Source | Outcome::NotReached | Outcome::Unknown => "90",
    }
}

/// How a result was found, as JSON has it.
pub(crate) fn found(step: &StepReport) -> Option<&'static str> {
    step.found.map(|found| match found {
        FoundBy::Exact => "exact",
        FoundBy::Parts => "parts",
        FoundBy::Facts => "facts",
    })
}

/// Why a result could be taken, as a person says it.
pub(crate) fn same(found: Option<FoundBy>) -> &'static str {
    match found {
        Some(FoundBy::Exact) => "all that it works on is the same",
        Some(FoundBy::Parts) => "what it uses is the same",
        Some(FoundBy::Facts) | None => "all that it looks at is the same",
    }
}

/// Labels may span lines.
pub(crate) fn one_line(label: &str) -> String {
    label.split_whitespace().collect::<Vec<_>>().join(" ")
}
