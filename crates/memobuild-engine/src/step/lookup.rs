//! Looking for a known result, from cheap to dear: by the identities of whole trees, by those of the parts that are
//! used, by facts.

use std::sync::Arc;

use memobuild_observe::TraceEvent;
use memobuild_plan::model::{Op, Step};
use memobuild_tree::{KeyDigest, TreeDigest};

use super::{Lookup, Miss, Prepared, Values, copy, facts::Facts, fresh, inputs, reason};
use crate::{
    EngineError,
    keys::{self, Level},
    memo::{Memo, exact, renewal},
    session::Session,
    value::{Source, Value},
};

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
    let mut expired = false;
    if !replace && let Some(hit) = find(session, step, &parent, &keys, &mut expired)? {
        return Ok(Lookup::Hit(hit));
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
        if !replace && let Some((hit, memo)) = find_memo(session, step, &parent, &second, &mut expired)? {
            exact::record(session.store, keys.get(..1).unwrap_or_default(), &memo)?;
            return Ok(Lookup::Hit(hit));
        }
    }
    let facts = Facts::of(session, step, &definition, &parts, values)?;
    if !replace
        && let Some(facts) = &facts
        && let Some(hit) = facts.find(session, step, values)?
    {
        let memo = Memo {
            bundle: hit.value.change.map(|(bundle, _)| bundle),
            identity: hit.value.identity(),
            created: hit.created,
            millis: hit.millis,
        };
        exact::record(session.store, &keys, &memo)?;
        return Ok(Lookup::Hit(hit.value));
    }
    let miss = |reason: String| {
        let replace = replace || expired;
        Lookup::Miss(Box::new(Miss {
            definition,
            renewed: renewed.map(|renewed| (defined, renewed)),
            keys,
            inputs: parts.clone(),
            facts: facts.clone(),
            reason,
            replace,
            prepared,
        }))
    };
    let reason = match (step.ignore_cache, forced, expired) {
        (true, ..) => "the cache is not to be used for it".into(),
        (_, true, _) => "files of a step before it are newer now, and a later step compares times".into(),
        (_, _, true) => "its result is older than its max-age".into(),
        _ => why(session, step, &definition, &parts, facts.as_ref(), values)?,
    };
    Ok(miss(reason))
}

pub(super) fn find(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    keys: &[KeyDigest],
    expired: &mut bool,
) -> Result<Option<Arc<Value>>, EngineError> {
    let Some(key) = keys.last() else { return Ok(None) };
    Ok(find_memo(session, step, parent, key, expired)?.map(|(value, _)| value))
}

fn find_memo(
    session: &Session<'_>,
    step: &Step,
    parent: &Arc<Value>,
    key: &KeyDigest,
    expired: &mut bool,
) -> Result<Option<(Arc<Value>, Memo)>, EngineError> {
    let found = exact::find(session.store, key)?;
    *expired |= found.is_some_and(|memo| !fresh(session, step, memo.created));
    let id = step.id.0;
    Ok(match found.filter(|memo| fresh(session, step, memo.created)) {
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

/// Why nothing was found: the facts that broke, or else what is known of the inputs.
fn why(
    session: &Session<'_>,
    step: &Step,
    definition: &KeyDigest,
    parts: &[TreeDigest],
    facts: Option<&Facts>,
    values: &Values,
) -> Result<String, EngineError> {
    if let Some(facts) = facts
        && let Some(broken) = facts.broken(session, step, values)?
        && let Some(reason) = reason::of_broken(step, &broken)
    {
        return Ok(reason);
    }
    let Some(seen) = exact::last_seen(session.store, definition)? else {
        return Ok("this command has not run in this cache before".into());
    };
    let below = seen.first() != parts.first();
    let sources = seen.get(1..) != parts.get(1..);
    let what = if matches!(step.op, Op::Copy(_)) { "what it copies" } else { "what it mounts" };
    Ok(match (below, sources) {
        (_, true) if matches!(step.op, Op::Copy(_)) => format!("{what} changed"),
        (true, true) => format!("the files below it and {what} changed"),
        (true, false) => "the files below it changed".into(),
        (false, true) => format!("{what} changed"),
        (false, false) => "its result is no longer in the cache".into(),
    })
}
