//! Events to rows: what a build and its steps are after another event. Knows no database and no clock.

use std::collections::BTreeSet;

use super::{
    Batch, Build, BuildState, Change, Counts, Layer, Output, Step, StepState,
    event::{Counted, Event, Outcome, PlannedStep},
    model::Steps,
};

/// The most warnings kept of a build, and layers.
const MOST_WARNINGS: usize = 20;
const MOST_LAYERS: usize = 500;

/// What a step is among all builds of one name: how long it took when it was last executed is kept under this.
pub(super) type What = [u8; 32];

/// A build while events are applied to it.
pub(super) struct Fold {
    pub(super) build: Build,
    pub(super) steps: Steps,
    /// Steps that changed.
    pub(super) changed: BTreeSet<u32>,
    /// The steps are those of a new plan.
    pub(super) replaced: bool,
    /// What steps wrote, in order.
    pub(super) output: Vec<(u32, Vec<u8>)>,
    /// Layers that are ready.
    pub(super) layers: Vec<Layer>,
    /// How long steps took that were executed.
    pub(super) learnt: Vec<(What, f64)>,
}

impl Fold {
    pub(super) fn new(build: Build, steps: Steps) -> Self {
        Self {
            build,
            steps,
            changed: BTreeSet::new(),
            replaced: false,
            output: Vec::new(),
            layers: Vec::new(),
            learnt: Vec::new(),
        }
    }

    /// Applies what is new in a batch. `known`: how long a step took when it was last executed, in milliseconds.
    pub(super) fn apply<E>(
        &mut self,
        batch: &Batch,
        now: i64,
        mut known: impl FnMut(&What) -> Result<Option<f64>, E>,
    ) -> Result<(), E> {
        // A clock that was set back, or of another server, does not make what is newer look older.
        self.build.updated = self.build.updated.max(now);
        if let Some(name) = batch.name.as_ref().filter(|_| self.build.name.is_empty()) {
            self.build.name.clone_from(name);
        }
        let first = batch.seq.unwrap_or(self.build.next);
        for (number, event) in (first..).zip(&batch.events) {
            if number < self.build.next {
                continue;
            }
            self.build.next = number + 1;
            // What comes after the end is of no use, and a build must not begin to run again.
            if self.build.state == BuildState::Running {
                self.event(event, now, &mut known)?;
            }
        }
        self.sum();
        Ok(())
    }

    /// What it comes to, once it is kept. `before`: the state that the build had; `logs`: ends of the outputs that grew.
    pub(super) fn into_change(self, before: BuildState, logs: Vec<Output>) -> Change {
        let Self { build, mut steps, changed, replaced, .. } = self;
        let ended = before == BuildState::Running && build.state != BuildState::Running;
        let steps = changed.iter().filter_map(|id| steps.remove(id)).collect();
        Change { build, steps, replaced, logs, ended }
    }

    fn event<E>(
        &mut self,
        event: &Event,
        now: i64,
        known: &mut impl FnMut(&What) -> Result<Option<f64>, E>,
    ) -> Result<(), E> {
        match event {
            Event::BuildStarted { steps } => self.plan(steps),
            Event::SandboxChosen { mode, why } => self.build.sandbox = Some(format!("{mode}: {why}")),
            Event::NodeExecuting { step, reason, again } => self.change(*step, |step| {
                step.state = StepState::Running;
                step.reason = Some(reason.clone()).filter(|r| !r.is_empty());
                step.again = *again;
                step.began = Some(now);
            }),
            Event::NodeCached { step } => {
                let what = self.steps.get(step).map(|step| what(&self.build.name, &step.label));
                let took = what.map(|what| known(&what)).transpose()?.flatten();
                self.change(*step, |step| {
                    step.state = StepState::Cached;
                    step.saved_ms = took.unwrap_or_default();
                });
            }
            Event::NodeDone { step, outcome, message, duration_ms } => {
                self.done(*step, *outcome, message.as_deref(), *duration_ms, now);
            }
            Event::NodeOutput { step, data } => {
                if self.steps.contains_key(step) {
                    self.output.push((*step, data.clone()));
                }
            }
            Event::LayerBuilt(layer) => {
                if self.layers.len() < MOST_LAYERS {
                    self.layers.push(layer.clone());
                }
            }
            Event::Warning { message } => {
                if self.build.warnings.len() < MOST_WARNINGS {
                    self.build.warnings.push(message.clone());
                }
            }
            Event::Error { message } => self.build.error = Some(message.clone()),
            Event::BuildFinished { ok, duration_ms } => self.finish(*ok, *duration_ms),
            Event::Counted(counted) => self.counted(counted),
            Event::Unknown => {}
        }
        Ok(())
    }

