//! Looking for a known result, from cheap to dear: by the identities of whole trees, by those of the parts that are
//! used, by facts.

use std::sync::Arc;

use memobuild_observe::TraceEvent;
use memobuild_plan::model::{Op, Step};
use memobuild_tree::{KeyDigest, TreeDigest};

use super::{Learnt, Lookup, Miss, Prepared, Values, Why, copy, facts::Facts, fresh, inputs, past, reason};
use crate::{
    EngineError,
    history::FoundBy,
    keys::{self, Level},
    memo::{Memo, exact, renewal},
    session::Session,
    value::{Source, Value},
};

/// Why a result that is there is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is older than it may be.
    Expired,
    /// The files that the step looks at are written in another order.
    Reordered,
}

pub(crate) fn look_up(session: &Session<'_>, step: &Step, values: &Values) -> Result<Lookup, EngineError> {
    let epoch = session.commit_epoch;
    let defined = match &step.op {
        Op::Run(run) => keys::run(run, &step.platform.to_string(), session.ownership(), epoch),
        Op::Copy(copy) => keys::copy(copy, epoch),
        Op::Mkdir(mkdir) => keys::mkdir(mkdir, epoch),
        _ => return Ok(Lookup::Source),
    };
    // What other steps yield hangs on their inputs alone.
    let is_run = matches!(step.op, Op::Run(_));
    let renewed = (is_run && step.ignore_cache).then(|| renewal::begin(&defined));
    let history = match renewed {
        Some(renewed) => renewed,
        None if is_run => renewal::current(session.store, &defined)?,
        None => defined,
    };
    // Under `stat=kind` a result holds for trees that it was not made over, and must not be found without it.
    let definition = if step.hints.stat_kind { keys::base(&history, true) } else { history };
    let forced = session.is_forced(step.id);
    let replace = step.ignore_cache || forced;
    let parent = inputs::parent(step, values)?;
    let trees = inputs::trees(step, values)?;
    let mut keys = vec![keys::exact(&definition, Level::Trees, &trees)];
    let learnt = Learnt {
        definition,
        exact: keys::exact(&definition, Level::Trees, &trees),
        base: Facts::base(session, step, &definition),
        found: None,
        created: 0,
        millis: 0,
        seen: None,
        why: Why::default(),
    };
    let hit = |value: Arc<Value>, found: FoundBy, memo: &Memo| {
        let Memo { created, millis, seen, .. } = *memo;
        Lookup::Hit(value, Box::new(Learnt { found: Some(found), created, millis, seen, ..learnt.clone() }))
    };
    let mut refused = None;
    if !replace && let Some((value, memo)) = find(session, step, &parent, values, &keys, &mut refused)? {
        return Ok(hit(value, FoundBy::Exact, &memo));
    }
    let (parts, prepared) = match &step.op {
        Op::Copy(copy) => {
            let prepared = copy::prepare(session, copy, values)?;
            (copy::parts(&parent, &prepared), Prepared::Copy(prepared))
        }
        Op::Run(run) => (inputs::run_parts(session, run, values)?, Prepared::Run),
        _ => (trees.clone(), Prepared::Mkdir),
    };
    let second = keys::exact(&definition, Level::Parts, &parts);
    if parts != trees {
        keys.push(second);
        if !replace && let Some((value, memo)) = find_memo(session, step, &parent, values, &second, &mut refused)? {
            exact::record(session.store, keys.get(..1).unwrap_or_default(), &memo)?;
            session.share.note(step.id, exact::RESULTS, &keys);
            return Ok(hit(value, FoundBy::Parts, &memo));
        }
    }
    let facts = Facts::of(session, step, &definition, &parts, values)?;
    if !replace
        && let Some(facts) = &facts
        && let Some(found) = facts.find(session, step, values)?
    {
        let memo = found.memo();
        exact::record(session.store, &keys, &memo)?;
        session.share.note(step.id, exact::RESULTS, &keys);
        return Ok(hit(found.value, FoundBy::Facts, &memo));
    }
    let expired = refused == Some(Refused::Expired);
    let why = match (step.ignore_cache, forced, refused) {
        (true, ..) => Why::new(true, "the cache is not to be used for it"),
        (_, true, _) => Why::new(true, "files of a step before it are newer now, and a later step compares times"),
        (_, _, Some(Refused::Expired)) => Why::new(true, "its result is older than its max-age"),
        (_, _, Some(Refused::Reordered)) => Why::new(true, "the order in which its files were written changed"),
        _ => why(session, step, &definition, &parts, facts.as_ref(), values)?,
    };
    let learnt = Learnt { why, ..learnt };
    let replace = replace || expired;
    Ok(Lookup::Miss(Box::new(Miss {
        definition,
        renewed: renewed.map(|renewed| (defined, renewed)),
        keys,
        inputs: parts,
        facts,
        learnt,
        replace,
        prepared,
    })))
}

pub(super) fn find(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    values: &Values,
    keys: &[KeyDigest],
    refused: &mut Option<Refused>,
) -> Result<Option<(Arc<Value>, Memo)>, EngineError> {
    let Some(key) = keys.last() else { return Ok(None) };
    find_memo(session, step, parent, values, key, refused)
}

fn find_memo(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    values: &Values,
    key: &KeyDigest,
    refused: &mut Option<Refused>,
) -> Result<Option<(Arc<Value>, Memo)>, EngineError> {
    let found = exact::find(session.store, key)?;
    let id = step.id.0;
    let mut found = match found {
        Some(memo) if !fresh(session, step, memo.created) => {
            *refused = Some(Refused::Expired);
            None
        }
        found => found,
    };
    if let Some(memo) = &mut found {
        let past = past::digest(session, step, values);
        if memo.past != past {
            if past::holds(session, step, values, memo)? {
                memo.past = past;
                exact::record(session.store, &[*key], memo)?;
            } else {
                *refused = Some(Refused::Reordered);
                found = None;
            }
        }
    }
    Ok(match found {
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

/// Why nothing was found: the facts that broke, or else what is known of the definition and of the inputs.
fn why(
    session: &Session<'_>,
    step: &Step,
    definition: &KeyDigest,
    parts: &[TreeDigest],
    facts: Option<&Facts>,
    values: &Values,
) -> Result<Why, EngineError> {
    if let Some(facts) = facts
        && let Some((compared, broken)) = facts.broken(session, step, values)?
        && let Some(reason) = reason::of_broken(step, &broken)
    {
        let (broken_count, broken) = (broken.len(), reason::facts(step, &broken));
        let compared = Some(compared);
        return Ok(Why { broken, broken_count, compared, ..Why::new(true, reason) });
    }
    let Some(seen) = exact::last_seen(session.store, definition)? else {
        let redefined = session.redefined(step);
        return Ok(match reason::listed(&redefined) {
            Some(reason) => Why { redefined, ..Why::new(true, reason) },
            None => Why::new(false, "this command has not run in this cache before"),
        });
    };
    let below = seen.first() != parts.first();
    let sources = seen.get(1..) != parts.get(1..);
    let what = if matches!(step.op, Op::Copy(_)) { "what it copies" } else { "what it mounts" };
    let reason = match (below, sources) {
        (_, true) if matches!(step.op, Op::Copy(_)) => format!("{what} changed"),
        (true, true) => format!("the files below it and {what} changed"),
        (true, false) => "the files below it changed".into(),
        (false, true) => format!("{what} changed"),
        (false, false) => "its result is no longer in the cache".into(),
    };
    Ok(Why::new(true, reason))
}
