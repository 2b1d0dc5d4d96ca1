//! `--trace-file`: what a build spent its time on, as a file that Perfetto and chrome://tracing open.
//!
//! The Trace Event Format (Google, "JSON Array Format"): one object a line, times in microseconds since the build began. A
//! step is a complete event (`X`) on a lane that no other step is on at the time; a transfer or an export is a pair of
//! asynchronous ones (`b`, `e`), as they overlap with all else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use memobuild_observe::{Observer, TraceEvent};
use serde_json::{Value, json};

use crate::telemetry::timeline::{Change, End, Note, Span, Timeline, What};

/// Writes a build's events to a file.
pub(crate) struct TraceFile {
    began: Instant,
    state: Mutex<Lines<BufWriter<File>>>,
}

impl TraceFile {
    /// Makes the file, or empties it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::new(File::create(path)?);
        Ok(Self { began: Instant::now(), state: Mutex::new(Lines::new(out)) })
    }

    /// Ends the file; what could not be written before is told here.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }
}

impl Observer for TraceFile {
    fn event(&self, event: TraceEvent) {
        // Output is the bulk of all events, and not in the file.
        if !matches!(event, TraceEvent::NodeOutput { .. }) {
            let at = self.began.elapsed();
            self.state.lock().unwrap_or_else(PoisonError::into_inner).event(at, event);
        }
    }
}

/// The lines of the file.
struct Lines<W: Write> {
    out: W,
    any: bool,
    failed: Option<io::Error>,
    timeline: Timeline,
    /// Of steps under way, by the numbers of their spans.
    lanes: BTreeMap<usize, usize>,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        Self { out, any: false, failed: None, timeline: Timeline::default(), lanes: BTreeMap::new() }
    }

    fn write(&mut self, event: &Value) {
        if self.failed.is_none() {
            let open = if self.any { ",\n" } else { "[\n" };
            self.any = true;
            self.failed = write!(self.out, "{open}{event}").err();
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.out.write_all(if self.any { b"\n]\n" } else { b"[]\n" })?;
        self.out.flush()
    }

    /// The lowest lane that is free; 0 is for what belongs to no step.
    fn lane(&self) -> usize {
        let taken: BTreeSet<usize> = self.lanes.values().copied().collect();
        (1..).find(|lane| !taken.contains(lane)).unwrap_or(1)
    }

    fn event(&mut self, at: Duration, event: TraceEvent) {
        for change in self.timeline.apply(at, event) {
            match change {
                Change::Began(span) => self.began(at, &span),
                Change::Ended(span, end) => self.ended(at, &span, &end),
                Change::Noted(note) => self.noted(at, note),
            }
        }
    }

    fn began(&mut self, at: Duration, span: &Span) {
        match span.what {
            What::Step { .. } => {
                let lane = self.lane();
                self.lanes.insert(span.number, lane);
            }
            What::Transfer { .. } | What::Export { .. } => self.half(at, span, "b"),
            What::Build => {}
        }
    }

    fn ended(&mut self, at: Duration, span: &Span, end: &End) {
        let (cat, lane, args) = match (&span.what, end) {
            (What::Step { info, reason }, End::Step(outcome)) => {
                let mut args = serde_json::to_value(outcome).unwrap_or_default();
                if let Value::Object(args) = &mut args {
                    args.insert("step".into(), info.id.into());
                    args.insert("stage".into(), info.stage.as_str().into());
                    args.extend(reason.as_deref().map(|reason| ("why".to_owned(), reason.into())));
                }
                ("step", self.lanes.remove(&span.number).unwrap_or_default(), args)
            }
            (_, End::Build { ok, cached, executed }) => {
                ("build", 0, json!({ "ok": ok, "cached": cached, "executed": executed }))
            }
            _ => return self.half(at, span, "e"),
        };
        self.write(&json!({
            "name": span.name(), "cat": cat, "ph": "X", "pid": 1, "tid": lane,
            "ts": micros(span.began), "dur": micros(at.saturating_sub(span.began)), "args": args,
        }));
    }

    /// The begin or the end of what overlaps with all else.
    fn half(&mut self, at: Duration, span: &Span, phase: &str) {
        let (cat, bytes) = match span.what {
            What::Transfer { bytes, .. } => ("transfer", Some(bytes)),
            _ => ("export", None),
        };
        let (name, id) = (span.name(), format!("{cat}:{}", span.name()));
        self.write(&json!({
            "name": name, "cat": cat, "ph": phase, "pid": 1, "tid": 0, "id": id, "ts": micros(at),
            "args": { "bytes": bytes },
        }));
    }

    fn noted(&mut self, at: Duration, note: Note) {
        let (name, args) = match note {
            Note::Layer { digest, size } => ("layer", json!({ "digest": digest, "bytes": size })),
            Note::Warning(message) => ("warning", json!({ "message": message })),
            Note::Error(message) => ("error", json!({ "message": message })),
        };
        self.write(&json!({
            "name": name, "cat": "note", "ph": "i", "s": "p", "pid": 1, "tid": 0, "ts": micros(at), "args": args,
        }));
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use memobuild_observe::{StepInfo, StepOutcome};

    use super::*;

    fn step(id: usize, label: &str) -> StepInfo {
        StepInfo { id, label: label.into(), stage: "app".into(), inputs: vec![], line: None }
    }

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn steps_at_the_same_time_are_on_lanes_of_their_own() {
        let mut lines = Lines::new(Vec::new());
        let started = TraceEvent::BuildStarted { steps: vec![step(0, "FROM a"), step(1, "RUN b"), step(2, "RUN c")] };
        let runs = |step| TraceEvent::NodeExecuting { step, reason: "x changed".into(), again: true };
        let done = |step, outcome, s| TraceEvent::NodeDone { step, outcome, duration: seconds(s) };
        let sync = |done, finished| TraceEvent::RemoteSync { what: "pull a".into(), done, total: None, finished };
        for (at, event) in [
            (0.0, started),
            (0.5, done(0, StepOutcome::Cached, 0.25)),
            (1.0, runs(1)),
            (1.5, runs(2)),
            (1.5, sync(3, false)),
            (1.75, sync(4, false)),
            (2.0, sync(5, true)),
            (2.0, done(1, StepOutcome::Executed, 1.0)),
            (3.0, done(2, StepOutcome::Failed { message: "exit code: 1".into() }, 1.5)),
            (3.0, TraceEvent::BuildFinished { ok: false, duration: seconds(3.0), cached: 1, executed: 1 }),
        ] {
            lines.event(seconds(at), event);
        }
        lines.finish().unwrap();
        let text = String::from_utf8(lines.out).unwrap();
        serde_json::from_str::<Vec<Value>>(&text).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_build_without_events_gives_an_empty_list() {
        let mut lines = Lines::new(Vec::new());
        lines.finish().unwrap();
        assert_eq!(lines.out, b"[]\n");
    }
}
