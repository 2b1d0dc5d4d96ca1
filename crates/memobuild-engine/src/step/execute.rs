//! Executing a step whose result is not known, and recording the result.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use memobuild_plan::model::{Op, Step, StepId};
use memobuild_tree::{Diff, facts::Looks};

use super::{
    Committed, Executed, Miss, Prepared, Values, copy,
    facts::{self, Recorded},
    inputs, lookup, mkdir, now_secs, order,
    past::{self, Past},
    run::{self, Ran},
};
use crate::{
    EngineError,
    memo::{
        Memo, exact,
        facts::{Found, Known},
        renewal,
    },
    session::Session,
    value::{Source, Value},
};

/// Executes a step whose result is not known, and records the result.
pub(crate) fn execute(
    session: &Session<'_>,
    step: &Step,
    miss: Miss,
    values: &Values,
) -> Result<Executed, EngineError> {
    // One at a time among all processes that share the cache: whoever comes second finds the first one's result.
    let name = miss.keys.last().map_or_else(String::new, |key| format!("step-{}", key.hex()));
    let (lock, waited) = match session.store.try_lock(&name, true)? {
        Some(lock) => (lock, false),
        None => (session.store.lock(&name, true)?, true),
    };
    let parent = inputs::parent(step, values)?;
    if waited
        && !miss.replace
        && let Some((value, memo)) = lookup::find(session, step, &parent, values, &miss.keys, &mut None)?
    {
        return Ok(Executed::Done(value, memo.seen));
    }
    let begin = Instant::now();
    let committed = match (&step.op, &miss.prepared) {
        (Op::Run(run), _) => {
            let ran = run::execute(session, step, run, values)?;
            let looks = match &ran {
                Ran::Done(committed) => &committed.looks,
                Ran::Failed(_, looks) => looks,
            };
            let old = too_old(session, step, values, looks.as_deref())?;
            match ran {
                // What failed may have been misled as well.
                _ if !old.is_empty() => return Ok(Executed::Redo(old)),
                Ran::Done(committed) => committed,
                Ran::Failed(error, _) => return Err(*error),
            }
        }
        (Op::Copy(copy), Prepared::Copy(prepared)) => copy::execute(session, copy, prepared, values)?,
        (Op::Mkdir(mkdir), _) => mkdir::execute(session, mkdir, values)?,
        _ => return Err(EngineError::step("a source has no result to record")),
    };
    let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (value, seen) = record(session, step, &miss, values, &parent, committed, millis)?;
    drop(lock);
    Ok(Executed::Done(value, seen))
}

/// The steps to run again before this one's outcome can be trusted; see [`order`].
fn too_old(
    session: &Session<'_>,
    step: &Step,
    values: &Values,
    looks: Option<&[Looks]>,
) -> Result<BTreeSet<StepId>, EngineError> {
    let trees = facts::trees(session, step, values)?;
    let (Some(looks), Some(trees)) = (looks, trees) else { return Ok(BTreeSet::new()) };
    let mut old = order::too_old(session, step, values, looks, &trees)?;
    old.retain(|id| !session.is_forced(*id));
    Ok(old)
}

fn record(
    session: &Session<'_>,
    step: &Step,
    miss: &Miss,
    values: &Values,
    parent: &Arc<Value>,
    committed: Committed,
    millis: u64,
) -> Result<(Arc<Value>, Option<Known>), EngineError> {
    let Committed { bundle, tree, looks, sound } = committed;
    let created = now_secs();
    let mut value = match bundle {
        Some(bundle) => Value::ready(tree, Some((bundle, created))),
        None => Value::lazy(tree.identity(), Source::Same(parent.clone())),
    };
    exact::note_seen(session.store, &miss.definition, &miss.inputs)?;
    if !sound {
        return Ok((value, None));
    }
    let past = past::digest(session, step, values);
    let mut memo = Memo { bundle, identity: value.identity(), created, millis, seen: None, past, order: past };
    let mut ordered = false;
    if let (Some(facts), Some(looks)) = (&miss.facts, &looks) {
        let found = Found { bundle, created, millis, glances: Vec::new() };
        // The same COPY with other times takes the place of one whose times are out of order.
        let replace = miss.replace || matches!(step.op, Op::Copy(_));
        match facts.record(session, step, values, looks, found, replace)? {
            Recorded::Ours(known, order) => (memo.seen, memo.order, ordered) = (Some(known), order, true),
            Recorded::First(first) => {
                // Another process ran the same at the same time: everybody goes on from what it recorded.
                memo = first.memo();
                value = first.value;
                ordered = true;
            }
            Recorded::Not => {}
        }
    }
    if !ordered {
        memo.order = Past::of(session, step, values)?.order(session, step, values, None)?;
    }
    exact::record(session.store, &miss.keys, &memo)?;
    session.share.note(step.id, exact::RESULTS, &miss.keys);
    if let Some((definition, renewed)) = &miss.renewed {
        renewal::note(session.store, definition, renewed)?;
    }
    Ok((value, memo.seen))
}

/// What a missed step would yield.
pub(crate) struct Ahead {
    pub(crate) value: Arc<Value>,
    pub(crate) diff: Diff,
}

/// What a missed step would yield, worked out without running or storing anything; `None` where only running it can
/// tell. For `--dry-run`.
pub(crate) fn foresee(session: &Session<'_>, step: &Step, miss: &Miss, values: &Values) -> Option<Ahead> {
    match (&step.op, &miss.prepared) {
        (Op::Copy(copy), Prepared::Copy(prepared)) => copy::foresee(session, copy, prepared, values).ok()?,
        (Op::Mkdir(mkdir), _) => mkdir::foresee(session, mkdir, values).ok(),
        _ => None,
    }
}
