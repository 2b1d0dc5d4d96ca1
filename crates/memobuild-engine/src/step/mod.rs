//! One step: its keys, the look-up of a known result, and its execution.

mod copy;
mod execute;
mod facts;
mod inputs;
mod lookup;
mod mkdir;
mod mounts;
mod mutation;
mod order;
mod past;
mod reason;
mod run;
mod source;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_plan::model::{Network, Op, Step, StepId};
use memobuild_tree::{BundleId, KeyDigest, Tree, TreeDigest, facts::Looks};

use crate::{
    EngineError,
    history::{BrokenFact, FoundBy},
    memo::facts::Known,
    session::Session,
    value::Value,
};

pub(crate) use execute::{Ahead, execute, foresee};
pub(crate) use lookup::look_up;
pub(crate) use mounts::save_cache_mount;
pub(crate) use source::yield_source;

/// Values of the steps that are done, by their place in the plan.
pub(crate) type Values = [Option<Arc<Value>>];

/// What a look-up found.
pub(crate) enum Lookup {
    /// A known result.
    Hit(Arc<Value>, Box<Learnt>),
    /// None; the step must be executed.
    Miss(Box<Miss>),
    /// The step is not one whose result is looked up: it yields its tree itself.
    Source,
}

/// What a look-up learnt, for the record of the build.
#[derive(Debug, Clone)]
pub(crate) struct Learnt {
    pub(crate) definition: KeyDigest,
    pub(crate) exact: KeyDigest,
    pub(crate) base: Option<KeyDigest>,
    /// The result that was found.
    pub(crate) found: Option<FoundBy>,
    /// When it was made, and how long that took.
    pub(crate) created: i64,
    pub(crate) millis: u64,
    /// What it is by its facts.
    pub(crate) seen: Option<Known>,
    /// Why none was found.
    pub(crate) why: Why,
}

/// Why no result was found, for a person.
#[derive(Debug, Clone, Default)]
pub(crate) struct Why {
    pub(crate) reason: String,
    /// There is a result of it, or of what stood in its place: it runs again.
    pub(crate) again: bool,
    pub(crate) broken: Vec<BrokenFact>,
    pub(crate) broken_count: usize,
    pub(crate) redefined: Vec<String>,
    /// The result whose facts broke.
    pub(crate) compared: Option<KeyDigest>,
}

impl Why {
    fn new(again: bool, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again, ..Self::default() }
    }
}

/// Everything that a look-up learnt and the execution goes on with.
pub(crate) struct Miss {
    /// What its keys are made of.
    definition: KeyDigest,
    /// The step's definition and the history that begins with its result, if it was asked to run anew.
    renewed: Option<(KeyDigest, KeyDigest)>,
    keys: Vec<KeyDigest>,
    inputs: Vec<TreeDigest>,
    facts: Option<facts::Facts>,
    pub(crate) learnt: Learnt,
    /// It runs though there may be a result: what it yields takes that one's place.
    replace: bool,
    prepared: Prepared,
}

/// What the look-up has worked out already.
enum Prepared {
    Run,
    Copy(copy::Prepared),
    Mkdir,
}

/// How an execution ended.
pub(crate) enum Executed {
    /// With a result, which is that by its facts.
    Done(Arc<Value>, Option<Known>),
    /// It saw files of these steps that are older than those of steps before them: they have to run again first.
    Redo(BTreeSet<StepId>),
}

/// A committed change.
pub(crate) struct Committed {
    bundle: Option<BundleId>,
    tree: Tree,
    /// What it depends on, where all of that was seen.
    looks: Option<Vec<Looks>>,
    /// Whether the result is what its keys say. Else it serves this build alone.
    sound: bool,
}

pub(crate) fn value(values: &Values, id: StepId) -> Result<&Arc<Value>, EngineError> {
    values.get(id.0).and_then(Option::as_ref).ok_or_else(|| EngineError::step("a step ran before its input"))
}

/// The step whose tree the step changes.
pub(crate) fn parent(step: &Step) -> Option<StepId> {
    match &step.op {
        Op::Run(run) => Some(run.parent),
        Op::Copy(copy) => Some(copy.parent),
        Op::Mkdir(mkdir) => Some(mkdir.parent),
        _ => None,
    }
}

/// The step at the bottom of a chain of changes: an image, a context, or nothing.
pub(crate) fn bottom(steps: &[Step], from: StepId) -> StepId {
    std::iter::successors(Some(from), |at| steps.get(at.0).and_then(parent)).last().unwrap_or(from)
}

/// Whether a result of that age may be used: `# memobuild: max-age=...`, and `--max-age` for what can use the network.
fn fresh(session: &Session<'_>, step: &Step, created: i64) -> bool {
    let online = matches!(&step.op, Op::Run(run) if run.network != Network::None);
    let max = step.hints.max_age.or(session.request.max_age.filter(|_| online));
    max.is_none_or(|max| {
        let age = now_secs().saturating_sub(created);
        u64::try_from(age).is_ok_and(|age| age <= max.as_secs())
    })
}

fn now_secs() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
