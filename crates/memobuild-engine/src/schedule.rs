//! Runs a plan's steps: each as soon as its inputs are there, independent ones at once, none twice.
//!
//! One dispatcher owns all state; it looks results up itself (a look-up is short) and hands what must be executed to
//! threads, which answer by message. The first failure stops everything: running steps are killed, none begins.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use memobuild_dockerfile::Diagnostic;
use memobuild_observe::{FailureKind, StepOutcome, TraceEvent, in_same_span};
use memobuild_plan::model::{CopySource, MountKind, Op, Plan, Step, StepId};
use memobuild_tree::codec;

use crate::{
    EngineError, StepReport,
    history::{Outcome, Seen},
    session::Session,
    step::{self, Executed, Lookup},
    value::Value,
};

/// What became of each step, and all values or why there are none.
pub(crate) struct Done {
    pub(crate) values: Result<Vec<Option<Arc<Value>>>, EngineError>,
    pub(crate) reports: Vec<StepReport>,
}

/// The steps that a step takes trees from, each once.
pub(crate) fn inputs(step: &Step) -> BTreeSet<StepId> {
    let mut out: BTreeSet<StepId> = step::parent(step).into_iter().collect();
    match &step.op {
        Op::Run(run) => out.extend(run.mounts.iter().filter_map(|m| match &m.kind {
            MountKind::Bind { from, .. } => Some(*from),
            MountKind::Cache { from, .. } => from.as_ref().map(|(id, _)| *id),
            _ => None,
        })),
        Op::Copy(copy) => out.extend(copy.sources.iter().filter_map(|s| match s {
            CopySource::Path { from, .. } => Some(*from),
            CopySource::Inline { .. } => None,
        })),
        _ => {}
    }
    out
}

/// Of each step all that it stands on, directly or not.
pub(crate) fn above(plan: &Plan) -> Vec<BTreeSet<StepId>> {
    let mut out: Vec<BTreeSet<StepId>> = Vec::new();
    // Inputs stand before their users in the plan.
    for step in &plan.steps {
        let mut above = inputs(step);
        for input in above.clone() {
            above.extend(out.get(input.0).into_iter().flatten());
        }
        out.push(above);
    }
    out
}

struct Answer {
    id: usize,
    /// Which try of the step it answers.
    round: usize,
    result: Result<Executed, EngineError>,
    took: Duration,
}

struct Dispatcher<'a, 's> {
    session: &'a Session<'s>,
    values: Vec<Option<Arc<Value>>>,
    /// How many inputs of each step are not there yet.
    waiting: Vec<usize>,
    users: Vec<Vec<usize>>,
    ready: BTreeSet<usize>,
    /// How often each step was taken up again; answers of earlier rounds are of no use.
    rounds: Vec<usize>,
    /// Steps under way.
    busy: BTreeSet<usize>,
    reports: Vec<StepReport>,
    failure: Option<EngineError>,
}

/// Runs all steps of the session's plan; at most `limit` at once.
pub(crate) fn run(session: &Session<'_>, limit: usize) -> Done {
    let mut dispatcher = Dispatcher::new(session);
    let (send, receive) = mpsc::channel::<Answer>();
    std::thread::scope(|scope| {
        loop {
            while dispatcher.may_start(limit) {
                let Some(id) = dispatcher.ready.pop_first() else { break };
                let Some(job) = dispatcher.begin(id) else { continue };
                let send = send.clone();
                let round = dispatcher.rounds.get(id).copied().unwrap_or_default();
                dispatcher.busy.insert(id);
                let thread = std::thread::Builder::new().name(format!("step-{id}")).stack_size(codec::STACK);
                let work = in_same_span(move || {
                    let begin = Instant::now();
                    let result = job();
                    // The dispatcher outlives all threads.
                    let _ = send.send(Answer { id, round, result, took: begin.elapsed() });
                });
                let spawned = thread.spawn_scoped(scope, work);
                if let Err(e) = spawned {
                    dispatcher.busy.remove(&id);
                    dispatcher.fail(id, EngineError::new(FailureKind::Machine, format!("cannot start a thread: {e}")));
                }
            }
            if dispatcher.busy.is_empty() && !dispatcher.may_start(limit) {
                break;
            }
            if dispatcher.busy.is_empty() {
                continue;
            }
            let Ok(answer) = receive.recv() else { break };
            dispatcher.busy.remove(&answer.id);
            dispatcher.settle(answer);
        }
    });
    dispatcher.finish()
}

