//! `--trace-file`: what a build spent its time on, as a file that Perfetto and chrome://tracing open.
//!
//! The Trace Event Format (Google, "JSON Array Format"): one object a line, times in microseconds since the build began. A
//! step is a complete event (`X`) on a lane that no other step is on at the time; a transfer or an export is a pair of
//! asynchronous ones (`b`, `e`), as they overlap with all else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use memobuild_observe::{Observer, StepInfo, StepOutcome, TraceEvent};
use serde_json::{Value, json};

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

/// A step under way.
struct Running {
    since: Duration,
    lane: usize,
    reason: String,
}

/// The lines of the file.
struct Lines<W: Write> {
    out: W,
    any: bool,
    failed: Option<io::Error>,
    steps: HashMap<usize, StepInfo>,
    running: BTreeMap<usize, Running>,
    /// What began and has not ended, besides steps.
    open: BTreeSet<String>,
}

impl<W: Write> Lines<W> {
    fn new(out: W) -> Self {
        let (steps, running, open) = Default::default();
        Self { out, any: false, failed: None, steps, running, open }
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
        let taken: BTreeSet<usize> = self.running.values().map(|running| running.lane).collect();
        (1..).find(|lane| !taken.contains(lane)).unwrap_or(1)
    }

    fn event(&mut self, at: Duration, event: TraceEvent) {
        match event {
            TraceEvent::BuildStarted { steps } => {
                self.steps = steps.into_iter().map(|step| (step.id, step)).collect();
            }
            TraceEvent::NodeExecuting { step, reason, .. } => {
                let lane = self.lane();
                self.running.insert(step, Running { since: at, lane, reason });
            }
            TraceEvent::NodeDone { step, outcome, duration } => self.done(at, step, &outcome, duration),
            TraceEvent::RemoteSync { what, done, finished, .. } => {
                self.other(at, "transfer", &what, finished, Some(done))
            }
            TraceEvent::Exporting { what, finished } => self.other(at, "export", &what, finished, None),
            TraceEvent::LayerBuilt { digest, size } => {
                self.instant(at, "layer", &json!({ "digest": digest, "bytes": size }));
            }
            TraceEvent::Warning { message } => self.instant(at, "warning", &json!({ "message": message })),
            TraceEvent::Error { message } => self.instant(at, "error", &json!({ "message": message })),
            TraceEvent::BuildFinished { ok, duration, cached, executed } => {
                self.write(&json!({
                    "name": "build", "cat": "build", "ph": "X", "pid": 1, "tid": 0,
                    "ts": micros(at.saturating_sub(duration)), "dur": micros(duration),
                    "args": { "ok": ok, "cached": cached, "executed": executed },
                }));
            }
            _ => {}
        }
    }

    fn done(&mut self, at: Duration, step: usize, outcome: &StepOutcome, duration: Duration) {
        let running = self.running.remove(&step);
        // One that was taken from the cache was never seen to begin.
        let since = running.as_ref().map_or(at.saturating_sub(duration), |running| running.since);
        let lane = running.as_ref().map_or_else(|| self.lane(), |running| running.lane);
        let info = self.steps.get(&step);
        let mut args = serde_json::to_value(outcome).unwrap_or_default();
        if let Value::Object(args) = &mut args {
            args.insert("step".into(), step.into());
            args.extend(info.map(|info| ("stage".to_owned(), info.stage.clone().into())));
            args.extend(running.map(|running| ("why".to_owned(), running.reason.into())));
        }
        let name = info.map_or_else(|| format!("step {step}"), |info| info.label.clone());
        self.write(&json!({
            "name": name, "cat": "step", "ph": "X", "pid": 1, "tid": lane,
            "ts": micros(since), "dur": micros(at.saturating_sub(since)), "args": args,
        }));
    }

    fn other(&mut self, at: Duration, cat: &str, what: &str, finished: bool, bytes: Option<u64>) {
        let id = format!("{cat}:{what}");
        let event = |phase: &str| {
            json!({
                "name": what, "cat": cat, "ph": phase, "pid": 1, "tid": 0, "id": id, "ts": micros(at),
                "args": { "bytes": bytes },
            })
        };
        let (begin, end) = (event("b"), event("e"));
        if self.open.insert(id.clone()) {
            self.write(&begin);
        }
        if finished {
            self.write(&end);
            self.open.remove(&id);
        }
    }

    fn instant(&mut self, at: Duration, name: &str, args: &Value) {
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
