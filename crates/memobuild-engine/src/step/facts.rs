//! Finding and recording a step's result by what it looked at.

use std::sync::Arc;

use memobuild_observe::TraceEvent;
use memobuild_plan::model::{MountKind, Op, Step};
use memobuild_tree::{
    Dir, KeyDigest, Node, Tree, TreeDigest,
    facts::{Broken, Look, Looks, Observed, PathSet, compare},
};

use super::{
    Values, fresh, inputs, mutation,
    past::{self, Past},
    value,
};
use crate::{
    EngineError,
    keys::{self, Who},
    memo::{
        Memo,
        facts::{self, Found, Known},
    },
    resolve,
    session::Session,
    value::Value,
};

/// How a step's results are found by facts.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    base: KeyDigest,
    /// What the step brings besides what it looks at in its parent: sources of a COPY, what cache mounts start with.
    contents: Vec<TreeDigest>,
}

/// A result that holds for the trees at hand.
pub(super) struct Hit {
    pub(super) value: Arc<Value>,
    created: i64,
    millis: u64,
    known: Known,
    past: KeyDigest,
    order: KeyDigest,
}

impl Hit {
    /// The same as a result under exact keys.
    pub(super) fn memo(&self) -> Memo {
        let Self { past, order, .. } = *self;
        Memo {
            past,
            order,
            bundle: self.value.change.map(|(bundle, _)| bundle),
            identity: self.value.identity(),
            created: self.created,
            millis: self.millis,
            seen: Some(self.known),
        }
    }
}

/// What became of a result that was to be recorded.
pub(super) enum Recorded {
    /// It is there now; with the order of the files that it looked at.
    Ours(Known, KeyDigest),
    /// Another process was first with the same facts: its result is to be used instead.
    First(Hit),
    /// Facts can't be told.
    Not,
}

impl Facts {
    /// Under what the path sets of a step are listed, where its results are found by facts.
    pub(super) fn base(session: &Session<'_>, step: &Step, definition: &KeyDigest) -> Option<KeyDigest> {
        let written =
            |mount: &memobuild_plan::model::Mount| matches!(mount.kind, MountKind::Bind { writable: true, .. });
        let traced = match &step.op {
            Op::Run(run) => session.request.trace && !run.mounts.iter().any(written),
            _ => true,
        };
        (traced && !step.hints.exact).then(|| keys::base(definition, step.hints.stat_kind))
    }