type Job<'a> = Box<dyn FnOnce() -> Result<Executed, EngineError> + Send + 'a>;

impl<'a, 's> Dispatcher<'a, 's> {
    fn new(session: &'a Session<'s>) -> Self {
        let steps = &session.plan.steps;
        let mut waiting = vec![0; steps.len()];
        let mut users = vec![Vec::new(); steps.len()];
        for step in steps {
            let inputs = inputs(step);
            if let Some(count) = waiting.get_mut(step.id.0) {
                *count = inputs.len();
            }
            for input in inputs {
                if let Some(users) = users.get_mut(input.0) {
                    users.push(step.id.0);
                }
            }
        }
        let ready = waiting.iter().enumerate().filter(|(_, n)| **n == 0).map(|(id, _)| id).collect();
        let reports = session.planned().to_vec();
        let rounds = vec![0; steps.len()];
        Self {
            session,
            values: vec![None; steps.len()],
            waiting,
            users,
            ready,
            rounds,
            busy: BTreeSet::new(),
            reports,
            failure: None,
        }
    }

    fn stopped(&self) -> bool {
        self.failure.is_some() || self.session.cancel.is_cancelled()
    }

    fn may_start(&self, limit: usize) -> bool {
        !self.stopped() && self.busy.len() < limit && !self.ready.is_empty()
    }

