//! What takes time in a build: when each step, transfer and export began, and when and how it ended.
//!
//! In: [`TraceEvent`]s with the times at which they came. Out: [`Change`]s. The trace file, the log and the spans that
//! are sent by OTLP are made from it; it knows none of these forms.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use memobuild_observe::{StepInfo, StepOutcome, TraceEvent};

/// Something that takes time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Tells it from all others of its build.
    pub(crate) number: usize,
    /// When it began, since the build did.
    pub(crate) began: Duration,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Build,
    Step {
        info: StepInfo,
        /// Why it is executed; none if it is not.
        reason: Option<String>,
    },
    Transfer {
        name: String,
        bytes: u64,
    },
    Export {
        name: String,
    },
}

impl Span {
    /// What it is called by.
    pub(crate) fn name(&self) -> &str {
        match &self.what {
            What::Build => "build",
            What::Step { info, .. } => &info.label,
            What::Transfer { name, .. } | What::Export { name } => name,
        }
    }
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Step(StepOutcome),
    Build {
        ok: bool,
        cached: usize,
        executed: usize,
    },
    /// A transfer or an export is done.
    Done,
    /// A transfer or an export was under way when the build ended.
    Stopped,
}

/// Something that takes no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    Layer { digest: String, size: u64 },
    Warning(String),
    Error(String),
}

/// What an event changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Began(Span),
    Ended(Span, End),
    Noted(Note),
}

/// All that is under way.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    steps: HashMap<usize, StepInfo>,
    running: BTreeMap<usize, Span>,
    transfers: BTreeMap<String, Span>,
    exports: BTreeMap<String, Span>,
    /// Bytes of transfers that are over.
    over: HashMap<String, u64>,
    next: usize,
}

impl Timeline {
    /// Takes an event that came at that time.
    pub(crate) fn apply(&mut self, at: Duration, event: TraceEvent) -> Vec<Change> {
        let mut changes = Vec::new();
        match event {
            TraceEvent::BuildStarted { steps } => {
                // A second round, past damage in the cache: nothing of the first goes on.
                self.cancel(&mut changes);
                self.steps = steps.into_iter().map(|step| (step.id, step)).collect();
            }
            TraceEvent::NodeExecuting { step, reason, .. } => {
                // Taken up again, for what it yielded was of no use.
                let before = self.running.remove(&step);
                changes.extend(before.map(|span| Change::Ended(span, End::Step(StepOutcome::Cancelled))));
                let span = self.step(step, at, Some(reason), &mut changes);
                self.running.insert(step, span);
            }
            TraceEvent::NodeDone { step, outcome, duration } => {
                let span = match self.running.remove(&step) {
                    Some(span) => span,
                    // One that was taken from the cache was never seen to begin.
                    None => self.step(step, at.saturating_sub(duration), None, &mut changes),
                };
                changes.push(Change::Ended(span, End::Step(outcome)));
            }
            TraceEvent::RemoteSync { what, done, finished, .. } => self.moved(at, what, done, finished, &mut changes),
            TraceEvent::Exporting { what, finished } => {
                if !self.exports.contains_key(&what) {
                    let span = self.begin(at, What::Export { name: what.clone() }, &mut changes);
                    self.exports.insert(what.clone(), span);
                }
                if finished {
                    let ended = self.exports.remove(&what);
                    changes.extend(ended.map(|span| Change::Ended(span, End::Done)));
                }
            }
            TraceEvent::LayerBuilt { digest, size } => changes.push(Change::Noted(Note::Layer { digest, size })),
            TraceEvent::Warning { message } => changes.push(Change::Noted(Note::Warning(message))),
            TraceEvent::Error { message } => changes.push(Change::Noted(Note::Error(message))),
            TraceEvent::BuildFinished { ok, duration, cached, executed } => {
                self.cancel(&mut changes);
                let left = std::mem::take(&mut self.transfers).into_values();
                let left = left.chain(std::mem::take(&mut self.exports).into_values());
                changes.extend(left.map(|span| Change::Ended(span, End::Stopped)));
                let span = Span { number: self.number(), began: at.saturating_sub(duration), what: What::Build };
                changes.push(Change::Ended(span, End::Build { ok, cached, executed }));
            }
            TraceEvent::SandboxChosen { .. }
            | TraceEvent::NodeCached { .. }
            | TraceEvent::NodeOutput { .. }
            | TraceEvent::CacheHit { .. }
            | TraceEvent::CacheMiss { .. } => {}
        }
        changes
    }

