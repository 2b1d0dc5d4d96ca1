//! The graph while it is made: equal steps become one, and what no target needs is dropped at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use memobuild_dockerfile::Span;
use memobuild_image::Platform;

use crate::model::{BaseImage, BaseRequest, CopySource, Local, MountKind, Op, ResolvedBase, Step, StepHints, StepId};

/// What tells one step from another. The platform counts where a program may see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    op: Op,
    platform: Option<Platform>,
}

/// What a new step is known by, besides what it does.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) label: String,
    pub(crate) stage: String,
    pub(crate) span: Option<Span>,
    pub(crate) platform: Platform,
    pub(crate) hints: StepHints,
    pub(crate) ignore_cache: bool,
}

/// Steps, images and local directories found so far, for all platforms.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    steps: Vec<Step>,
    known: HashMap<Identity, StepId>,
    pub(crate) images: Vec<BaseImage>,
    resolved: Vec<(BaseRequest, usize)>,
    locals: Vec<Option<String>>,
}

/// What is left of a graph when only what the roots need is kept.
pub(crate) struct Pruned {
    pub(crate) steps: Vec<Step>,
    pub(crate) images: Vec<BaseImage>,
    pub(crate) locals: Vec<Local>,
    /// New places of old steps.
    pub(crate) places: BTreeMap<StepId, StepId>,
    /// New places of old images.
    pub(crate) image_places: BTreeMap<usize, usize>,
}

impl Graph {
    /// Adds a step, or finds the one that does the same: then the stricter wishes of both hold.
    pub(crate) fn add(&mut self, op: Op, about: About) -> StepId {
        let platform = matches!(op, Op::Run(_)).then(|| about.platform.clone());
        let identity = Identity { op, platform };
        if let Some(&id) = self.known.get(&identity) {
            if let Some(step) = self.steps.get_mut(id.0) {
                merge(step, &about);
            }
            return id;
        }
        let id = StepId(self.steps.len());
        let About { label, stage, span, platform, hints, ignore_cache } = about;
        self.steps.push(Step { id, label, stage, span, platform, hints, ignore_cache, op: identity.op.clone() });
        self.known.insert(identity, id);
        id
    }

    /// The place of a local directory: none is the build's context.
    pub(crate) fn local(&mut self, name: Option<&str>) -> usize {
        let known = self.locals.iter().position(|local| local.as_deref() == name);
        known.unwrap_or_else(|| {
            self.locals.push(name.map(Into::into));
            self.locals.len() - 1
        })
    }

    /// The image that answered an earlier request with the same canonical form.
    pub(crate) fn image(&self, canonical: &BaseRequest) -> Option<usize> {
        self.resolved.iter().find(|(known, _)| known == canonical).map(|&(_, image)| image)
    }

    /// Keeps the answer to a request.
    pub(crate) fn add_image(&mut self, canonical: BaseRequest, name: String, found: ResolvedBase) -> usize {
        let image = BaseImage {
            name,
            platform: canonical.platform.clone(),
            handle: found.handle,
            digest: found.digest,
            config: found.config,
        };
        self.images.push(image);
        self.resolved.push((canonical, self.images.len() - 1));
        self.images.len() - 1
    }

    /// Drops all that the roots do not need and closes the gaps.
    pub(crate) fn prune(self, roots: &[StepId], bases: &[usize]) -> Pruned {
        let mut needed: BTreeSet<StepId> = BTreeSet::new();
        let mut todo: Vec<StepId> = roots.to_vec();
        while let Some(id) = todo.pop() {
            if needed.insert(id)
                && let Some(step) = self.steps.get(id.0)
            {
                todo.extend(step.op.inputs());
            }
        }
        let places: BTreeMap<StepId, StepId> =
            needed.iter().enumerate().map(|(place, &id)| (id, StepId(place))).collect();
        let mut images: BTreeSet<usize> = bases.iter().copied().collect();
        let mut locals: BTreeSet<usize> = BTreeSet::new();
        for step in needed.iter().filter_map(|id| self.steps.get(id.0)) {
            match step.op {
                Op::Image(image) => _ = images.insert(image),
                Op::Local(local) => _ = locals.insert(local),
                _ => {}
            }
        }
        let renumber = |set: &BTreeSet<usize>| -> BTreeMap<usize, usize> {
            set.iter().enumerate().map(|(place, &old)| (old, place)).collect()
        };
        let (image_places, local_places) = (renumber(&images), renumber(&locals));
        let paths = local_paths(&self.steps, &needed, roots);
        let steps = self
            .steps
            .into_iter()
            .filter(|step| needed.contains(&step.id))
            .map(|mut step| {
                step.id = places.get(&step.id).copied().unwrap_or(step.id);
                match &mut step.op {
                    Op::Image(image) => *image = image_places.get(image).copied().unwrap_or(*image),
                    Op::Local(local) => *local = local_places.get(local).copied().unwrap_or(*local),
                    op => op.inputs_mut().into_iter().for_each(|id| *id = places.get(id).copied().unwrap_or(*id)),
                }
                step
            })
            .collect();
        let locals = locals
            .iter()
            .map(|place| Local {
                name: self.locals.get(*place).cloned().flatten(),
                paths: paths.get(place).cloned().unwrap_or_default().into_iter().collect(),
            })
            .collect();
        let images = self
            .images
            .into_iter()
            .enumerate()
            .filter(|(place, _)| images.contains(place))
            .map(|(_, image)| image)
            .collect();
        Pruned { steps, images, locals, places, image_places }
    }
}

