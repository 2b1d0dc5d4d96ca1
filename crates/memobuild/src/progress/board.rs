//! What is known of the build so far: one [`Vertex`] for each step, transfer and export, in the order in which they
//! began. [`Board::apply`] takes events and says what changed; the plain and the live display are made from it.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use memobuild_observe::{StepOutcome, Stream, TraceEvent};

use super::lines::{LineSplitter, printable};

/// Lines of output kept for each running step.
const TAIL: usize = 6;

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Cached,
    Done,
    Failed(String),
    Cancelled,
}

/// Bytes moved, and how many there are in all.
pub(super) type Bytes = (u64, Option<u64>);

/// Something that takes time.
#[derive(Debug)]
pub(super) struct Vertex {
    pub(super) title: String,
    pub(super) began: Duration,
    pub(super) took: Option<Duration>,
    pub(super) ending: Option<Ending>,
    pub(super) bytes: Option<Bytes>,
    /// Why it runs again.
    pub(super) reason: Option<String>,
    tail: VecDeque<String>,
    stdout: LineSplitter,
    stderr: LineSplitter,
}

impl Vertex {
    fn new(title: String, began: Duration) -> Self {
        Self {
            title,
            began,
            took: None,
            ending: None,
            bytes: None,
            reason: None,
            tail: VecDeque::new(),
            stdout: LineSplitter::default(),
            stderr: LineSplitter::default(),
        }
    }

    fn splitter(&mut self, stream: Stream) -> &mut LineSplitter {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn keep(&mut self, line: &[u8]) {
        let line = printable(line);
        if !line.trim().is_empty() {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
    }

    /// The last lines of its output, the one being written included.
    pub(super) fn tail(&self) -> Vec<String> {
        let partial = [&self.stdout, &self.stderr].map(|s| printable(s.partial()));
        let partial = partial.into_iter().filter(|l| !l.trim().is_empty());
        self.tail.iter().cloned().chain(partial).collect()
    }
}

/// What an event changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A vertex began.
    Began(usize),
    /// A vertex wrote whole lines.
    Lines(usize, Vec<Vec<u8>>),
    /// Bytes moved.
    Moved(usize),
    /// Something about a vertex worth a line.
    Note(usize, String),
    /// A vertex ended.
    Ended(usize),
    /// The mode in which steps run.
    Sandbox(String),
    /// Something that the user should know.
    Warning(String),
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) vertices: Vec<Vertex>,
    pub(super) steps_total: usize,
    pub(super) steps_done: usize,
    pub(super) sandbox: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) finished: Option<bool>,
    labels: HashMap<usize, String>,
    steps: HashMap<usize, usize>,
    others: HashMap<String, usize>,
    export: Option<usize>,
}

impl Board {
    /// Takes an event that happened at that time.
    pub(super) fn apply(&mut self, at: Duration, event: TraceEvent) -> Vec<Change> {
        let mut changes = Vec::new();
        match event {
            TraceEvent::BuildStarted { steps } => {
                // A second round, past damage in the cache, tells all of it again.
                self.steps.clear();
                self.steps_done = 0;
                self.steps_total = steps.len();
                self.labels = steps.into_iter().map(|s| (s.id, s.label)).collect();
            }
            TraceEvent::SandboxChosen { mode, why } => {
                self.sandbox = Some(mode.clone());
                changes.push(Change::Sandbox(format!("{mode}: {why}")));
            }
            TraceEvent::NodeExecuting { step, reason, again } => {
                let v = self.step(step, at, &mut changes);
                let reason = printable(reason.replace('\n', " ").as_bytes());
                if let Some(vertex) = self.vertices.get_mut(v).filter(|_| again) {
                    vertex.reason = Some(reason.clone());
                }
                changes.push(Change::Note(v, format!("runs: {reason}")));
            }
            TraceEvent::NodeCached { step } => {
                let v = self.step(step, at, &mut changes);
                self.end_step(v, Ending::Cached, Duration::ZERO, &mut changes);
            }
            TraceEvent::NodeDone { step, outcome, duration } => {
                let v = self.step(step, at.saturating_sub(duration), &mut changes);
                let ending = match outcome {
                    StepOutcome::Cached => Ending::Cached,
                    StepOutcome::Executed => Ending::Done,
                    StepOutcome::Failed { message } => Ending::Failed(message),
                    StepOutcome::Cancelled => Ending::Cancelled,
                };
                self.end_step(v, ending, duration, &mut changes);
            }
            TraceEvent::NodeOutput { step, stream, data } => {
                let v = self.step(step, at, &mut changes);
                if let Some(vertex) = self.vertices.get_mut(v) {
                    let lines = vertex.splitter(stream).push(&data);
                    lines.iter().for_each(|line| vertex.keep(line));
                    if !lines.is_empty() {
                        changes.push(Change::Lines(v, lines));
                    }
                }
            }
            TraceEvent::RemoteSync { what, done, total, finished } => {
                if self.is_over(&what, done, finished) {
                    return changes;
                }
                let v = self.other(&what, at, &mut changes);
                if let Some(vertex) = self.vertices.get_mut(v) {
                    vertex.bytes = Some((done, total));
                    changes.push(Change::Moved(v));
                }
                if finished {
                    self.end_other(v, at, &mut changes);
                }
            }
            TraceEvent::Exporting { what, finished } => {
                let v = self.other(&what, at, &mut changes);
                self.export = Some(v);
                if finished {
                    self.export = None;
                    self.end_other(v, at, &mut changes);
                }
            }
            TraceEvent::LayerBuilt { digest, size } => {
                if let Some(v) = self.export {
                    changes.push(Change::Note(v, format!("layer {digest} {}", crate::cli::bytes(size))));
                }
            }
            TraceEvent::Warning { message } => {
                let message = one_line(&message);
                self.warnings.push(message.clone());
                changes.push(Change::Warning(message));
            }
            TraceEvent::BuildFinished { ok, .. } => self.finished = Some(ok),
            TraceEvent::CacheHit { .. } | TraceEvent::CacheMiss { .. } | TraceEvent::Error { .. } => {}
        }
        changes
    }

