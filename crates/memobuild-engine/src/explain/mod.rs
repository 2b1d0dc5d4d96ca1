//! Why steps were reused or ran: the last build's record, or that of the build that would happen now, with what can be
//! worked out beside it.
//!
//! In: records of builds ([`crate::history`]). Out: for each step what else had changed and was without effect, and
//! for a COPY which of its files are others; [`depends`] answers the opposite question. Reads tables of contents and
//! facts, never a file's bytes, and writes nothing.

mod copied;
mod depends;
mod trees;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use memobuild_observe::Observer;
use memobuild_store::Store;
use memobuild_tree::{Diff, Node, Tree, path};

use crate::{
    BuildRequest, EngineError, Reach, foresee,
    history::{self, BuildRecord, FactChange, Outcome, StepReport},
};
use trees::Trees;

pub use depends::{Dependent, Origin, Touch, Touched, depends};
pub use trees::Became;

type Changes = Vec<(String, Became)>;

/// Builds looked back at.
const EARLIER: usize = 8;

/// A build, explained.
pub struct Explanation {
    /// The build.
    pub build: BuildRecord,
    /// Whether it is the one that would happen now.
    pub ahead: bool,
    /// Of each step what else is known.
    pub steps: Vec<Beside>,
}

/// What can be worked out beside a step's report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Of a RUN that ran again: what else had changed among all that it could have looked at, and was no reason for it.
    /// Paths as seen from its working directory. `None` where that can't be told any more.
    pub without_effect: Option<Vec<(String, Became)>>,
    /// Of a RUN that ran again because the names in a directory changed: which of them.
    pub listed: Vec<(String, Became)>,
    /// Of a COPY that ran again: which of its files are others. Paths in its sources as far as they can be told, else
    /// in the image.
    pub copied: Option<Vec<(String, Became)>>,
}

/// The last build in this store; `None` if there was none yet.
pub fn last(store: &Store) -> Result<Option<Explanation>, EngineError> {
    let _lease = store.lease()?;
    let mut all = history::builds(store)?;
    let Some(build) = all.next() else { return Ok(None) };
    let earlier: Vec<BuildRecord> = all.filter(|other| other.place == build.place).take(EARLIER).collect();
    let steps = Look { store, build: &build, earlier: &earlier, trees: &HashMap::new(), diffs: &HashMap::new() }.all();
    Ok(Some(Explanation { build, ahead: false, steps }))
}

/// The build that would happen now.
pub fn now(store: &Store, request: &BuildRequest, observer: &Arc<dyn Observer>) -> Result<Explanation, EngineError> {
    let ahead = foresee(store, request, observer, Reach::Everything)?;
    let _lease = store.lease()?;
    let build = ahead.record;
    let earlier: Vec<BuildRecord> = history::earlier(store, request)?.take(EARLIER).collect();
    let steps = Look { store, build: &build, earlier: &earlier, trees: &ahead.trees, diffs: &ahead.diffs }.all();
    Ok(Explanation { build, ahead: true, steps })
}

/// One build beside those before it.
struct Look<'a> {
    store: &'a Store,
    build: &'a BuildRecord,
    earlier: &'a [BuildRecord],
    /// Trees and changes of the build that are in memory only.
    trees: &'a HashMap<usize, Tree>,
    diffs: &'a HashMap<usize, Diff>,
}

