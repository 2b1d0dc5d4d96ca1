//! The front door: one pass per platform over one shared graph, then the pruned plan.

use std::collections::BTreeMap;

use memobuild_dockerfile::Dockerfile;
use memobuild_dockerfile::lint::{CheckOptions, Finding};
use memobuild_image::Platform;

use crate::args::{EPOCH, EnvList, Globals};
use crate::contexts::Contexts;
use crate::error::{Failure, PlanError, PlanErrorKind};
use crate::lint::Checks;
use crate::model::{BaseResolver, History, Options, Plan, StepId, Target};
use crate::pass::{Ignored, Outcome, Pass};
use crate::steps::{Graph, Pruned};

/// What a caller may add to a plan's making.
#[derive(Default, Clone, Copy)]
pub struct Hooks<'a> {
    /// Says whether `.dockerignore` leaves out a path of the build's context (relative, clean, maybe with wildcards),
    /// for the check `CopyIgnoredFile`. None: there is no ignore file, or it has exceptions, which can't be judged.
    pub ignored: Option<&'a dyn Fn(&str) -> bool>,
    /// Plan unused stages too, so that they are checked (`check` without a target). The plan is still pruned.
    pub all_stages: bool,
}

/// A plan, and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The graph.
    pub plan: Plan,
    /// What the checks found, those of the text included, in file order.
    pub findings: Vec<Finding>,
    /// SOURCE_DATE_EPOCH in force: build arg, global ARG of the file, or `options.source_date_epoch`.
    pub source_date_epoch: Option<i64>,
}

/// Plans a file for all platforms asked for.
///
/// # Errors
/// What is wrong with the file or with what is asked for, with its place; or that a base image was not found.
pub fn plan(
    file: &Dockerfile,
    options: &Options,
    resolver: &dyn BaseResolver,
    hooks: Hooks<'_>,
) -> Result<Planned, PlanError> {
    let checks = check_options(file, options).map_err(|failure| failed(file, failure, Vec::new()))?;
    let options = with_epoch(options);
    let contexts = Contexts::new(&options.contexts);
    let maker = Maker { file, options: &options, contexts: &contexts, resolver, hooks };
    let mut graph = Graph::default();
    let mut sink = Checks::new(file, checks.clone());
    let platforms: Vec<Option<&Platform>> =
        if options.platforms.is_empty() { vec![None] } else { options.platforms.iter().map(Some).collect() };
    let mut outcomes = Vec::with_capacity(platforms.len());
    for platform in platforms {
        let (outcome, graph_after, sink_after) = maker.pass(platform, graph, sink);
        (graph, sink) = (graph_after, sink_after);
        match outcome {
            Ok(outcome) => outcomes.push(outcome),
            Err(failure) => return Err(failed(file, failure, sink.broken_off())),
        }
    }
    let findings = sink.finish();
    if checks.error && !findings.is_empty() {
        return Err(violated(file, findings));
    }
    let source_date_epoch = epoch(&options, &outcomes).map_err(|failure| failed(file, failure, findings.clone()))?;
    Ok(Planned { plan: finish(file, graph, outcomes), findings, source_date_epoch })
}

/// What all passes share.
struct Maker<'f> {
    file: &'f Dockerfile,
    options: &'f Options,
    contexts: &'f Contexts,
    resolver: &'f dyn BaseResolver,
    hooks: Hooks<'f>,
}

impl Maker<'_> {
    fn pass(
        &self,
        platform: Option<&Platform>,
        graph: Graph,
        checks: Checks,
    ) -> (Result<Outcome, Failure>, Graph, Checks) {
        let ignored: Option<Ignored<'_>> = self.hooks.ignored;
        let mut pass = Pass {
            file: self.file,
            options: self.options,
            contexts: self.contexts,
            resolver: self.resolver,
            ignored,
            all_stages: self.hooks.all_stages && self.options.target.is_none(),
            target_platform: platform.unwrap_or(&self.options.build_platform).clone(),
            implicit_platform: platform.is_none(),
            globals: Globals { env: EnvList::default(), declared: Vec::new() },
            stages: Vec::new(),
            names: Default::default(),
            graph,
            checks,
        };
        let outcome = pass.run();
        (outcome, pass.graph, pass.checks)
    }
}

/// The file's `# check=`, unless a build arg stands in its place.
fn check_options(file: &Dockerfile, options: &Options) -> Result<CheckOptions, Failure> {
    match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        Some(text) => CheckOptions::parse(text).map_err(|error| {
            Failure::new(None, format!("failed to parse BUILDKIT_DOCKERFILE_CHECK: {error}"))
                .kind(PlanErrorKind::Request)
        }),
        None => Ok(file.directives.check.clone()),
    }
}

/// An epoch from elsewhere is seen as if it were given as a build arg.
fn with_epoch(options: &Options) -> Options {
    let mut options = options.clone();
    if let Some(epoch) = options.source_date_epoch {
        options.build_args.entry(EPOCH.to_owned()).or_insert_with(|| epoch.to_string());
    }
    options
}

fn epoch(options: &Options, outcomes: &[Outcome]) -> Result<Option<i64>, Failure> {
    let given = options.build_args.get(EPOCH).or_else(|| outcomes.iter().find_map(|outcome| outcome.epoch.as_ref()));
    match given.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(|_| {
            Failure::new(None, format!("invalid SOURCE_DATE_EPOCH: {text}"))
                .kind(PlanErrorKind::Request)
                .expected("seconds since 1970 as a whole number")
        }),
        None => Ok(None),
    }
}

fn finish(file: &Dockerfile, graph: Graph, outcomes: Vec<Outcome>) -> Plan {
    let roots: Vec<StepId> = outcomes.iter().map(|outcome| outcome.root).collect();
    let bases: Vec<usize> = outcomes.iter().filter_map(|outcome| outcome.base).collect();
    let Pruned { steps, images, locals, places, image_places } = graph.prune(&roots, &bases);
    let place = |places: &BTreeMap<StepId, StepId>, id: StepId| places.get(&id).copied().unwrap_or(id);
    let targets = outcomes
        .into_iter()
        .map(|outcome| Target {
            platform: outcome.platform,
            stage: outcome.stage,
            root: place(&places, outcome.root),
            config: outcome.image,
            history: outcome
                .history
                .into_iter()
                .map(|entry| History { step: entry.step.map(|id| place(&places, id)), ..entry })
                .collect(),
            base: outcome.base.and_then(|base| image_places.get(&base).copied()),
        })
        .collect();
    Plan { steps, targets, images, locals, source: file.source.clone() }
}

fn failed(file: &Dockerfile, failure: Failure, findings: Vec<Finding>) -> PlanError {
    PlanError { kind: failure.kind, diagnostics: vec![failure.diagnostic(&file.source)], findings }
}

/// `# check=error=true`: what was found is an error.
fn violated(file: &Dockerfile, findings: Vec<Finding>) -> PlanError {
    let mut rules: Vec<&str> = findings.iter().map(|finding| finding.rule.name()).collect();
    rules.sort_unstable();
    rules.dedup();
    let failure =
        Failure::new(None, format!("lint violation found for rules: {}", rules.join(", "))).kind(PlanErrorKind::Checks);
    let mut diagnostics = vec![failure.diagnostic(&file.source)];
    diagnostics.extend(findings.iter().map(|finding| finding.diagnostic(&file.source)));
    PlanError { kind: PlanErrorKind::Checks, diagnostics, findings }
}