    /// `None` for steps whose results only an equal input may reuse. `parts` are the identities of the exact key.
    pub(super) fn of(
        session: &Session<'_>,
        step: &Step,
        definition: &KeyDigest,
        parts: &[TreeDigest],
        values: &Values,
    ) -> Result<Option<Self>, EngineError> {
        let Some(base) = Self::base(session, step, definition) else { return Ok(None) };
        let contents = match &step.op {
            Op::Run(run) => {
                let mut seeds = Vec::new();
                for mount in &run.mounts {
                    if let MountKind::Cache { from: Some((from, path)), .. } = &mount.kind {
                        seeds.push(inputs::part(session, *from, path, values)?);
                    }
                }
                seeds
            }
            Op::Copy(_) => parts.get(1..).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        Ok(Some(Self { base, contents }))
    }

    /// What results depend on besides facts. `None` if a user that the step names is not there: it will fail.
    fn weak(&self, session: &Session<'_>, step: &Step, root: &Tree) -> Result<Option<KeyDigest>, EngineError> {
        let owner = |spec: &str| -> Result<Option<Who>, EngineError> {
            Ok(resolve::owner(session, spec, root)?.ok().map(|(uid, gid)| Who::Owner(uid, gid)))
        };
        let who = match &step.op {
            Op::Run(run) => resolve::exec_user(session, &run.user, root)?.ok().map(Who::User),
            Op::Copy(copy) => match &copy.chown {
                Some(spec) => owner(spec)?,
                None => Some(Who::Nobody),
            },
            Op::Mkdir(mkdir) if !mkdir.user.is_empty() => owner(&mkdir.user)?,
            _ => Some(Who::Nobody),
        };
        let who = who.map(|who| if mutation::drops("user") { Who::Nobody } else { who });
        Ok(who.map(|who| keys::weak(&self.base, &self.contents, &who)))
    }

    /// Looks for a result whose facts hold. The parent's tree is put together only if there is any result to try.
    pub(super) fn find(&self, session: &Session<'_>, step: &Step, values: &Values) -> Result<Option<Hit>, EngineError> {
        let store = session.store;
        let here = facts::known_here(store, &self.base)?;
        // Shared caches are asked only if nothing that is known here holds: they may be far away.
        match self.find_among(session, step, values, &here)? {
            Some(hit) => Ok(Some(hit)),
            None => self.find_among(session, step, values, &facts::known_elsewhere(store, &self.base, &here)),
        }
    }

    fn find_among(
        &self,
        session: &Session<'_>,
        step: &Step,
        values: &Values,
        known: &[Known],
    ) -> Result<Option<Hit>, EngineError> {
        let store = session.store;
        if known.is_empty() {
            return Ok(None);
        }
        let Some(trees) = trees(session, step, values)? else { return Ok(None) };
        let Some(root) = trees.first() else { return Ok(None) };
        let Some(weak) = self.weak(session, step, root)? else { return Ok(None) };
        let shown = mutation::blurred(trees.clone());
        let observed = Observed::new(&shown);
        let passes_on = |found: &Found| match &step.op {
            Op::Copy(copy) => past::passes_on(session, copy, values, found.bundle),
            _ => Ok(true),
        };
        let accept = |strong: &KeyDigest, found: &Found| match fresh(session, step, found.created) {
            true if !passes_on(found)? => Ok(None),
            true => apply(session, root, found, strong),
            false => Ok(None),
        };
        let past = Past::of(session, step, values)?;
        let order = |set: &PathSet| past.of_set(session, &Observed::new(&trees), set);
        let ordered = |set: &PathSet| keys::ordered(&weak, &order(set));
        let hit = facts::search(store, &session.path_sets, &self.base, known, &ordered, &observed, accept)?;
        let Some(hit) = hit else { return Ok(None) };
        session.emit(TraceEvent::CacheHit { step: step.id.0, key: hit.strong.hex() });
        let Some(set) = session.path_sets.get(store, &hit.set)? else { return Ok(None) };
        Ok(Some(Hit {
            value: hit.accepted,
            created: hit.found.created,
            millis: hit.found.millis,
            known: Known { set: hit.set, last: hit.strong },
            past: past::digest(session, step, values),
            order: order(&set),
        }))
    }

    /// Records a result under what was found at each path of `looks`.
    pub(super) fn record(
        &self,
        session: &Session<'_>,
        step: &Step,
        values: &Values,
        looks: &[Looks],
        mut result: Found,
        replace: bool,
    ) -> Result<Recorded, EngineError> {
        let Some(trees) = trees(session, step, values)? else { return Ok(Recorded::Not) };
        let Some(root) = trees.first() else { return Ok(Recorded::Not) };
        let Some(weak) = self.weak(session, step, root)? else { return Ok(Recorded::Not) };
        let looks = mutation::dropped(step, looks, &trees);
        let set = PathSet::of(&looks);
        let shown = mutation::blurred(trees.clone());
        let observed = Observed::new(&shown);
        let past = Past::of(session, step, values)?;
        let order = past.of_set(session, &Observed::new(&trees), &set);
        let weak = keys::ordered(&weak, &order);
        let (Some(strong), Some(glances)) = (observed.strong_key(&weak, &set), observed.glances(&set)) else {
            return Ok(Recorded::Not);
        };
        let read = set
            .trees()
            .zip(&looks)
            .flat_map(|(paths, looks)| paths.iter().map(|(path, _)| looks.get(path).has(Look::READ)));
        result.glances = glances.into_iter().zip(read).collect();
        let known = Known { set: set.digest(), last: strong };
        if facts::put(session.store, &self.base, &strong, &set, &result, replace)? {
            return Ok(Recorded::Ours(known, order));
        }
        let Some(first) = facts::find(session.store, &strong)? else { return Ok(Recorded::Not) };
        let value = apply(session, root, &first, &strong)?;
        Ok(value.map_or(Recorded::Not, |value| {
            let past = past::digest(session, step, values);
            Recorded::First(Hit { value, created: first.created, millis: first.millis, known, past, order })
        }))
    }

    /// The facts that do not hold any more, of the result that the last build of the same Dockerfile had, or else of
    /// the most recently useful one; with the strong key of that result. `None` if there is none to compare with.
    pub(super) fn broken(
        &self,
        session: &Session<'_>,
        step: &Step,
        values: &Values,
    ) -> Result<Option<(KeyDigest, Vec<Broken>)>, EngineError> {
        let known = facts::known(session.store, &self.base)?;
        // Without any result there is no need to look into the record of builds.
        let Some(newest) = known.first() else { return Ok(None) };
        for Known { set, last } in session.last_result(&self.base).as_ref().into_iter().chain([newest]) {
            let Some(set) = session.path_sets.get(session.store, set)? else { continue };
            let Some(found) = facts::find(session.store, last)? else { continue };
            let Some(trees) = trees(session, step, values)? else { return Ok(None) };
            let Some(now) = Observed::new(&trees).glances(&set) else { continue };
            return Ok(compare(&set, &found.glances, &now).map(|broken| (*last, broken)));
        }
        Ok(None)
    }
}

/// The tree after a recorded change; `None` if its bundle is gone or does not fit.
fn apply(
    session: &Session<'_>,
    root: &Tree,
    found: &Found,
    strong: &KeyDigest,
) -> Result<Option<Arc<Value>>, EngineError> {
    let Some(bundle) = found.bundle else { return Ok(Some(Value::ready(root.clone(), None))) };
    let Some(diff) = session.store.load_bundle(&bundle)? else {
        facts::forget(session.store, strong)?;
        return Ok(None);
    };
    Ok(diff.apply(root).ok().map(|tree| Value::ready(tree, Some((bundle, found.created)))))
}

/// The trees that facts are about: the parent's, then what each bind mount shows. `None` if a mount's source is not
/// there: the step will fail.
pub(super) fn trees(session: &Session<'_>, step: &Step, values: &Values) -> Result<Option<Vec<Tree>>, EngineError> {
    // A COPY with --link sees nothing of its parent, but its change is applied to it.
    let mut out = vec![inputs::parent(step, values)?.tree(session.store)?];
    let Op::Run(run) = &step.op else { return Ok(Some(out)) };
    for mount in &run.mounts {
        if let MountKind::Bind { from, path, .. } = &mount.kind {
            let tree = value(values, *from)?.tree(session.store)?;
            let Ok(found) = tree.resolve(path.as_bytes(), true) else { return Ok(None) };
            let Some(node) = found.node else { return Ok(None) };
            out.push(memobuild_sandbox::part_of(&node, &found.path).0);
        }
    }
    Ok(Some(out))
}

/// The looks of a RUN as facts are about them: of all trees that the sandbox served, those of the root and of bind
/// mounts. Scripts are part of the definition.
pub(super) fn looks_of_run(step: &Step, served: Vec<Looks>, trees: &[Tree]) -> Option<Vec<Looks>> {
    let Op::Run(run) = &step.op else { return None };
    let mut served = served.into_iter();
    let mut out = vec![served.next()?];
    for mount in &run.mounts {
        match &mount.kind {
            MountKind::Bind { .. } => out.push(served.next()?),
            MountKind::Script { .. } => drop(served.next()?),
            _ => {}
        }
    }
    if step.hints.stat_kind {
        for (looks, tree) in out.iter_mut().zip(trees) {
            relax(looks, tree);
        }
    }
    Some(out)
}

/// `stat=kind`: a file that was only looked at counts by kind, mode and owner. Empty files have no bytes to be read.
fn relax(looks: &mut Looks, tree: &Tree) {
    looks.retain(|path, look| {
        let relaxed = !look.has(Look::READ)
            && look.has(Look::NODE)
            && matches!(tree.get(path), Some(Node::File(file)) if file.size > 0);
        if relaxed {
            *look = look.without(Look::NODE).with(Look::OWNED);
        }
        true
    });
}

/// What a change depends on by being applied; see [`memobuild_tree::facts::cover`].
pub(super) fn cover(diff: &memobuild_tree::Diff, before: &Dir, looks: &mut [Looks]) -> bool {
    looks.first_mut().is_some_and(|root| memobuild_tree::facts::cover(diff, before, root))
}