/// One step stands for two: it must please both.
fn merge(step: &mut Step, other: &About) {
    step.ignore_cache |= other.ignore_cache;
    step.hints.exact |= other.hints.exact;
    step.hints.stat_kind &= other.hints.stat_kind;
    step.hints.max_age = match (step.hints.max_age, other.hints.max_age) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

/// Which paths of each local directory the needed steps read. `/` takes in all others.
fn local_paths(steps: &[Step], needed: &BTreeSet<StepId>, roots: &[StepId]) -> BTreeMap<usize, BTreeSet<String>> {
    let local = |id: StepId| match steps.get(id.0).map(|step| &step.op) {
        Some(Op::Local(place)) => Some(*place),
        _ => None,
    };
    let mut uses: Vec<(StepId, &str)> = roots.iter().map(|&root| (root, "/")).collect();
    for step in needed.iter().filter_map(|id| steps.get(id.0)) {
        match &step.op {
            Op::Run(run) => {
                uses.push((run.parent, "/"));
                for mount in &run.mounts {
                    match &mount.kind {
                        MountKind::Bind { from, path, .. } => uses.push((*from, path)),
                        MountKind::Cache { from: Some((from, path)), .. } => uses.push((*from, path)),
                        _ => {}
                    }
                }
            }
            Op::Copy(copy) => {
                uses.push((copy.parent, "/"));
                for source in &copy.sources {
                    if let CopySource::Path { from, pattern, .. } = source {
                        uses.push((*from, pattern));
                    }
                }
            }
            Op::Mkdir(mkdir) => uses.push((mkdir.parent, "/")),
            _ => {}
        }
    }
    let mut out: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (id, path) in uses {
        if let Some(place) = local(id) {
            out.entry(place).or_default().insert(path.to_owned());
        }
    }
    for paths in out.values_mut().filter(|paths| paths.contains("/")) {
        *paths = BTreeSet::from(["/".to_owned()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mkdir;

    fn about(exact: bool) -> About {
        About {
            label: "x".into(),
            stage: "0".into(),
            span: None,
            platform: Platform::default(),
            hints: StepHints { exact, stat_kind: !exact, max_age: None },
            ignore_cache: exact,
        }
    }

    #[test]
    fn equal_steps_are_one_and_stricter_wishes_hold() {
        let mut graph = Graph::default();
        let a = graph.add(Op::Scratch, about(false));
        assert_eq!(graph.add(Op::Scratch, about(true)), a);
        let step = &graph.steps[0];
        assert!(step.hints.exact && !step.hints.stat_kind && step.ignore_cache);
    }

    #[test]
    fn pruning_closes_gaps() {
        let mut graph = Graph::default();
        let used = graph.local(Some("used"));
        let unused = graph.local(None);
        graph.add(Op::Local(unused), about(false));
        let root = graph.add(Op::Local(used), about(false));
        let mkdir = |parent, path: &str| Op::Mkdir(Mkdir { parent, path: path.into(), user: String::new() });
        graph.add(mkdir(root, "/lost"), about(false));
        let end = graph.add(mkdir(root, "/kept"), about(false));
        let pruned = graph.prune(&[end], &[]);
        assert_eq!(pruned.steps.len(), 2);
        assert_eq!(pruned.steps[0].op, Op::Local(0));
        assert_eq!(pruned.steps[1].op, mkdir(StepId(0), "/kept"));
        assert_eq!(pruned.locals, [Local { name: Some("used".into()), paths: vec!["/".into()] }]);
        assert_eq!(pruned.places[&end], StepId(1));
    }
}
