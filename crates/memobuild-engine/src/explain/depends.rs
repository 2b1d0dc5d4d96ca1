//! Which steps depend on a path, and how they touched it.
//!
//! A path of the build context is followed through the COPYs that take it to its places in the image, from stage to
//! stage, and on to the RUN steps whose facts hold one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use memobuild_store::Store;
use memobuild_tree::{
    facts::{Look, Paths},
    path,
};

use super::{
    copied,
    trees::{Trees, puts},
};
use crate::{
    EngineError,
    history::{BuildRecord, CopyFrom, Outcome, StepReport},
    memo::facts::{self, Sets},
};

/// Where a path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the build context.
    Context,
    /// In the image, as steps see it.
    Image,
}

/// A step that depends on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// The step's number.
    pub step: usize,
    /// How it touched it; each place once.
    pub touches: Vec<Touch>,
}

/// How a step touched a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    /// The path as the step sees it, or as the COPY's source has it.
    pub path: String,
    /// How.
    pub how: Touched,
}

/// The ways in which a path is touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// A COPY took it to this place.
    CopiedTo(String),
    /// Its bytes were read.
    Read,
    /// It was looked at.
    LookedAt,
    /// It was looked for and was not there.
    LookedFor,
    /// The names in it were listed.
    Listed,
    /// The names in the directory that holds it were listed.
    ListedBeside,
    /// This many paths below it were looked at.
    Below(usize),
    /// What the step looks at was not recorded: it depends on all there is.
    Everything,
}

/// The steps of a build that depend on a path, in order.
pub fn depends(
    store: &Store,
    build: &BuildRecord,
    wanted: &[u8],
    origin: Origin,
) -> Result<Vec<Dependent>, EngineError> {
    let _lease = store.lease()?;
    let wanted = path::clean(wanted);
    let trees = Trees::new(store, build, &HashMap::new());
    let mut at: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut out = Vec::new();
    for step in &build.steps {
        let start = match origin {
            // The context itself, not a named one.
            Origin::Context => step.kind == "local" && step.label.starts_with("[internal]"),
            // Whatever a stage can stand on.
            Origin::Image => {
                step.parent.is_none() && (matches!(step.kind.as_str(), "image" | "scratch") || step.bundle.is_some())
            }
        };
        let mut here = step.parent.and_then(|parent| at.get(&parent)).cloned().unwrap_or_default();
        if start {
            here.insert(wanted.clone());
        }
        let mut touches = match step.kind.as_str() {
            "run" => of_run(store, step, &here, &at)?,
            "copy" => of_copy(store, step, &trees, &mut here, &at),
            _ => Vec::new(),
        };
        at.insert(step.number, here);
        touches.sort();
        touches.dedup();
        if !touches.is_empty() {
            out.push(Dependent { step: step.number, touches });
        }
    }
    Ok(out)
}

fn of_run(
    store: &Store,
    step: &StepReport,
    here: &BTreeSet<Vec<u8>>,
    at: &BTreeMap<usize, BTreeSet<Vec<u8>>>,
) -> Result<Vec<Touch>, EngineError> {
    // The paths in each of the trees that facts are about: the root, then the mounts.
    let mut wanted: Vec<(String, Vec<Vec<u8>>)> = vec![(String::new(), here.iter().cloned().collect())];
    for bind in &step.binds {
        let part = path::clean(bind.path.as_bytes());
        let inside = |p: &Vec<u8>| {
            let rest = if part == b"/" { Some(p.as_slice()) } else { p.strip_prefix(part.as_slice()) };
            rest.filter(|rest| rest.is_empty() || rest.starts_with(b"/")).map(path::clean)
        };
        let paths = at.get(&bind.step).into_iter().flatten().filter_map(inside).collect();
        wanted.push((bind.target.clone(), paths));
    }
    if wanted.iter().all(|(_, paths)| paths.is_empty()) || !matches!(step.outcome, Outcome::Hit | Outcome::Ran) {
        return Ok(Vec::new());
    }
    let sets = Sets::default();
    let set = match &step.seen {
        Some(seen) => sets.get(store, &seen.paths)?.zip(facts::find(store, &seen.strong)?),
        None => None,
    };
    let Some((set, found)) = set else {
        let all = wanted.iter().flat_map(|(target, paths)| paths.iter().map(|p| seen_at(target, p)));
        return Ok(all.map(|path| Touch { path, how: Touched::Everything }).collect());
    };
    let mut out = Vec::new();
    let mut first = 0;
    for (paths, (target, wanted)) in set.trees().zip(&wanted) {
        let glances = found.glances.get(first..first + paths.len()).unwrap_or_default();
        first += paths.len();
        for one in wanted {
            let seen = seen_at(target, one);
            let how = touched(paths, glances.iter().map(|(g, read)| (g.is_absent(), *read)), one);
            out.extend(how.into_iter().map(|how| Touch { path: seen.clone(), how }));
        }
    }
    Ok(out)
}