    /// What is known of a step.
    pub(crate) fn info(&self, step: usize) -> Option<&StepInfo> {
        self.steps.get(&step)
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn begin(&mut self, at: Duration, what: What, changes: &mut Vec<Change>) -> Span {
        let span = Span { number: self.number(), began: at, what };
        changes.push(Change::Began(span.clone()));
        span
    }

    fn step(&mut self, step: usize, at: Duration, reason: Option<String>, changes: &mut Vec<Change>) -> Span {
        let info = self.steps.get(&step).cloned().unwrap_or_else(|| StepInfo {
            id: step,
            label: format!("step {step}"),
            stage: String::new(),
            inputs: Vec::new(),
            line: None,
        });
        self.begin(at, What::Step { info, reason }, changes)
    }

    fn moved(&mut self, at: Duration, name: String, done: u64, finished: bool, changes: &mut Vec<Change>) {
        // An event may come behind the end. Fewer bytes than before mean that the transfer began anew.
        let is_over = self.over.get(&name).is_some_and(|before| finished || done >= *before);
        if is_over && !self.transfers.contains_key(&name) {
            return;
        }
        let mut span = match self.transfers.remove(&name) {
            Some(span) => span,
            None => self.begin(at, What::Transfer { name: name.clone(), bytes: done }, changes),
        };
        if let What::Transfer { bytes, .. } = &mut span.what {
            *bytes = done;
        }
        if finished {
            self.over.insert(name, done);
            changes.push(Change::Ended(span, End::Done));
        } else {
            self.over.remove(&name);
            self.transfers.insert(name, span);
        }
    }

    /// No step that runs goes on.
    fn cancel(&mut self, changes: &mut Vec<Change>) {
        let left = std::mem::take(&mut self.running).into_values();
        changes.extend(left.map(|span| Change::Ended(span, End::Step(StepOutcome::Cancelled))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Changes in short.
    fn told(timeline: &mut Timeline, at: u64, event: TraceEvent) -> Vec<String> {
        let one = |change: Change| match change {
            Change::Began(span) => format!("+{}@{}", span.name(), span.began.as_millis()),
            Change::Ended(span, end) => {
                let end = format!("{end:?}");
                let bytes = match span.what {
                    What::Transfer { bytes, .. } => format!(" {bytes}"),
                    _ => String::new(),
                };
                format!("-{}{bytes} {}", span.name(), end.split([' ', '(', '{']).next().unwrap())
            }
            Change::Noted(note) => format!("{note:?}"),
        };
        timeline.apply(MS(at), event).into_iter().map(one).collect()
    }

    fn runs(step: usize) -> TraceEvent {
        TraceEvent::NodeExecuting { step, reason: "new".into(), again: false }
    }

    fn done(step: usize, ms: u64) -> TraceEvent {
        TraceEvent::NodeDone { step, outcome: StepOutcome::Executed, duration: MS(ms) }
    }

    fn moved(done: u64, finished: bool) -> TraceEvent {
        TraceEvent::RemoteSync { what: "pull".into(), done, total: None, finished }
    }

    #[test]
    fn a_step_begins_when_it_is_executed_or_else_so_long_before_its_end() {
        let mut timeline = Timeline::default();
        let info = StepInfo { id: 3, label: "RUN x".into(), stage: "s".into(), inputs: Vec::new(), line: Some(1) };
        assert!(told(&mut timeline, 0, TraceEvent::BuildStarted { steps: vec![info] }).is_empty());
        assert_eq!(told(&mut timeline, 10, runs(3)), ["+RUN x@10"]);
        assert_eq!(told(&mut timeline, 30, done(3, 5)), ["-RUN x Step"]);
        assert_eq!(told(&mut timeline, 40, done(4, 15)), ["+step 4@25", "-step 4 Step"]);
        assert_eq!(told(&mut timeline, 50, runs(3)), ["+RUN x@50"]);
        assert_eq!(told(&mut timeline, 60, runs(3)), ["-RUN x Step", "+RUN x@60"]);
    }

    #[test]
    fn a_transfer_ends_once_and_may_begin_anew() {
        let mut timeline = Timeline::default();
        assert_eq!(told(&mut timeline, 1, moved(0, false)), ["+pull@1"]);
        assert!(told(&mut timeline, 2, moved(7, false)).is_empty());
        assert_eq!(told(&mut timeline, 3, moved(10, true)), ["-pull 10 Done"]);
        for late in [true, false] {
            assert!(told(&mut timeline, 4, moved(10, late)).is_empty());
        }
        assert_eq!(told(&mut timeline, 5, moved(2, false)), ["+pull@5"]);
        assert_eq!(told(&mut timeline, 6, moved(9, true)), ["-pull 9 Done"]);
    }

    #[test]
    fn what_is_under_way_ends_with_the_build() {
        let mut timeline = Timeline::default();
        told(&mut timeline, 1, runs(0));
        told(&mut timeline, 1, moved(1, false));
        told(&mut timeline, 1, TraceEvent::Exporting { what: "image".into(), finished: false });
        let finished = TraceEvent::BuildFinished { ok: false, duration: MS(9), cached: 0, executed: 0 };
        let all = ["-step 0 Step", "-pull 1 Stopped", "-image Stopped", "-build Build"];
        assert_eq!(told(&mut timeline, 9, finished), all);
    }

    #[test]
    fn an_export_begins_and_ends() {
        let mut timeline = Timeline::default();
        let export = |finished| TraceEvent::Exporting { what: "image".into(), finished };
        assert_eq!(told(&mut timeline, 1, export(false)), ["+image@1"]);
        let layer = TraceEvent::LayerBuilt { digest: "d".into(), size: 1 };
        assert_eq!(told(&mut timeline, 2, layer), ["Layer { digest: \"d\", size: 1 }"]);
        assert_eq!(told(&mut timeline, 3, export(true)), ["-image Done"]);
    }

    #[test]
    fn a_second_round_ends_what_runs() {
        let mut timeline = Timeline::default();
        told(&mut timeline, 1, runs(0));
        assert_eq!(told(&mut timeline, 2, TraceEvent::BuildStarted { steps: Vec::new() }), ["-step 0 Step"]);
    }
}