    /// A plan, or the same once more: a build goes through it again when it met damage in its cache.
    fn plan(&mut self, steps: &[PlannedStep]) {
        let step = |planned: &PlannedStep| Step {
            id: planned.id,
            label: planned.label.clone(),
            stage: planned.stage.clone(),
            line: planned.line,
            inputs: planned.inputs.clone(),
            state: StepState::Pending,
            reason: None,
            again: false,
            began: None,
            duration_ms: None,
            saved_ms: 0.0,
            message: None,
        };
        self.steps = steps.iter().map(|planned| (planned.id, step(planned))).collect();
        self.changed = self.steps.keys().copied().collect();
        self.output.clear();
        self.layers.clear();
        self.replaced = true;
    }

    fn change(&mut self, id: u32, change: impl FnOnce(&mut Step)) {
        // A step that the plan does not have: its beginning was lost on the way.
        if let Some(step) = self.steps.get_mut(&id) {
            change(step);
            self.changed.insert(id);
        }
    }

    fn done(&mut self, id: u32, outcome: Outcome, message: Option<&str>, duration_ms: f64, now: i64) {
        self.change(id, |step| {
            step.state = match outcome {
                // A hit was told before; what was not is no result of a step.
                Outcome::Cached if step.state == StepState::Cached => StepState::Cached,
                Outcome::Cached => StepState::Loaded,
                Outcome::Executed => StepState::Done,
                Outcome::Failed => StepState::Failed,
                Outcome::Cancelled => StepState::Cancelled,
            };
            step.duration_ms = Some(duration_ms);
            step.message = message.map(str::to_owned);
            #[expect(clippy::cast_possible_truncation, reason = "below a year of milliseconds")]
            step.began.get_or_insert(now - duration_ms as i64);
            step.saved_ms = (step.saved_ms - duration_ms).max(0.0);
        });
        if let Some(step) = self.steps.get(&id).filter(|_| outcome == Outcome::Executed) {
            self.learnt.push((what(&self.build.name, &step.label), duration_ms));
        }
    }

    fn finish(&mut self, ok: bool, duration_ms: f64) {
        let mut cancelled = false;
        for step in self.steps.values_mut() {
            let state = match step.state {
                StepState::Running => StepState::Cancelled,
                StepState::Pending => StepState::Skipped,
                StepState::Cancelled => {
                    cancelled = true;
                    continue;
                }
                _ => continue,
            };
            cancelled |= state == StepState::Cancelled;
            step.state = state;
            self.changed.insert(step.id);
        }
        let failed = self.steps.values().any(|step| step.state == StepState::Failed);
        self.build.state = match ok {
            true => BuildState::Succeeded,
            false if cancelled && !failed => BuildState::Cancelled,
            false => BuildState::Failed,
        };
        self.build.duration_ms = Some(duration_ms);
    }

