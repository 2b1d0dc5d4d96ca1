//! Time keeps its order.
//!
//! In a build from nothing a later step's files are newer than an earlier one's. When an earlier step ran again and a
//! later one was reused, its files look older: whoever compares times (`make`) would be misled. So after a step has
//! run, the files that it looked at are checked: if a step B stands on a step A, and a file of B is older than a file
//! of A, then B has to run again before the step itself is run once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use memobuild_plan::model::{Op, Step, StepId};
use memobuild_tree::{Change, ContentDigest, Node, Tree, facts::Looks};

use super::Values;
use crate::{EngineError, schedule, session::Session};

type Time = (i64, u32);
/// Files by what does not change when they are passed on.
type Files = HashSet<(Time, ContentDigest)>;

/// Oldest and newest of some files.
#[derive(Debug, Clone, Copy)]
struct Span {
    oldest: Time,
    newest: Time,
}

impl Span {
    fn with(known: Option<Self>, time: Time) -> Self {
        let Self { oldest, newest } = known.unwrap_or(Self { oldest: time, newest: time });
        Self { oldest: oldest.min(time), newest: newest.max(time) }
    }
}

/// The steps to run again, whose files are older than those of steps that they stand on, as far as `looks` at `trees`
/// saw both. Only times of writing count: one that was set on purpose is content.
pub(super) fn too_old(
    session: &Session<'_>,
    step: &Step,
    values: &Values,
    looks: &[Looks],
    trees: &[Tree],
) -> Result<BTreeSet<StepId>, EngineError> {
    if session.commit_epoch.is_some() {
        // All times are one.
        return Ok(BTreeSet::new());
    }
    let above = Ancestors::of(session, step.id);
    let mut written: Vec<(StepId, Files, Span)> = Vec::new();
    for id in above.runs(session) {
        let Some(Some((bundle, _))) = values.get(id.0).and_then(Option::as_ref).map(|v| v.change) else { continue };
        let Some(diff) = session.store.load_bundle(&bundle)? else { continue };
        let (mut files, mut span) = (Files::new(), None);
        diff.walk(&mut |_, change| {
            if let Change::Put(Node::File(file)) = change
                && !file.meta.mtime.pinned
            {
                let time = (file.meta.mtime.secs, file.meta.mtime.nanos);
                files.insert((time, file.content));
                span = Some(Span::with(span, time));
            }
        });
        if let Some(span) = span {
            written.push((id, files, span));
        }
    }
    let inverted = |spans: &[(StepId, Span)]| -> BTreeSet<StepId> {
        let mut out = BTreeSet::new();
        for (a, first) in spans {
            let later = spans.iter().filter(|(b, second)| above.stands_on(*b, *a) && first.newest > second.oldest);
            out.extend(later.map(|(b, _)| *b));
        }
        out
    };
    let spans: Vec<_> = written.iter().map(|(id, _, span)| (*id, *span)).collect();
    if inverted(&spans).is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut seen: BTreeMap<StepId, Span> = BTreeMap::new();
    for (looks, tree) in looks.iter().zip(trees) {
        for (path, _) in looks.iter() {
            let Some(Node::File(file)) = tree.get(path) else { continue };
            let time = (file.meta.mtime.secs, file.meta.mtime.nanos);
            // Steps that passed a file on kept its time: the first that has it wrote it.
            let writer = written.iter().find(|(_, files, _)| files.contains(&(time, file.content)));
            if let Some((id, ..)) = writer.filter(|_| !file.meta.mtime.pinned) {
                seen.insert(*id, Span::with(seen.get(id).copied(), time));
            }
        }
    }
    let seen: Vec<_> = seen.into_iter().collect();
    Ok(inverted(&seen))
}

/// The steps that a step stands on, directly or not, and what each of those stands on.
struct Ancestors(BTreeMap<StepId, BTreeSet<StepId>>);

impl Ancestors {
    fn of(session: &Session<'_>, id: StepId) -> Self {
        let steps = &session.plan.steps;
        let mut all: BTreeMap<StepId, BTreeSet<StepId>> = BTreeMap::new();
        // Inputs stand before their users in the plan.
        for step in steps.iter().take(id.0 + 1) {
            let mut above = schedule::inputs(step);
            for input in above.clone() {
                above.extend(all.get(&input).into_iter().flatten().copied());
            }
            all.insert(step.id, above);
        }
        let mine = all.get(&id).cloned().unwrap_or_default();
        all.retain(|known, _| mine.contains(known));
        Self(all)
    }

    /// Those that run commands, in the plan's order.
    fn runs<'a>(&'a self, session: &'a Session<'_>) -> impl Iterator<Item = StepId> + 'a {
        let is_run = |id: &StepId| session.plan.steps.get(id.0).is_some_and(|s| matches!(s.op, Op::Run(_)));
        self.0.keys().copied().filter(move |id| is_run(id))
    }

    fn stands_on(&self, upper: StepId, lower: StepId) -> bool {
        self.0.get(&upper).is_some_and(|above| above.contains(&lower))
    }
}
