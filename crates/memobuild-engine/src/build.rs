//! One build from its request to its outcome.

use std::{collections::HashMap, sync::Arc, time::Instant};

use memobuild_observe::{FailureKind, Observer, StepInfo, TraceEvent};
use memobuild_oci::image::BaseLayer;
use memobuild_plan::{
    Hooks, PlanError, PlanErrorKind, Planned,
    model::{Op, Plan, Step},
};
use memobuild_sandbox::Cancel;
use memobuild_store::Store;
use memobuild_tree::{Diff, Tree};

use crate::{
    BuildOutcome, BuildRequest, EngineError, StepReport,
    bases::{self, Bases},
    export,
    history::{self, BuildRecord, Layer, Outcome},
    input::{self, Input},
    schedule::{self, Done},
    session::Session,
    share::Share,
    step::{self, Lookup},
    value::Value,
};

/// Steps at once where the request does not say: they wait for the network and for each other more than they compute.
const PARALLEL: usize = 32;

/// Builds. Everything worth knowing on the way is told to `observer`. To be called with a stack of at least
/// [`memobuild_tree::codec::STACK`] bytes.
///
/// # Errors
/// Whatever stops the build, with the kind that decides the exit code. Nothing half-made stands under a final name.
pub fn build(
    store: &Store,
    request: &BuildRequest,
    observer: &Arc<dyn Observer>,
    cancel: &Cancel,
) -> Result<BuildOutcome, EngineError> {
    let begin = Instant::now();
    let _lease = store.lease()?;
    for message in store.warnings() {
        observer.event(TraceEvent::Warning { message });
    }
    let mut record = BuildRecord::begin(request);
    let mut result = run(store, request, observer, cancel, &mut record);
    let (ok, steps) = match &mut result {
        Ok(outcome) => {
            outcome.duration = begin.elapsed();
            (true, outcome.steps.as_slice())
        }
        Err(error) => {
            observer.event(TraceEvent::Error { message: error.message.clone() });
            record.error = Some(error.message.clone());
            (false, [].as_slice())
        }
    };
    record.ok = ok;
    record.duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Err(error) = history::keep(store, request, &record) {
        // What was built is whole without it.
        let message = format!("no record of this build could be kept: {}", error.message);
        observer.event(TraceEvent::Warning { message });
    }
    let executed = steps.iter().filter(|s| s.executed()).count();
    observer.event(TraceEvent::BuildFinished {
        ok,
        duration: begin.elapsed(),
        cached: steps.len() - executed,
        executed,
    });
    result
}

fn run(
    store: &Store,
    request: &BuildRequest,
    observer: &Arc<dyn Observer>,
    cancel: &Cancel,
    record: &mut BuildRecord,
) -> Result<BuildOutcome, EngineError> {
    let bases = Bases::new(store, request);
    let share = Share::begin(store, request, &bases.registries(), observer);
    let input = input::load(store, request)?;
    let planned = plan(request, &input, &bases)?;
    for finding in &planned.findings {
        let message = finding.diagnostic(&planned.plan.source).render(false);
        observer.event(TraceEvent::Warning { message });
    }
    record.targets = targets(&planned.plan);
    let built = past_damage(store, observer, cancel, &share, || {
        let session = session(store, request, &planned, &bases, &input, observer, &cancel.child(), &share)?;
        session.emit(TraceEvent::BuildStarted { steps: infos(&planned.plan) });
        let Done { values, mut reports } = schedule::run(&session, request.parallelism.unwrap_or(PARALLEL));
        let mut outcome = BuildOutcome { steps: reports.clone(), ..BuildOutcome::default() };
        complete(&session, &mut reports);
        record.steps = reports;
        export::export(&session, &values?, &mut outcome)?;
        Ok(outcome)
    });
    share.tell(observer);
    // What was done is of use to others even if a later step failed.
    if !cancel.is_cancelled() {
        let session = session(store, request, &planned, &bases, &input, observer, &cancel.child(), &share)?;
        let shared = share.finish(&session);
        if built.is_ok() {
            shared?;
        }
    }
    built
}

/// The stages to be made, with their platforms where there are several.
fn targets(plan: &Plan) -> Vec<String> {
    let many = plan.targets.len() > 1;
    let name = |target: &memobuild_plan::model::Target| match many {
        true => format!("{} ({})", target.stage, target.platform),
        false => target.stage.clone(),
    };
    plan.targets.iter().map(name).collect()
}

