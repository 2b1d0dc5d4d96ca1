//! In which order the files that a step looks at were written.
//!
//! A build from nothing writes a later step's files later, and programs compare times (`make`, `find -newer`). Keys hold
//! no times of writing, so that results hold on other days; what they hold of them is their order: which files that RUNs
//! wrote have the same writer, and which writer stands on which. The order of one step's files is that step's result, and
//! that of stages side by side is anybody's.
//!
//! Finding that out takes the changes of all steps below. Where those are the very same as when a result was recorded,
//! which [`digest`] tells, there is nothing to find out.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use memobuild_plan::model::{Copy, CopySource, MountKind, Op, Step, StepId};
use memobuild_tree::{
    BundleId, Change, ContentDigest, Diff, File, KeyDigest, KeyHasher, Node,
    facts::{Observed, PathSet},
    path,
};

use super::{
    Values, copy, facts, mutation,
    order::{self, Span},
    parent, value,
};
use crate::{EngineError, memo::Memo, session::Session};

/// The changes of all RUNs whose files a step can see, in the plan's order.
pub(super) fn digest(session: &Session<'_>, step: &Step, values: &Values) -> KeyDigest {
    let mut h = KeyHasher::new("memobuild.past.v1");
    if session.commit_epoch.is_none() {
        for id in writers(session, step) {
            if let Some((bundle, _)) = values.get(id.0).and_then(Option::as_ref).and_then(|v| v.change) {
                h.value(&bundle);
            }
        }
    }
    h.finish()
}

/// The RUNs whose files a step can see: of a COPY, those in its sources, whose times it passes on.
fn writers(session: &Session<'_>, step: &Step) -> BTreeSet<StepId> {
    let mut out = BTreeSet::new();
    match &step.op {
        Op::Run(_) => out.extend(session.above(step.id)),
        Op::Copy(copy) => copy.sources.iter().filter_map(stage).for_each(|from| out.extend(up_to(session, from))),
        _ => {}
    }
    out.retain(|id| is_run(session, *id));
    out
}

fn stage(source: &CopySource) -> Option<StepId> {
    match source {
        CopySource::Path { from, .. } => Some(*from),
        CopySource::Inline { .. } => None,
    }
}

/// A step and all that it stands on.
fn up_to(session: &Session<'_>, tip: StepId) -> impl Iterator<Item = StepId> {
    session.above(tip).iter().copied().chain([tip])
}

pub(super) fn is_run(session: &Session<'_>, id: StepId) -> bool {
    session.plan.steps.get(id.0).is_some_and(|step| matches!(step.op, Op::Run(_)))
}

/// Whether a result that was recorded over another past holds over this one.
pub(super) fn holds(session: &Session<'_>, step: &Step, values: &Values, memo: &Memo) -> Result<bool, EngineError> {
    if let Op::Copy(copy) = &step.op {
        return passes_on(session, copy, values, memo.bundle);
    }
    let past = Past::of(session, step, values)?;
    let set = match memo.seen.filter(|_| !past.is_empty()) {
        Some(known) => match session.path_sets.get(session.store, &known.set)? {
            Some(set) => Some(set),
            None => return Ok(false),
        },
        None => None,
    };
    Ok(past.order(session, step, values, set.as_deref())? == memo.order || mutation::drops("order"))
}

