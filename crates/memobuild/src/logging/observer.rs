//! A build's events as log lines, inside of spans: the build, its stages, their steps; transfers and exports.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use memobuild_observe::{
    BuildMetrics, Observer, StepOutcome, TraceEvent, log_build_complete, log_build_fail, log_build_start,
    log_build_warning, log_cache_hit, log_cache_miss, log_export_done, log_layer_built, log_sandbox_chosen,
    log_step_done, log_step_fail, log_step_start, log_transfer_done,
};
use tracing::{Span, info_span};

use crate::telemetry::{
    Trace,
    timeline::{self, Change, End, Note, Timeline, What},
    trace,
};

/// Logs a build. All its lines name the build's trace: that of `TRACEPARENT`, or one of its own.
pub struct LogObserver {
    trace: Trace,
    build: Span,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    timeline: Timeline,
    metrics: BuildMetrics,
    stages: HashMap<String, Span>,
    /// Of what is under way.
    spans: HashMap<usize, Span>,
    /// Numbers of the spans of steps under way, by the step.
    steps: HashMap<usize, usize>,
}

impl LogObserver {
    /// For one build, which begins now. `name`: what it builds.
    pub fn new(name: &str) -> Self {
        let trace = *trace();
        let build = info_span!(target: "memobuild::build", "build", trace_id = %trace.own.trace_id(), build = name);
        Self { trace, build, began: Instant::now(), state: Mutex::default() }
    }

    /// The build's span: what is logged inside of it names the build's trace too.
    pub fn span(&self) -> &Span {
        &self.build
    }
}

impl Observer for LogObserver {
    fn event(&self, event: TraceEvent) {
        // What steps print is theirs, and no log line.
        if matches!(event, TraceEvent::NodeOutput { .. }) {
            return;
        }
        let at = self.began.elapsed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.metrics.observe(&event);
        match &event {
            TraceEvent::BuildStarted { steps } => {
                self.build.in_scope(|| log_build_start!(self.trace.own.trace_id(), steps.len()));
            }
            TraceEvent::SandboxChosen { mode, why } => {
                self.build.in_scope(|| log_sandbox_chosen!(mode.as_str(), why.as_str()));
            }
            TraceEvent::CacheHit { step, key } => {
                state.around(*step, &self.build).in_scope(|| log_cache_hit!(*step, key));
            }
            TraceEvent::CacheMiss { step, key } => {
                state.around(*step, &self.build).in_scope(|| log_cache_miss!(*step, key));
            }
            _ => {}
        }
        for change in state.timeline.apply(at, event) {
            state.change(at, change, &self.build);
        }
    }
}

impl State {
    /// The innermost span that a step is in.
    fn around(&mut self, step: usize, build: &Span) -> Span {
        let running = self.steps.get(&step).and_then(|number| self.spans.get(number)).cloned();
        running.unwrap_or_else(|| {
            let stage = self.timeline.info(step).map(|info| info.stage.clone());
            stage.map_or_else(|| build.clone(), |stage| self.stage(&stage, build))
        })
    }

    fn stage(&mut self, name: &str, build: &Span) -> Span {
        let new = || info_span!(target: "memobuild::build", parent: build, "stage", stage = name);
        self.stages.entry(name.to_owned()).or_insert_with(new).clone()
    }

    fn begin(&mut self, span: &timeline::Span, build: &Span) {
        let made = match &span.what {
            What::Step { info, .. } => {
                self.steps.insert(info.id, span.number);
                let stage = self.stage(&info.stage, build);
                let label = info.label.as_str();
                info_span!(target: "memobuild::step", parent: &stage, "step", step = info.id, label)
            }
            What::Transfer { name, .. } => {
                info_span!(target: "memobuild::transfer", parent: build, "transfer", what = name.as_str())
            }
            What::Export { name } => {
                info_span!(target: "memobuild::export", parent: build, "export", what = name.as_str())
            }
            What::Build => build.clone(),
        };
        if let What::Step { info, reason: Some(reason) } = &span.what {
            made.in_scope(|| log_step_start!(info.id, info.label.as_str(), reason.as_str()));
        }
        self.spans.insert(span.number, made);
    }

    fn change(&mut self, at: Duration, change: Change, build: &Span) {
        match change {
            Change::Began(span) => self.begin(&span, build),
            Change::Ended(span, end) => {
                if let What::Step { info, .. } = &span.what {
                    self.steps.remove(&info.id);
                }
                let inside = self.spans.remove(&span.number).unwrap_or_else(|| build.clone());
                let millis = u64::try_from(at.saturating_sub(span.began).as_millis()).unwrap_or(u64::MAX);
                inside.in_scope(|| self.ended(&span, &end, millis));
            }
            Change::Noted(note) => build.in_scope(|| match note {
                Note::Layer { digest, size } => log_layer_built!(digest, size),
                Note::Warning(message) => log_build_warning!(message.as_str()),
                Note::Error(message) => log_build_fail!(message.as_str()),
            }),
        }
    }