    fn counted(&mut self, counted: &Counted) {
        let &Counted { ok, duration_ms, cached, executed, saved_ms } = counted;
        self.finish(ok, duration_ms);
        if self.steps.is_empty() {
            let total = u64::from(cached) + u64::from(executed);
            let (cached, executed) = (u64::from(cached), u64::from(executed));
            self.build.steps = Counts { total, ended: total, cached, executed, ..Counts::default() };
        }
        if let Some(saved) = saved_ms {
            self.build.saved_ms = saved;
        }
    }

    /// Sums up the steps. Without any what was counted elsewhere stays.
    fn sum(&mut self) {
        if self.steps.is_empty() {
            return;
        }
        let mut counts = Counts::default();
        let mut saved = 0.0;
        for step in self.steps.values() {
            counts.total += 1;
            saved += if step.state == StepState::Cached { step.saved_ms } else { 0.0 };
            let more = match step.state {
                StepState::Pending | StepState::Skipped => continue,
                StepState::Running => &mut counts.running,
                StepState::Cached => &mut counts.cached,
                StepState::Done => &mut counts.executed,
                StepState::Failed => &mut counts.failed,
                StepState::Loaded | StepState::Cancelled => &mut counts.ended,
            };
            *more += 1;
        }
        counts.ended += counts.cached + counts.executed + counts.failed;
        self.build.steps = counts;
        self.build.saved_ms = self.build.saved_ms.max(saved);
    }
}