/// A path of a mount as the step sees it.
fn seen_at(target: &str, at: &[u8]) -> String {
    if target.is_empty() {
        path::display(at)
    } else {
        path::display(&path::join(target.as_bytes(), at.get(1..).unwrap_or_default()))
    }
}

fn touched(paths: &Paths, glances: impl Iterator<Item = (bool, bool)>, wanted: &[u8]) -> Vec<Touched> {
    let mut out = Vec::new();
    let mut below = 0;
    let parent =
        wanted.iter().rposition(|b| *b == b'/').map_or(&b"/"[..], |slash| wanted.get(..slash.max(1)).unwrap_or(b"/"));
    for ((at, look), (absent, read)) in paths.iter().zip(glances) {
        if at == wanted {
            let looked = look.has(Look::NODE) || look.has(Look::OWNED) || look.has(Look::KIND) || look.has(Look::WHOLE);
            match (looked, absent, read) {
                (true, true, _) => out.push(Touched::LookedFor),
                (true, _, true) => out.push(Touched::Read),
                (true, ..) => out.push(Touched::LookedAt),
                (false, ..) => {}
            }
            if look.has(Look::LISTED) {
                out.push(Touched::Listed);
            }
        } else if at == parent && look.has(Look::LISTED) {
            out.push(Touched::ListedBeside);
        } else if at.starts_with(wanted) && at.get(wanted.len()) == Some(&b'/') {
            below += 1;
        }
    }
    if below > 0 {
        out.push(Touched::Below(below));
    }
    out
}

fn of_copy(
    store: &Store,
    step: &StepReport,
    trees: &Trees<'_>,
    here: &mut BTreeSet<Vec<u8>>,
    at: &BTreeMap<usize, BTreeSet<Vec<u8>>>,
) -> Vec<Touch> {
    let Some(places) = &step.copy else { return Vec::new() };
    let sources: Vec<(&CopyFrom, &Vec<u8>)> = places
        .sources
        .iter()
        .flat_map(|source| at.get(&source.step).into_iter().flatten().map(move |from| (source, from)))
        .collect();
    if sources.is_empty() {
        return Vec::new();
    }
    let local = |number: usize| trees.record().step(number).is_some_and(|step| step.kind == "local");
    let dest = copied::destination(places, step.parent.and_then(|parent| trees.of(parent)).as_ref());
    let made = step.bundle.and_then(|bundle| puts(store, &bundle));
    let stands = |target: &[u8]| match &made {
        Some(made) => {
            made.contains_key(target)
                || made.keys().any(|at| at.starts_with(target) && at.get(target.len()) == Some(&b'/'))
        }
        // What it made is gone: then the likeliest place is taken.
        None => true,
    };
    let mut out = Vec::new();
    for (source, from) in sources {
        let target = copied::targets(places, source, from, &dest).into_iter().find(|target| stands(target));
        if let Some(target) = target {
            let how = Touched::CopiedTo(path::display(&target));
            let from = from.strip_prefix(b"/").filter(|_| local(source.step)).unwrap_or(from);
            out.push(Touch { path: path::display(from), how });
            here.insert(target);
        }
    }
    out
}
