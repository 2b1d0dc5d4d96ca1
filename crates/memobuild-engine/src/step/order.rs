//! Time keeps its order.
//!
//! In a build from nothing a later step's files are newer than an earlier one's. When an earlier step ran again and a
//! later one was reused, its files look older: whoever compares times (`make`) would be misled. So after a step has
//! run, the files that it looked at are checked: if a step B stands on a step A, and a file of B is older than a file
//! of A, then B has to run again before the step itself is run once more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use memobuild_plan::model::{Step, StepId};
use memobuild_tree::{Change, ContentDigest, File, Mtime, Node, Tree, facts::Looks};

use super::{Values, mutation, past::is_run};
use crate::{EngineError, session::Session};

type Time = (i64, u32);
/// Files by what does not change when they are passed on.
type Files = HashSet<(Time, ContentDigest)>;

/// Oldest and newest of some files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    oldest: Time,
    newest: Time,
}

impl Span {
    /// Adds a file of a step.
    pub(super) fn add(spans: &mut BTreeMap<StepId, Self>, id: StepId, time: Mtime) {
        let time = (time.secs, time.nanos);
        let span = spans.entry(id).or_insert(Self { oldest: time, newest: time });
        *span = Self { oldest: span.oldest.min(time), newest: span.newest.max(time) };
    }
}

/// The steps with files that are older than files of a step that they stand on.
pub(super) fn inverted(session: &Session<'_>, spans: &BTreeMap<StepId, Span>) -> BTreeSet<StepId> {
    let mut out = BTreeSet::new();
    for (a, first) in spans {
        let later = spans.iter().filter(|(b, second)| session.above(**b).contains(a) && first.newest > second.oldest);
        out.extend(later.map(|(b, _)| *b));
    }
    out
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
    if session.commit_epoch.is_some() || mutation::drops("order") {
        // All times are one.
        return Ok(BTreeSet::new());
    }
    let (mut written, mut spans): (Vec<(StepId, Files)>, _) = (Vec::new(), BTreeMap::new());
    for id in session.above(step.id).iter().copied().filter(|id| is_run(session, *id)) {
        let Some(Some((bundle, _))) = values.get(id.0).and_then(Option::as_ref).map(|v| v.change) else { continue };
        let Some(diff) = session.store.load_bundle(&bundle)? else { continue };
        let mut files = Files::new();
        diff.walk(&mut |_, change| {
            if let Change::Put(Node::File(file)) = change
                && !file.meta.mtime.pinned
            {
                files.insert(key(file));
                Span::add(&mut spans, id, file.meta.mtime);
            }
        });
        written.push((id, files));
    }
    if inverted(session, &spans).is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut seen = BTreeMap::new();
    for (looks, tree) in looks.iter().zip(trees) {
        for (path, _) in looks.iter() {
            let Some(Node::File(file)) = tree.get(path) else { continue };
            // Steps that passed a file on kept its time: the first that has it wrote it.
            let writer = written.iter().find(|(_, files)| files.contains(&key(&file)));
            if let Some((id, _)) = writer.filter(|_| !file.meta.mtime.pinned) {
                Span::add(&mut seen, *id, file.meta.mtime);
            }
        }
    }
    Ok(inverted(session, &seen))
}

fn key(file: &File) -> (Time, ContentDigest) {
    ((file.meta.mtime.secs, file.meta.mtime.nanos), file.content)
}