impl Look<'_> {
    fn all(&self) -> Vec<Beside> {
        let present = Trees::new(self.store, self.build, self.trees);
        let past: Vec<Trees<'_>> =
            self.earlier.iter().map(|build| Trees::new(self.store, build, &HashMap::new())).collect();
        let one = |step: &StepReport| {
            let (without_effect, listed) = self.tree_changes(step, &present, &past).unzip();
            Beside { without_effect, listed: listed.unwrap_or_default(), copied: self.copied(step, &present) }
        };
        self.build.steps.iter().map(one).collect()
    }

    /// What is another among all that a RUN could have looked at: without effect, and in directories that it listed.
    fn tree_changes(&self, step: &StepReport, present: &Trees<'_>, past: &[Trees<'_>]) -> Option<(Changes, Changes)> {
        let compared = step.compared.filter(|_| step.kind == "run" && !step.broken.is_empty())?;
        let holds = |old: &StepReport| old.seen.is_some_and(|seen| seen.strong == compared);
        let mut builds = self.earlier.iter().zip(past);
        let (old, before) = builds.find_map(|(build, trees)| Some((build.steps.iter().find(|s| holds(s))?, trees)))?;
        let (was, is) = (before.of(old.parent?)?, present.of(step.parent?)?);
        let reasons = Reasons::of(step);
        let (mut without_effect, mut listed) = (Vec::new(), Vec::new());
        for (path, became) in trees::differing(&was, &is) {
            let shown = (from(&step.cwd, &path), became);
            match reasons.of_path(&path) {
                Reason::None => without_effect.push(shown),
                Reason::Listed if became != Became::Changed => listed.push(shown),
                Reason::Listed | Reason::Named => {}
            }
        }
        Some((without_effect, listed))
    }

    fn copied(&self, step: &StepReport, present: &Trees<'_>) -> Option<Vec<(String, Became)>> {
        let places = step.copy.as_ref()?;
        let explained = !step.broken.is_empty() || !step.redefined.is_empty();
        if explained || !step.again || !matches!(step.outcome, Outcome::Ran | Outcome::Failed) {
            return None;
        }
        let made = |old: &&StepReport| old.bundle.is_some() && old.fields == step.fields;
        let counterpart = |build: &BuildRecord| build.counterpart(step, &self.build.steps).filter(made)?.bundle;
        let old = trees::puts(self.store, &self.earlier.iter().find_map(counterpart)?)?;
        let new = match (self.diffs.get(&step.number), &step.bundle) {
            (Some(diff), _) => trees::puts_of(diff),
            (None, Some(bundle)) => trees::puts(self.store, bundle)?,
            (None, None) => return None,
        };
        let dest = copied::destination(places, step.parent.and_then(|parent| present.of(parent)).as_ref());
        let shown = |at: &[u8]| match copied::source_of(places, at, &dest) {
            Some((tree, from)) => {
                // Of a context without a slash in front, as a person calls it there.
                let local = self.build.step(tree).is_some_and(|step| step.kind == "local");
                path::display(from.strip_prefix(b"/").filter(|_| local).unwrap_or(&from))
            }
            None => path::display(at),
        };
        let mut out: Vec<(String, Became)> = differing(&old, &new).map(|(at, became)| (shown(at), became)).collect();
        out.sort();
        Some(out)
    }
}

fn differing<'a>(
    old: &'a HashMap<Vec<u8>, Node>,
    new: &'a HashMap<Vec<u8>, Node>,
) -> impl Iterator<Item = (&'a [u8], Became)> {
    let changed = new.iter().filter_map(|(at, node)| match old.get(at) {
        None => Some((at.as_slice(), Became::New)),
        Some(was) => (was.identity() != node.identity()).then_some((at.as_slice(), Became::Changed)),
    });
    let gone = old.keys().filter(|at| !new.contains_key(*at)).map(|at| (at.as_slice(), Became::Gone));
    changed.chain(gone)
}

/// As seen from a working directory.
fn from(cwd: &str, at: &[u8]) -> String {
    let inside = at.strip_prefix(cwd.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    match inside {
        Some(rest) if !rest.is_empty() && cwd != "/" => path::display(rest),
        _ => path::display(at),
    }
}

/// Whether a change is a reason for a step to run again.
enum Reason {
    /// A fact is about it.
    Named,
    /// A fact is about the names in its directory.
    Listed,
    None,
}

/// The paths that broken facts are about.
struct Reasons<'a> {
    named: BTreeSet<&'a str>,
    listed: BTreeSet<&'a str>,
    /// There are more facts than the record names.
    more: bool,
}

impl<'a> Reasons<'a> {
    fn of(step: &'a StepReport) -> Self {
        let broken = || step.broken.iter().filter(|fact| fact.mount.is_none());
        let listed = broken().filter(|fact| fact.change == FactChange::Listing);
        Self {
            named: broken().map(|fact| fact.path.as_str()).collect(),
            listed: listed.map(|fact| fact.path.as_str()).collect(),
            more: step.broken_count > step.broken.len(),
        }
    }

    /// Whether a change is, or may be, one of the reasons.
    fn of_path(&self, at: &[u8]) -> Reason {
        let at = path::display(at.strip_suffix(b"/").unwrap_or(at));
        let parent = match at.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((parent, _)) => parent,
        };
        if self.more || self.named.contains(at.as_str()) {
            Reason::Named
        } else if self.listed.contains(parent) {
            Reason::Listed
        } else {
            Reason::None
        }
    }
}
