//! One step: its keys, the look-up of a known result, and its execution.

mod copy;
mod inputs;
mod mkdir;
mod mounts;
mod run;
mod source;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use memobuild_observe::TraceEvent;
use memobuild_plan::model::{Op, Step, StepId};
use memobuild_tree::{BundleId, KeyDigest, Tree, TreeDigest};

use crate::{
    EngineError,
    keys::{self, Level},
    memo::{self, Memo},
    session::Session,
    value::{Source, Value},
};

/// Values of the steps that are done, by their place in the plan.
pub(crate) type Values = [Option<Arc<Value>>];

/// What a look-up found.
pub(crate) enum Lookup {
    /// A known result.
    Hit(Arc<Value>),
    /// None; the step must be executed.
    Miss(Box<Miss>),
    /// The step is not one whose result is looked up: it yields its tree itself.
    Source,
}

/// Everything that a look-up learnt and the execution goes on with.
pub(crate) struct Miss {
    pub(crate) definition: KeyDigest,
    pub(crate) keys: Vec<KeyDigest>,
    inputs: Vec<TreeDigest>,
    /// Why there is no result, for a person.
    pub(crate) reason: String,
    prepared: Prepared,
}

/// What the look-up has worked out already.
enum Prepared {
    Run,
    Copy(copy::Prepared),
    Mkdir,
}