/// Puts into reports what only the record needs: definitions, and the layers of base images.
fn complete(session: &Session<'_>, reports: &mut [StepReport]) {
    for (step, report) in session.plan.steps.iter().zip(reports) {
        report.define(step, session.plan);
        let Op::Image(index) = &step.op else { continue };
        let Some(image) = session.bases.get(*index) else { continue };
        let layer = |layer: &BaseLayer| Layer { diff_id: layer.diff_id, bundle: layer.bundle };
        report.layers = image.layers.iter().map(layer).collect();
    }
}

/// Tries again when damage in the store was met on the way: what is damaged has been set aside and is not a result any
/// more, so that its step runs anew. Ends, since each round but the last sets something aside.
fn past_damage<T>(
    store: &Store,
    observer: &Arc<dyn Observer>,
    cancel: &Cancel,
    share: &Share,
    mut attempt: impl FnMut() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    loop {
        let before = store.set_aside_count();
        match attempt() {
            Err(_) if store.set_aside_count() > before && !cancel.is_cancelled() => {
                if !share.has_told() {
                    let message = "part of the cache was damaged and has been set aside; what it held is built again";
                    observer.event(TraceEvent::Warning { message: message.into() });
                }
            }
            other => return other,
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one build, put together in one place")]
fn session<'a>(
    store: &'a Store,
    request: &'a BuildRequest,
    planned: &'a Planned,
    bases: &Bases<'_>,
    input: &'a Input,
    observer: &Arc<dyn Observer>,
    cancel: &Cancel,
    share: &'a Share,
) -> Result<Session<'a>, EngineError> {
    let lost = || EngineError::new(FailureKind::Registry, "a base image was planned with and is gone");
    let plan = &planned.plan;
    let images = plan.images.iter().map(|image| bases.get(image.handle).ok_or_else(lost)).collect::<Result<_, _>>()?;
    let epoch = planned.source_date_epoch;
    Ok(Session::new(
        store,
        request,
        plan,
        images,
        bases.registries(),
        &input.contexts,
        observer.clone(),
        cancel.clone(),
        epoch,
        share,
    ))
}

fn plan(request: &BuildRequest, input: &Input, bases: &Bases<'_>) -> Result<Planned, EngineError> {
    let file = memobuild_dockerfile::parse(&input.text, &input.name)
        .map_err(|e| EngineError::new(FailureKind::Dockerfile, e.diagnostic().render(false)))?;
    let matcher = input.contexts.main_matcher()?.filter(|m| !m.has_exceptions());
    let ignored = |path: &str| matcher.as_ref().is_some_and(|m| m.matches(path.as_bytes()));
    let hooks = Hooks { ignored: matcher.is_some().then_some(&ignored), all_stages: false };
    memobuild_plan::plan(&file, &request.options, bases, hooks).map_err(|e| plan_error(&e, bases))
}

fn plan_error(error: &PlanError, bases: &Bases<'_>) -> EngineError {
    let kind = match error.kind {
        PlanErrorKind::Dockerfile | PlanErrorKind::Checks => FailureKind::Dockerfile,
        PlanErrorKind::BaseImage => FailureKind::Registry,
        PlanErrorKind::Request | PlanErrorKind::Denied => FailureKind::Usage,
    };
    let texts: Vec<String> = error.diagnostics.iter().map(|d| d.render(false)).collect();
    let error = EngineError::new(kind, texts.join("\n"));
    match bases.failure().filter(|_| kind == FailureKind::Registry) {
        // The text is planning's own: it shows the line.
        Some(failure) => EngineError { message: error.message, ..failure },
        None => error,
    }
}

fn infos(plan: &Plan) -> Vec<StepInfo> {
    let info = |step: &memobuild_plan::model::Step| StepInfo {
        id: step.id.0,
        label: step.label.clone(),
        stage: step.stage.clone(),
        inputs: schedule::inputs(step).into_iter().map(|id| id.0).collect(),
        line: step.span.as_ref().map(|span| span.start.line as usize),
    };
    plan.steps.iter().map(info).collect()
}

/// Says which steps would run, without running any. Steps behind one that would run, and whose keys can't be known
/// before it has run, are reported as running.
///
/// # Errors
/// As [`build`], but for what only running a step can show.
pub fn dry_run(
    store: &Store,
    request: &BuildRequest,
    observer: &Arc<dyn Observer>,
) -> Result<BuildOutcome, EngineError> {
    let begin = Instant::now();
    let ahead = foresee(store, request, observer, Reach::Everything)?;
    Ok(BuildOutcome { steps: ahead.record.steps, duration: begin.elapsed(), ..BuildOutcome::default() })
}

/// How far a look ahead goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Base images, files and repositories are fetched where that is needed to tell.
    Everything,
    /// What is not here is not fetched; what stands on it is then unknown. Registries are asked for manifests only.
    Here,
}