/// The instruction without its place in the stage, which moves when others come before it, and the name of what is built
/// without its tag, which may be another one each time.
fn what(name: &str, label: &str) -> What {
    let instruction = label.split_once("] ").filter(|_| label.starts_with('[')).map_or(label, |(_, rest)| rest);
    let project = match name.rsplit_once(':') {
        Some((project, tag)) if !tag.contains('/') => project,
        _ => name,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(project.len() as u64).to_le_bytes()).update(project.as_bytes()).update(instruction.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, convert::Infallible};

    use super::*;
    use crate::builds::BuildId;

    fn build(name: &str) -> Build {
        Build {
            id: "0123456789".parse::<BuildId>().unwrap(),
            number: 1,
            name: name.into(),
            client: "-".into(),
            state: BuildState::Running,
            started: 0,
            updated: 0,
            duration_ms: None,
            steps: Counts::default(),
            saved_ms: 0.0,
            error: None,
            sandbox: None,
            warnings: Vec::new(),
            next: 0,
        }
    }

    fn planned() -> Event {
        let step = |id: u32, label: &str| PlannedStep {
            id,
            label: label.into(),
            stage: "bin".into(),
            inputs: if id > 0 { vec![id - 1] } else { Vec::new() },
            line: Some(id + 1),
        };
        Event::BuildStarted {
            steps: vec![step(0, "[bin 1/3] FROM x"), step(1, "[bin 2/3] RUN a"), step(2, "[bin 3/3] RUN b")],
        }
    }

    fn done(step: u32, outcome: Outcome, duration_ms: f64) -> Event {
        Event::NodeDone { step, outcome, message: None, duration_ms }
    }

    fn apply(fold: &mut Fold, seq: Option<u64>, events: Vec<Event>, known: &HashMap<What, f64>) {
        let batch = Batch { build: fold.build.id.clone(), seq, name: None, events };
        let known = |what: &What| Ok::<_, Infallible>(known.get(what).copied());
        fold.apply(&batch, 1000, known).unwrap();
    }

    #[test]
    fn a_build_and_the_next_one() {
        let mut fold = Fold::new(build("r.example:5000/app:1"), Steps::new());
        let run = |step| Event::NodeExecuting { step, reason: "new".into(), again: false };
        let none = HashMap::new();
        apply(&mut fold, None, vec![planned(), done(0, Outcome::Cached, 5.0), run(1)], &none);
        assert_eq!(fold.build.steps, Counts { total: 3, ended: 1, running: 1, ..Counts::default() });
        assert_eq!(fold.steps[&0].state, StepState::Loaded);
        assert_eq!(fold.steps[&0].began, Some(995));
        let end = Event::BuildFinished { ok: true, duration_ms: 900.0 };
        apply(
            &mut fold,
            None,
            vec![done(1, Outcome::Executed, 500.0), run(2), done(2, Outcome::Executed, 80.0), end],
            &none,
        );
        assert_eq!(fold.build.state, BuildState::Succeeded);
        assert_eq!(fold.build.steps, Counts { total: 3, ended: 3, executed: 2, ..Counts::default() });
        let known: HashMap<_, _> = fold.learnt.iter().copied().collect();
        assert_eq!(known.len(), 2);

        // Another tag, the same step at another place.
        let mut fold = Fold::new(build("r.example:5000/app:2"), Steps::new());
        let hit = Event::NodeCached { step: 1 };
        apply(&mut fold, None, vec![planned(), hit, done(1, Outcome::Cached, 20.0)], &known);
        assert_eq!(fold.build.saved_ms, 480.0);
        assert_eq!(fold.build.steps.cached, 1);
        assert_eq!(what("a:1", "[x 1/2] RUN y"), what("a:2", "[x 2/3] RUN y"));
        assert_ne!(what("a", "RUN y"), what("b", "RUN y"));
    }

    #[test]
    fn events_that_come_twice_count_once() {
        let mut fold = Fold::new(build("app"), Steps::new());
        let none = HashMap::new();
        let output = || Event::NodeOutput { step: 1, data: b"x".to_vec() };
        apply(&mut fold, Some(0), vec![planned(), output()], &none);
        apply(&mut fold, Some(0), vec![planned(), output(), output()], &none);
        assert_eq!(fold.output.len(), 2);
        // A gap: what was dropped does not come any more.
        apply(&mut fold, Some(10), vec![output()], &none);
        assert_eq!((fold.output.len(), fold.build.next), (3, 11));
    }

    #[test]
    fn what_was_not_reached_says_so() {
        let none = HashMap::new();
        let end = || Event::BuildFinished { ok: false, duration_ms: 9.0 };
        let run = || Event::NodeExecuting { step: 1, reason: String::new(), again: false };
        let mut fold = Fold::new(build("app"), Steps::new());
        apply(&mut fold, None, vec![planned(), run(), done(1, Outcome::Failed, 3.0), end()], &none);
        assert_eq!((fold.build.state, fold.steps[&2].state), (BuildState::Failed, StepState::Skipped));
        // After the end nothing changes.
        apply(&mut fold, None, vec![planned(), Event::Error { message: "late".into() }], &none);
        assert_eq!((fold.build.state, fold.build.error.as_deref()), (BuildState::Failed, None));

        let mut fold = Fold::new(build("app"), Steps::new());
        apply(&mut fold, None, vec![planned(), run(), end()], &none);
        assert_eq!((fold.build.state, fold.steps[&1].state), (BuildState::Cancelled, StepState::Cancelled));
    }

    #[test]
    fn steps_that_nobody_planned_are_skipped() {
        let mut fold = Fold::new(build("app"), Steps::new());
        let none = HashMap::new();
        apply(&mut fold, None, vec![planned(), done(99, Outcome::Failed, 1.0), Event::NodeCached { step: 98 }], &none);
        assert_eq!(fold.steps.len(), 3);
        assert_eq!(fold.build.steps.failed, 0);
    }

    #[test]
    fn sums_alone_make_a_build_too() {
        let mut fold = Fold::new(build("app"), Steps::new());
        let counted = Counted { ok: true, duration_ms: 50.0, cached: 3, executed: 1, saved_ms: Some(10.0) };
        apply(&mut fold, None, vec![Event::Counted(counted)], &HashMap::new());
        assert_eq!((fold.build.steps.cached, fold.build.steps.total, fold.build.saved_ms), (3, 4, 10.0));
        assert_eq!(fold.build.state, BuildState::Succeeded);
    }
}