/// A committed change.
pub(crate) struct Committed {
    bundle: Option<BundleId>,
    tree: Tree,
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

/// Looks for a known result: by the identities of whole trees first, then by those of the parts that are used.
/// The step at the bottom of a chain of changes: an image, a context, or nothing.
pub(crate) fn bottom(steps: &[Step], from: StepId) -> StepId {
    std::iter::successors(Some(from), |at| steps.get(at.0).and_then(parent)).last().unwrap_or(from)
}

pub(crate) fn look_up(session: &Session<'_>, step: &Step, values: &Values) -> Result<Lookup, EngineError> {
    let epoch = session.commit_epoch;
    let definition = match &step.op {
        Op::Run(run) => keys::run(run, &step.platform.to_string(), session.ownership(), epoch),
        Op::Copy(copy) => keys::copy(copy, epoch),
        Op::Mkdir(mkdir) => keys::mkdir(mkdir, epoch),
        _ => return Ok(Lookup::Source),
    };
    let parent = inputs::parent(step, values)?;
    let trees = inputs::trees(step, values)?;
    let mut keys = vec![keys::exact(&definition, Level::Trees, &trees)];
    if let Some(hit) = find(session, step, &parent, &keys)? {
        return Ok(Lookup::Hit(hit));
    }
    let (parts, prepared) = match &step.op {
        Op::Copy(copy) => {
            let prepared = copy::prepare(session, copy, values)?;
            (copy::parts(&parent, copy, &prepared), Prepared::Copy(prepared))
        }
        Op::Run(run) => (inputs::run_parts(session, run, values)?, Prepared::Run),
        _ => (trees.clone(), Prepared::Mkdir),
    };
    let second = keys::exact(&definition, Level::Parts, &parts);
    if parts != trees {
        keys.push(second);
        if let Some((hit, memo)) = find_memo(session, step, &parent, &second)? {
            memo::record(session.store, keys.get(..1).unwrap_or_default(), &memo)?;
            return Ok(Lookup::Hit(hit));
        }
    }
    let reason = reason(session, step, &definition, &parts)?;
    Ok(Lookup::Miss(Box::new(Miss { definition, keys, inputs: parts, reason, prepared })))
}

fn find(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    keys: &[KeyDigest],
) -> Result<Option<Arc<Value>>, EngineError> {
    let Some(key) = keys.last() else { return Ok(None) };
    Ok(find_memo(session, step, parent, key)?.map(|(value, _)| value))
}

fn find_memo(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    key: &KeyDigest,
) -> Result<Option<(Arc<Value>, Memo)>, EngineError> {
    if step.ignore_cache {
        return Ok(None);
    }
    let memo = memo::find(session.store, key)?.filter(|memo| fresh(step, memo));
    let id = step.id.0;
    Ok(match memo {
        Some(memo) => {
            session.emit(TraceEvent::CacheHit { step: id, key: key.hex() });
            let source = match memo.bundle {
                Some(bundle) => Source::Applied(parent.clone(), bundle, memo.created),
                None => Source::Same(parent.clone()),
            };
            Some((Value::lazy(memo.identity, source), memo))
        }
        None => {
            session.emit(TraceEvent::CacheMiss { step: id, key: key.hex() });
            None
        }
    })
}

/// `# memobuild: max-age=...`.
fn fresh(step: &Step, memo: &Memo) -> bool {
    step.hints.max_age.is_none_or(|max| {
        let age = now_secs().saturating_sub(memo.created);
        u64::try_from(age).is_ok_and(|age| age <= max.as_secs())
    })
}

fn now_secs() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn reason(
    session: &Session<'_>,
    step: &Step,
    definition: &KeyDigest,
    parts: &[TreeDigest],
) -> Result<String, EngineError> {
    if step.ignore_cache {
        return Ok("the cache is not to be used for it".into());
    }
    let Some(seen) = memo::last_seen(session.store, definition)? else {
        return Ok("this command has not run in this cache before".into());
    };
    let below = seen.first() != parts.first();
    let sources = seen.get(1..) != parts.get(1..);
    let what = if matches!(step.op, Op::Copy(_)) { "what it copies" } else { "what it mounts" };
    Ok(match (below, sources) {
        (true, true) => format!("the files below it and {what} changed"),
        (true, false) => "the files below it changed".into(),
        (false, true) => format!("{what} changed"),
        (false, false) => "its result is no longer in the cache".into(),
    })
}

/// Executes a step whose result is not known, and records the result.
pub(crate) fn execute(
    session: &Session<'_>,
    step: &Step,
    miss: Miss,
    values: &Values,
) -> Result<Arc<Value>, EngineError> {
    // One at a time among all processes that share the cache: whoever comes second finds the first one's result.
    let name = miss.keys.last().map_or_else(String::new, |key| format!("step-{}", key.hex()));
    let (lock, waited) = match session.store.try_lock(&name, true)? {
        Some(lock) => (lock, false),
        None => (session.store.lock(&name, true)?, true),
    };
    let parent = inputs::parent(step, values)?;
    if waited && let Some(hit) = find(session, step, &parent, &miss.keys)? {
        return Ok(hit);
    }
    let begin = Instant::now();
    let committed = match (&step.op, miss.prepared) {
        (Op::Run(run), _) => run::execute(session, step, run, values)?,
        (Op::Copy(copy), Prepared::Copy(prepared)) => copy::execute(session, copy, &prepared, values)?,
        (Op::Mkdir(mkdir), _) => mkdir::execute(session, mkdir, values)?,
        _ => return Err(EngineError::step("a source has no result to record")),
    };
    let memo = Memo {
        bundle: committed.bundle,
        identity: committed.tree.identity(),
        created: now_secs(),
        millis: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    if committed.sound {
        memo::record(session.store, &miss.keys, &memo)?;
    }
    memo::note_seen(session.store, &miss.definition, &miss.inputs)?;
    drop(lock);
    Ok(match committed.bundle {
        Some(bundle) => Value::ready(committed.tree, Some((bundle, memo.created))),
        None => Value::lazy(memo.identity, Source::Same(parent)),
    })
}

/// What a missed step would yield, worked out without running or storing anything; `None` where only running it can
/// tell. For `--dry-run`.
pub(crate) fn foresee(session: &Session<'_>, step: &Step, miss: &Miss, values: &Values) -> Option<Arc<Value>> {
    match (&step.op, &miss.prepared) {
        (Op::Copy(copy), Prepared::Copy(prepared)) => copy::foresee(session, copy, prepared, values).ok()?,
        (Op::Mkdir(mkdir), _) => mkdir::foresee(session, mkdir, values).ok(),
        _ => None,
    }
}

pub(crate) use source::yield_source;