    /// Takes a known result, or gives the work that yields it.
    fn begin(&mut self, id: usize) -> Option<Job<'a>> {
        let session = self.session;
        let step = session.plan.steps.get(id)?;
        let begin = Instant::now();
        match step::look_up(session, step, &self.values) {
            Err(error) => {
                let outcome = StepOutcome::Failed { message: error.message.clone() };
                session.emit(TraceEvent::NodeDone { step: id, outcome, duration: begin.elapsed() });
                self.report(id, |report| report.outcome = Outcome::Failed);
                self.fail(id, error);
                None
            }
            Ok(Lookup::Hit(value, learnt)) => {
                session.emit(TraceEvent::NodeCached { step: id });
                self.report(id, |report| report.take(&learnt));
                self.done(id, value, StepOutcome::Cached, begin.elapsed());
                None
            }
            Ok(Lookup::Source) => Some(Box::new(move || {
                let value = step::yield_source(session, step)?;
                Ok(Executed::Done(value, None))
            })),
            Ok(Lookup::Miss(miss)) => {
                self.report(id, |report| report.take(&miss.learnt));
                let why = &miss.learnt.why;
                session.emit(TraceEvent::NodeExecuting { step: id, reason: why.reason.clone(), again: why.again });
                // All that stand before it, not its inputs alone: times are compared across them.
                let values = self.values.clone();
                Some(Box::new(move || step::execute(session, step, *miss, &values)))
            }
        }
    }

    fn settle(&mut self, answer: Answer) {
        if self.rounds.get(answer.id) != Some(&answer.round) {
            // Taken up again meanwhile. What it yielded is recorded, and found if it still holds.
            return self.enqueue(answer.id);
        }
        match answer.result {
            Ok(Executed::Redo(steps)) => self.redo(&steps),
            Ok(Executed::Done(value, seen)) => {
                let executed = self.reports.get(answer.id).is_some_and(StepReport::executed);
                let outcome = if executed { StepOutcome::Executed } else { StepOutcome::Cached };
                self.report(answer.id, |report| {
                    report.seen = seen.map(Seen::from);
                    if !executed {
                        report.outcome = Outcome::Source;
                    }
                });
                self.done(answer.id, value, outcome, answer.took);
            }
            Err(error) => {
                let stopped = self.stopped();
                let (outcome, ended) = match stopped || self.session.met_damage() {
                    // Killed with the others, or to be tried again.
                    true => (StepOutcome::Cancelled, Outcome::NotReached),
                    false => (StepOutcome::Failed { message: error.message.clone() }, Outcome::Failed),
                };
                self.report(answer.id, |report| {
                    report.outcome = ended;
                    report.duration_ms = millis(answer.took);
                });
                self.session.emit(TraceEvent::NodeDone { step: answer.id, outcome, duration: answer.took });
                if !stopped {
                    self.fail(answer.id, error);
                }
            }
        }
    }

    fn report(&mut self, id: usize, change: impl FnOnce(&mut StepReport)) {
        if let Some(report) = self.reports.get_mut(id) {
            change(report);
        }
    }

    fn done(&mut self, id: usize, value: Arc<Value>, outcome: StepOutcome, duration: Duration) {
        self.session.emit(TraceEvent::NodeDone { step: id, outcome, duration });
        self.report(id, |report| {
            report.duration_ms = millis(duration);
            report.yielded(&value);
        });
        if let (Some(step), Some(report)) = (self.session.plan.steps.get(id), self.reports.get(id)) {
            self.session.share.done(self.session, step, report);
        }
        if let Some(slot) = self.values.get_mut(id) {
            *slot = Some(value);
        }
        for user in self.users.get(id).into_iter().flatten() {
            if let Some(count) = self.waiting.get_mut(*user) {
                *count -= 1;
                if *count == 0 && !self.busy.contains(user) {
                    self.ready.insert(*user);
                }
            }
        }
    }

    /// Takes steps up again, to be executed, and with them all that stands on them.
    fn redo(&mut self, steps: &BTreeSet<StepId>) {
        self.session.force(steps);
        let mut again: BTreeSet<usize> = steps.iter().map(|id| id.0).collect();
        for step in &self.session.plan.steps {
            if inputs(step).iter().any(|input| again.contains(&input.0)) {
                again.insert(step.id.0);
            }
        }
        for id in &again {
            if let (Some(value), Some(round)) = (self.values.get_mut(*id), self.rounds.get_mut(*id)) {
                *value = None;
                *round += 1;
            }
            self.ready.remove(id);
        }
        for id in again {
            let lacking = |input: &&StepId| self.values.get(input.0).is_none_or(Option::is_none);
            let count = self.session.plan.steps.get(id).map_or(0, |step| inputs(step).iter().filter(lacking).count());
            if let Some(slot) = self.waiting.get_mut(id) {
                *slot = count;
            }
            self.enqueue(id);
        }
    }

    /// Makes a step ready if nothing is lacking and it is not running.
    fn enqueue(&mut self, id: usize) {
        if self.waiting.get(id) == Some(&0) && !self.busy.contains(&id) {
            self.ready.insert(id);
        }
    }

    fn fail(&mut self, id: usize, mut error: EngineError) {
        if let Some(cause) = self.session.fetch_failure() {
            error = EngineError { log_tail: error.log_tail, step: error.step, ..cause };
        }
        error.step = error.step.or(Some(id));
        if let Some(step) = self.session.plan.steps.get(id)
            && let Some(span) = step.span
        {
            // The message with its place and a marked excerpt.
            let source = &self.session.plan.source;
            error.message = Diagnostic::error(source, span, error.message).render(false);
        }
        self.failure.get_or_insert(error);
        self.session.cancel.cancel();
    }

    fn finish(self) -> Done {
        let values = match self.failure {
            Some(error) => Err(error),
            None if self.session.cancel.is_cancelled() => {
                Err(EngineError::new(FailureKind::Step, "the build was cancelled"))
            }
            None => Ok(self.values),
        };
        Done { values, reports: self.reports }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