/// The build that would happen now.
pub struct Foreseen {
    /// Its plan.
    pub plan: Plan,
    /// Its record, as far as it can be told.
    pub record: BuildRecord,
    /// Trees that had to be put together, by the step's number.
    pub(crate) trees: HashMap<usize, Tree>,
    /// Changes that steps would make, by the step's number.
    pub(crate) diffs: HashMap<usize, Diff>,
}

/// Works out what a build would do, without running or keeping anything.
///
/// # Errors
/// As [`dry_run`].
pub fn foresee(
    store: &Store,
    request: &BuildRequest,
    observer: &Arc<dyn Observer>,
    reach: Reach,
) -> Result<Foreseen, EngineError> {
    let _lease = store.lease()?;
    let bases = Bases::new(store, request);
    let reading = BuildRequest { cache_to: Vec::new(), ..request.clone() };
    let share = Share::begin(store, &reading, &bases.registries(), observer);
    let input = input::load(store, request)?;
    let planned = plan(request, &input, &bases)?;
    let cancel = Cancel::new();
    let mut record = BuildRecord::begin(request);
    record.targets = targets(&planned.plan);
    let session = session(store, request, &planned, &bases, &input, observer, &cancel, &share)?;
    let (trees, diffs) = past_damage(store, observer, &cancel, &share, || {
        let (values, reports, diffs) = look_ahead(&session, reach)?;
        record.steps = reports;
        let tree = |(id, value): (usize, &Option<Arc<Value>>)| Some((id + 1, value.as_ref()?.known()?));
        Ok((values.iter().enumerate().filter_map(tree).collect(), diffs))
    })?;
    drop(session);
    share.tell(observer);
    Ok(Foreseen { plan: planned.plan, record, trees, diffs })
}

type Ahead = (Vec<Option<Arc<Value>>>, Vec<StepReport>, HashMap<usize, Diff>);

fn look_ahead(session: &Session<'_>, reach: Reach) -> Result<Ahead, EngineError> {
    let plan = session.plan;
    let mut values = vec![None; plan.steps.len()];
    let mut reports = session.planned().to_vec();
    let mut diffs = HashMap::new();
    for (step, report) in plan.steps.iter().zip(&mut reports) {
        let unknown = schedule::inputs(step).into_iter().find(|id| values.get(id.0).is_none_or(Option::is_none));
        let value = match unknown {
            Some(input) => {
                let label = plan.steps.get(input.0).map_or("", |s| s.label.as_str());
                report.outcome = Outcome::Unknown;
                report.reason = Some(format!("it comes after {label}, which runs"));
                None
            }
            None => match step::look_up(session, step, &values)? {
                Lookup::Hit(value, learnt) => {
                    report.take(&learnt);
                    Some(value)
                }
                Lookup::Source if reach == Reach::Here && !is_here(session, step)? => {
                    report.outcome = Outcome::Unknown;
                    report.reason = Some("it would have to be fetched".into());
                    None
                }
                Lookup::Source => {
                    report.outcome = Outcome::Source;
                    Some(step::yield_source(session, step)?)
                }
                Lookup::Miss(miss) => {
                    report.take(&miss.learnt);
                    let ahead = step::foresee(session, step, &miss, &values);
                    ahead.map(|step::Ahead { value, diff }| {
                        diffs.insert(report.number, diff);
                        value
                    })
                }
            },
        };
        if let Some(value) = &value {
            report.yielded(value);
        }
        if let Some(slot) = values.get_mut(step.id.0) {
            *slot = value;
        }
    }
    complete(session, &mut reports);
    Ok((values, reports, diffs))
}

/// Whether a source yields its tree without fetching anything.
fn is_here(session: &Session<'_>, step: &Step) -> Result<bool, EngineError> {
    match &step.op {
        Op::Http(_) | Op::Git(_) => Ok(false),
        Op::Image(index) => match session.bases.get(*index) {
            Some(image) => bases::is_known(session.store, image),
            None => Ok(true),
        },
        _ => Ok(true),
    }
}