    fn begin(&mut self, title: String, at: Duration, changes: &mut Vec<Change>) -> usize {
        let v = self.vertices.len();
        // Commands may span lines and be indented.
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        self.vertices.push(Vertex::new(title, at));
        changes.push(Change::Began(v));
        v
    }

    fn step(&mut self, step: usize, at: Duration, changes: &mut Vec<Change>) -> usize {
        if let Some(v) = self.steps.get(&step) {
            return *v;
        }
        let title = self.labels.get(&step).cloned().unwrap_or_else(|| format!("step {step}"));
        let v = self.begin(title, at, changes);
        self.steps.insert(step, v);
        v
    }

    fn end_step(&mut self, v: usize, ending: Ending, took: Duration, changes: &mut Vec<Change>) {
        let Some(vertex) = self.vertices.get_mut(v).filter(|v| v.ending.is_none()) else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(line) = vertex.splitter(stream).finish() {
                vertex.keep(&line);
                changes.push(Change::Lines(v, vec![line]));
            }
        }
        vertex.took = Some(took);
        vertex.ending = Some(ending);
        self.steps_done += 1;
        changes.push(Change::Ended(v));
    }

    /// Whether a transfer's event comes behind its end. Less bytes than before mean that it began anew.
    fn is_over(&self, what: &str, done: u64, finished: bool) -> bool {
        let known = self.others.get(what).and_then(|v| self.vertices.get(*v)).filter(|v| v.ending.is_some());
        known.is_some_and(|v| finished || v.bytes.is_some_and(|(before, _)| done >= before))
    }

    fn other(&mut self, what: &str, at: Duration, changes: &mut Vec<Change>) -> usize {
        match self.others.get(what) {
            Some(v) if self.vertices.get(*v).is_some_and(|v| v.ending.is_none()) => *v,
            _ => {
                let v = self.begin(what.to_owned(), at, changes);
                self.others.insert(what.to_owned(), v);
                v
            }
        }
    }

    fn end_other(&mut self, v: usize, at: Duration, changes: &mut Vec<Change>) {
        if let Some(vertex) = self.vertices.get_mut(v) {
            vertex.took = Some(at.saturating_sub(vertex.began));
            vertex.ending = Some(Ending::Done);
            changes.push(Change::Ended(v));
        }
    }
}

/// A warning in one line. One about a place in a file comes with an excerpt, which `check` shows; here its head and the
/// place are enough.
fn one_line(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let headed = first.starts_with("warning");
    let place = lines.find_map(|line| line.trim().strip_prefix("--> "));
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{first}{place}", if headed { "" } else { "warning: " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit_a_line() {
        assert_eq!(one_line("no cache"), "warning: no cache");
        let excerpt = "warning[StageNameCasing]: Stage name 'A'\n --> Dockerfile:1:14\n  |\n1 | FROM x AS A\n";
        assert_eq!(one_line(excerpt), "warning[StageNameCasing]: Stage name 'A' (Dockerfile:1:14)");
    }

    #[test]
    fn a_transfer_ends_once() {
        let mut board = Board::default();
        let mut sync = |done, finished| {
            let event = TraceEvent::RemoteSync { what: "pull".into(), done, total: Some(10), finished };
            board.apply(Duration::ZERO, event).len()
        };
        assert_eq!([sync(0, false), sync(10, true), sync(10, true), sync(10, false), sync(1, false)], [2, 2, 0, 0, 2]);
    }
}