/// Whether the files that a COPY brought have times in the order in which their writers stand now. If not it is made
/// anew, with the times that its sources have now.
pub(super) fn passes_on(
    session: &Session<'_>,
    copy: &Copy,
    values: &Values,
    bundle: Option<BundleId>,
) -> Result<bool, EngineError> {
    let timed = session.commit_epoch.is_none() && !mutation::drops("order");
    let Some(bundle) = bundle.filter(|_| timed) else { return Ok(true) };
    if !copy.sources.iter().filter_map(stage).flat_map(|from| up_to(session, from)).any(|id| is_run(session, id)) {
        return Ok(true);
    }
    let prepared = copy::prepare(session, copy, values)?;
    let mut writers: HashMap<ContentDigest, Vec<(Name, StepId)>> = HashMap::new();
    for (from, selected) in copy.sources.iter().filter_map(stage).zip(prepared.selected()) {
        let written = Written::of(session, from, values)?;
        for one in selected {
            one.walk(&mut |at, node| {
                if let Some((file, writer)) = written.of_node(at, node) {
                    writers.entry(file.content).or_default().push((last(at), writer));
                }
            });
        }
    }
    if writers.is_empty() {
        return Ok(true);
    }
    let Some(diff) = session.store.load_bundle(&bundle)? else { return Ok(false) };
    let (mut spans, mut clear) = (BTreeMap::new(), true);
    diff.walk(&mut |at, change| {
        let Change::Put(Node::File(file)) = change else { return };
        let Some(candidates) = writers.get(&file.content).filter(|_| !file.meta.mtime.pinned) else { return };
        // What is called otherwise now was copied under another name.
        let name = last(at);
        let named: BTreeSet<StepId> = candidates.iter().filter(|(n, _)| *n == name).map(|(_, w)| *w).collect();
        let all = || candidates.iter().map(|(_, w)| *w).collect();
        let mut those = if named.is_empty() { all() } else { named };
        match (those.pop_first(), those.is_empty()) {
            (Some(writer), true) => Span::add(&mut spans, writer, file.meta.mtime),
            _ => clear = false,
        }
    });
    Ok(clear && order::inverted(session, &spans).is_empty())
}

/// What is needed to tell the order of files.
pub(super) struct Past {
    /// Of a RUN one for each tree that facts are about. Empty: it is none, all times are one, or nobody wrote anything.
    places: Vec<Place>,
}

struct Place {
    written: Written,
    /// What the tree's root is called in the stage that it comes from.
    prefix: Vec<u8>,
}

/// The last name of a path.
type Name = Box<[u8]>;

/// Who wrote what, up to one step.
struct Written {
    /// From that step down to the bottom of its stage.
    chain: Vec<(StepId, Arc<Diff>)>,
    /// All RUNs that it stands on, in the plan's order.
    runs: BTreeMap<StepId, Arc<Diff>>,
    /// Of what the latter wrote, by content and last name, the last writer.
    named: OnceCell<HashMap<(ContentDigest, Name), StepId>>,
}

impl Past {
    pub(super) fn of(session: &Session<'_>, step: &Step, values: &Values) -> Result<Self, EngineError> {
        let mut places = Vec::new();
        let mut add = |tip: StepId, prefix: Vec<u8>| -> Result<(), EngineError> {
            places.push(Place { written: Written::of(session, tip, values)?, prefix });
            Ok(())
        };
        match &step.op {
            _ if session.commit_epoch.is_some() || mutation::drops("order") => {}
            _ if writers(session, step).is_empty() => {}
            Op::Run(run) => {
                add(run.parent, b"/".to_vec())?;
                for mount in &run.mounts {
                    let MountKind::Bind { from, path, .. } = &mount.kind else { continue };
                    let found = value(values, *from)?.tree(session.store)?.resolve(path.as_bytes(), true);
                    // A mount of nothing: the step will fail.
                    let Ok(found) = found else { continue };
                    let is_dir = found.node.is_some_and(|node| node.as_dir().is_some());
                    let above = if is_dir { found.path } else { directory_of(&found.path) };
                    add(*from, above)?;
                }
            }
            _ => {}
        }
        Ok(Self { places })
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The order of the files that a step looks at: those of a path set, or else all that it could look at.
    pub(super) fn order(
        &self,
        session: &Session<'_>,
        step: &Step,
        values: &Values,
        set: Option<&PathSet>,
    ) -> Result<KeyDigest, EngineError> {
        if self.is_empty() {
            return Ok(Order::default().digest(session));
        }
        let trees = facts::trees(session, step, values)?.unwrap_or_default();
        Ok(match set {
            Some(set) => self.of_set(session, &Observed::new(&trees), set),
            None => {
                let mut order = Order::default();
                for (index, (tree, place)) in trees.iter().zip(&self.places).enumerate() {
                    for entry in tree.walk() {
                        order.node(index, place, &entry.path, entry.node);
                    }
                }
                order.digest(session)
            }
        })
    }

    /// The order of the files of a path set, in trees that are at hand.
    pub(super) fn of_set(&self, session: &Session<'_>, observed: &Observed<'_>, set: &PathSet) -> KeyDigest {
        let mut order = Order::default();
        if !self.is_empty() {
            observed.leaves(set, &mut |tree, at, node| {
                if let Some(place) = self.places.get(tree) {
                    order.node(tree, place, at, node);
                }
            });
        }
        order.digest(session)
    }
}

/// Files with their writers.
#[derive(Default)]
struct Order {
    /// Names of places and paths, one after another in a hash.
    files: Vec<(KeyDigest, StepId)>,
}

impl Order {
    fn node(&mut self, index: usize, place: &Place, at: &[u8], node: &Node) {
        let whole = path::join(&place.prefix, at.get(1..).unwrap_or_default());
        if let Some((_, writer)) = place.written.of_node(&whole, node) {
            self.files.push((KeyHasher::new("memobuild.ranked.v1").u64(index as u64).bytes(at).finish(), writer));
        }
    }