    fn ended(&self, span: &timeline::Span, end: &End, millis: u64) {
        match (&span.what, end) {
            (What::Step { info, .. }, End::Step(StepOutcome::Failed { message })) => {
                log_step_fail!(info.id, info.label.as_str(), message.as_str(), millis);
            }
            (What::Step { info, .. }, End::Step(outcome)) => {
                log_step_done!(info.id, info.label.as_str(), word(outcome), millis);
            }
            (What::Transfer { name, bytes }, _) => log_transfer_done!(name.as_str(), *bytes, millis),
            (What::Export { name }, _) => log_export_done!(name.as_str(), millis),
            (_, End::Build { ok, .. }) => {
                let BuildMetrics { cache_hits, cache_misses, bytes_moved, .. } = self.metrics;
                log_build_complete!(*ok, millis, cache_hits, cache_misses, bytes_moved);
            }
            _ => {}
        }
    }
}

fn word(outcome: &StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Cached => "cached",
        StepOutcome::Executed => "executed",
        StepOutcome::Failed { .. } => "failed",
        StepOutcome::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use memobuild_observe::{StepInfo, Stream};
    use serde_json::{Value, json};

    use super::*;
    use crate::logging::tests::written;

    fn events() -> Vec<TraceEvent> {
        let step = |id, label: &str| StepInfo {
            id,
            label: label.into(),
            stage: "app".into(),
            inputs: Vec::new(),
            line: Some(id + 1),
        };
        let done = |step, outcome| TraceEvent::NodeDone { step, outcome, duration: Duration::ZERO };
        vec![
            TraceEvent::Warning { message: "odd".into() },
            TraceEvent::BuildStarted { steps: vec![step(0, "COPY a"), step(1, "RUN b")] },
            TraceEvent::CacheHit { step: 0, key: "k0".into() },
            TraceEvent::NodeCached { step: 0 },
            done(0, StepOutcome::Cached),
            TraceEvent::CacheMiss { step: 1, key: "k1".into() },
            TraceEvent::NodeExecuting { step: 1, reason: "a changed".into(), again: true },
            TraceEvent::NodeOutput { step: 1, stream: Stream::Stdout, data: b"printed".to_vec() },
            TraceEvent::RemoteSync { what: "import x".into(), done: 5, total: Some(5), finished: true },
            done(1, StepOutcome::Failed { message: "exit code: 1".into() }),
            TraceEvent::LayerBuilt { digest: "sha256:0".into(), size: 9 },
            TraceEvent::Error { message: "RUN b failed".into() },
            TraceEvent::BuildFinished { ok: false, duration: Duration::ZERO, cached: 0, executed: 0 },
        ]
    }

    fn log(directives: &str) -> Vec<Value> {
        let log = written(Some(directives), true, || {
            let observer = LogObserver::new("image");
            events().into_iter().for_each(|event| observer.event(event));
        });
        assert!(!log.contains("printed"), "{log}");
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The message, and the names of the spans around it.
    fn short(line: &Value) -> String {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let path: Vec<String> = line["spans"].as_array().unwrap().iter().map(|span| text(&span["name"])).collect();
        format!("{} {} {}", text(&line["level"]), path.join("/"), text(&line["fields"]["message"]))
    }

    #[test]
    fn each_event_is_a_line_in_its_span() {
        let lines = log("memobuild=debug");
        let all: Vec<String> = lines.iter().map(short).collect();
        assert_eq!(
            all,
            [
                "WARN build warning",
                "INFO build build started",
                "DEBUG build/stage cache hit",
                "INFO build/stage/step step done",
                "DEBUG build/stage cache miss",
                "INFO build/stage/step step started",
                "INFO build/transfer transfer done",
                "ERROR build/stage/step step failed",
                "INFO build layer built",
                "ERROR build build failed",
                "INFO build build complete",
            ]
        );
        let trace_id = trace().own.trace_id();
        assert!(lines.iter().all(|line| line["spans"][0]["trace_id"] == trace_id.as_str()), "{lines:?}");
        assert_eq!(lines[5]["fields"]["reason"], "a changed");
        assert_eq!((&lines[5]["span"]["label"], &lines[5]["spans"][1]["stage"]), (&json!("RUN b"), &json!("app")));
        let last = &lines[10]["fields"];
        assert_eq!((&last["ok"], &last["cache_hits"], &last["cache_misses"]), (&json!(false), &json!(1), &json!(1)));
        assert_eq!(last["bytes_moved"], 5);
    }

    #[test]
    fn levels_choose() {
        let messages = |level| -> Vec<String> {
            log(level).iter().map(|line| line["fields"]["message"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(messages("memobuild=warn"), ["warning", "step failed", "build failed"]);
        assert_eq!(messages("memobuild::cache=debug"), ["cache hit", "cache miss"]);
    }
}