    /// Writers are called by the first of their files; of each two, who stands on whom is told.
    fn digest(&self, session: &Session<'_>) -> KeyDigest {
        let mut h = KeyHasher::new("memobuild.order.v1");
        let (mut writers, mut numbers) = (Vec::new(), HashMap::new());
        for (file, writer) in &self.files {
            let number = *numbers.entry(*writer).or_insert_with(|| {
                writers.push(*writer);
                writers.len()
            });
            h.value(file).u64(number as u64);
        }
        for (index, upper) in writers.iter().enumerate() {
            for lower in writers.iter().take(index) {
                let stands = |a: &StepId, b: &StepId| session.above(*a).contains(b);
                h.u64(u64::from(stands(upper, lower)) + 2 * u64::from(stands(lower, upper)));
            }
        }
        h.finish()
    }
}

impl Written {
    fn of(session: &Session<'_>, tip: StepId, values: &Values) -> Result<Self, EngineError> {
        let change = |id: StepId| -> Result<Option<Arc<Diff>>, EngineError> {
            match values.get(id.0).and_then(Option::as_ref).and_then(|v| v.change) {
                Some((bundle, _)) => Ok(session.store.load_bundle(&bundle)?),
                None => Ok(None),
            }
        };
        let mut chain = Vec::new();
        for id in std::iter::successors(Some(tip), |at| session.plan.steps.get(at.0).and_then(parent)) {
            chain.extend(change(id)?.map(|diff| (id, diff)));
        }
        let mut runs = BTreeMap::new();
        for id in up_to(session, tip).filter(|id| is_run(session, *id)) {
            runs.extend(change(id)?.map(|diff| (id, diff)));
        }
        Ok(Self { chain, runs, named: OnceCell::new() })
    }

    /// A file that a RUN wrote, and which it was. A time that was set on purpose is content.
    fn of_node<'n>(&self, at: &[u8], node: &'n Node) -> Option<(&'n File, StepId)> {
        let Node::File(file) = node else { return None };
        let writer = (!file.meta.mtime.pinned).then(|| self.writer(at, file))??;
        Some((file, writer))
    }

    /// The RUN that wrote a file last; `None` for files of a base image or of the context.
    fn writer(&self, at: &[u8], file: &File) -> Option<StepId> {
        let (id, _) = self.chain.iter().find(|(_, diff)| puts(diff, at))?;
        if self.runs.contains_key(id) {
            return Some(*id);
        }
        // A COPY brought it, with the time that it had. Where from is not recorded; what it is, and is called, tells.
        let named = self.named.get_or_init(|| {
            let mut named = HashMap::new();
            for (id, diff) in &self.runs {
                diff.walk(&mut |at, change| {
                    if let Change::Put(Node::File(file)) = change {
                        named.insert((file.content, last(at)), *id);
                    }
                });
            }
            named
        });
        named.get(&(file.content, last(at))).copied()
    }
}

fn directory_of(at: &[u8]) -> Vec<u8> {
    let parts = path::components(at);
    path::from_components(parts.split_last().map(|(_, above)| above).unwrap_or_default())
}

fn last(at: &[u8]) -> Name {
    path::components(at).last().copied().unwrap_or_default().into()
}

/// Whether a diff puts something at a path.
fn puts(diff: &Diff, at: &[u8]) -> bool {
    let mut dir = &diff.root;
    let parts = path::components(at);
    for (index, part) in parts.iter().enumerate() {
        match dir.entries.get(*part) {
            Some(Change::Dir(sub)) => dir = sub,
            Some(Change::Put(_)) => return index + 1 == parts.len(),
            _ => return false,
        }
    }
    false
}
