//! What all steps of one build share.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use memobuild_observe::{FailureKind, Observer, TraceEvent};
use memobuild_oci::{image::BaseImage, registry::Registries};
use memobuild_plan::model::{BaseImage as BaseImagePlan, Plan, Step, StepId};
use memobuild_sandbox::{Cancel, ModeChoice, ModeKind, OwnershipClass, Sandbox, SandboxConfig};
use memobuild_store::{Provided, ScratchDir, Store};
use memobuild_tree::{Change, Diff, DirChange, File, KeyDigest, Mtime, Node, Tree};

use crate::{
    BuildRequest, EngineError, SandboxChoice, StepReport, bases,
    contexts::Contexts,
    history::{self, BuildRecord, Outcome, Seen},
    memo::facts::{Known, Sets},
    schedule,
    share::Share,
};

/// Builds looked back at for explanations.
const EARLIER: usize = 8;

/// One build under way.
pub(crate) struct Session<'a> {
    pub(crate) store: &'a Store,
    pub(crate) request: &'a BuildRequest,
    pub(crate) plan: &'a Plan,
    pub(crate) bases: Vec<Arc<BaseImage>>,
    pub(crate) registries: Registries,
    pub(crate) contexts: &'a Contexts,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) cancel: Cancel,
    /// SOURCE_DATE_EPOCH, from wherever it was given.
    pub(crate) source_epoch: Option<i64>,
    /// The time that every committed file gets (`--reproducible`).
    pub(crate) commit_epoch: Option<i64>,
    pub(crate) path_sets: Sets,
    pub(crate) share: &'a Share,
    /// Steps that run though their results are known, because their files look too old to a later step.
    forced: Mutex<BTreeSet<StepId>>,
    sandbox: OnceLock<Result<Running, String>>,
    starting: Mutex<()>,
    ownership: OnceLock<OwnershipClass>,
    set_aside_before: u64,
    /// Why a content of a base image could not be fetched.
    fetch_failure: Arc<Mutex<Option<EngineError>>>,
    _providers: Vec<Provided>,
    /// Of each step all that it stands on, directly or not.
    above: Vec<BTreeSet<StepId>>,
    /// Builds before this one, newest first.
    earlier: OnceLock<Vec<BuildRecord>>,
    planned: OnceLock<Vec<StepReport>>,
    /// The same with their definitions.
    defined: OnceLock<Vec<StepReport>>,
}

struct Running {
    sandbox: Sandbox,
    // Dropped behind the sandbox, which works in it.
    _scratch: ScratchDir,
}

impl<'a> Session<'a> {
    #[expect(clippy::too_many_arguments, reason = "the parts of one build, put together in one place")]
    pub(crate) fn new(
        store: &'a Store,
        request: &'a BuildRequest,
        plan: &'a Plan,
        bases: Vec<Arc<BaseImage>>,
        registries: Registries,
        contexts: &'a Contexts,
        observer: Arc<dyn Observer>,
        cancel: Cancel,
        source_epoch: Option<i64>,
        share: &'a Share,
    ) -> Self {
        let commit_epoch = request.reproducible.then(|| source_epoch.unwrap_or(0));
        let (sandbox, starting) = (OnceLock::new(), Mutex::new(()));
        let fetch_failure = Arc::<Mutex<Option<EngineError>>>::default();
        let provider = |(planned, image): (&BaseImagePlan, &Arc<BaseImage>)| {
            let (name, failure) = (planned.name.clone(), fetch_failure.clone());
            let contents = bases::Contents { name, image: image.clone(), observer: observer.clone(), failure };
            store.add_provider(Arc::new(contents))
        };
        let providers = plan.images.iter().zip(&bases).map(provider).collect();
        Self {
            store,
            request,
            plan,
            bases,
            registries,
            contexts,
            observer,
            cancel,
            source_epoch,
            commit_epoch,
            path_sets: Sets::default(),
            share,
            forced: Mutex::default(),
            sandbox,
            starting,
            ownership: OnceLock::new(),
            set_aside_before: store.set_aside_count(),
            fetch_failure,
            _providers: providers,
            above: schedule::above(plan),
            earlier: OnceLock::new(),
            planned: OnceLock::new(),
            defined: OnceLock::new(),
        }
    }

    pub(crate) fn emit(&self, event: TraceEvent) {
        self.observer.event(event);
    }

    /// All that a step stands on, directly or not.
    pub(crate) fn above(&self, step: StepId) -> &BTreeSet<StepId> {
        static NONE: BTreeSet<StepId> = BTreeSet::new();
        self.above.get(step.0).unwrap_or(&NONE)
    }

    /// Whether a step must run again because of its files' times. Each does so once in a build at most.
    pub(crate) fn is_forced(&self, step: StepId) -> bool {
        self.forced.lock().unwrap_or_else(PoisonError::into_inner).contains(&step)
    }

    /// Makes steps run again.
    pub(crate) fn force(&self, steps: &BTreeSet<StepId>) {
        self.forced.lock().unwrap_or_else(PoisonError::into_inner).extend(steps);
    }

    /// The last builds of the same Dockerfile and context; read when something has to be explained.
    fn earlier(&self) -> &[BuildRecord] {
        self.earlier.get_or_init(|| {
            let records = history::earlier(self.store, self.request);
            records.map(|all| all.take(EARLIER).collect()).unwrap_or_default()
        })
    }

    /// The result that the last build had of a step, by the key under which its path sets are listed.
    pub(crate) fn last_result(&self, base: &KeyDigest) -> Option<Known> {
        let steps = self.earlier().iter().flat_map(|build| &build.steps);
        let seen = steps.filter(|step| step.base == Some(*base)).find_map(|step| step.seen);
        seen.map(|Seen { paths, strong }| Known { set: paths, last: strong })
    }

    /// Reports of all steps, as long as nothing is known of how they end.
    pub(crate) fn planned(&self) -> &[StepReport] {
        self.planned.get_or_init(|| self.plan.steps.iter().map(StepReport::planned).collect())
    }

    /// What is another in the definition of a step since the last build that got to it.
    pub(crate) fn redefined(&self, step: &Step) -> Vec<String> {
        let steps = self.defined.get_or_init(|| {
            let mut steps = self.planned().to_vec();
            self.plan.steps.iter().zip(&mut steps).for_each(|(step, report)| report.define(step, self.plan));
            steps
        });
        let Some(now) = steps.get(step.id.0) else { return Vec::new() };
        let reached = |old: &&StepReport| old.outcome != Outcome::NotReached;
        let last = self.earlier().iter().find_map(|build| build.counterpart(now, steps).filter(reached));
        last.map(|old| history::redefined(old, now)).unwrap_or_default()
    }

    /// The sandbox, started by the first who asks.
    pub(crate) fn sandbox(&self) -> Result<&Sandbox, EngineError> {
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let running = self.sandbox.get_or_init(|| {
            let scratch = self.store.scratch_dir().map_err(|e| EngineError::from(e).message)?;
            let mut config = SandboxConfig::new(scratch.path().to_owned());
            config.mode = match self.request.sandbox {
                SandboxChoice::Auto => ModeChoice::Auto,
                SandboxChoice::Traced => ModeChoice::Traced,
                SandboxChoice::Exact => ModeChoice::Exact,
                SandboxChoice::Chroot => ModeChoice::Chroot,
            };
            let sandbox = Sandbox::new(config).map_err(|e| e.to_string())?;
            let mode = sandbox.mode().map_err(|e| e.to_string())?;
            let name = match mode.kind {
                ModeKind::Traced => "traced",
                ModeKind::Exact => "exact",
                ModeKind::Chroot => "chroot",
            };
            self.emit(TraceEvent::SandboxChosen { mode: name.into(), why: mode.why });
            Ok(Running { sandbox, _scratch: scratch })
        });
        match running {
            Ok(running) => Ok(&running.sandbox),
            Err(message) => Err(EngineError::new(FailureKind::Machine, message.clone())
                .with_hint("`memobuild doctor` says what this machine can do and how to get a better mode")),
        }
    }

    /// Why a content of a base image could not be fetched, if that happened.
    pub(crate) fn fetch_failure(&self) -> Option<EngineError> {
        self.fetch_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the store has met damage since this build began.
    pub(crate) fn met_damage(&self) -> bool {
        self.store.set_aside_count() > self.set_aside_before
    }

    /// What owners mean in this build's results, as far as can be told without starting a sandbox.
    pub(crate) fn ownership(&self) -> OwnershipClass {
        *self.ownership.get_or_init(memobuild_sandbox::expected_ownership)
    }

    /// Reads a file of some tree.
    pub(crate) fn read_file(&self, file: &File) -> Result<Vec<u8>, String> {
        self.store.content(&file.content).and_then(|c| c.read_all()).map_err(|e| e.to_string())
    }

    /// The time that files made now get.
    pub(crate) fn now(&self) -> Mtime {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.commit_epoch {
            Some(epoch) => Mtime::ambient(epoch, 0),
            None => Mtime::ambient(i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos()),
        }
    }

    /// Brings a diff into the form in which it is committed, and applies it: `--reproducible` makes all times one.
    pub(crate) fn settle(&self, mut diff: Diff, parent: &Tree) -> Result<(Diff, Tree), EngineError> {
        if let Some(epoch) = self.commit_epoch {
            set_times(&mut diff.root, Mtime::ambient(epoch, 0));
        }
        let tree = diff.apply(parent).map_err(|e| EngineError::step(e.to_string()))?;
        Ok((diff, tree))
    }
}

/// Gives everything that a change makes one time.
pub(crate) fn set_times(dir: &mut DirChange, time: Mtime) {
    if let Some(meta) = &mut dir.meta {
        meta.mtime = time;
    }
    for change in dir.entries.values_mut() {
        match change {
            Change::Dir(dir) => set_times(dir, time),
            Change::Put(node) => {
                node.meta_mut().mtime = time;
                debug_assert!(!matches!(node, Node::Dir(_)));
            }
            Change::Remove | Change::LinkTo(_) => {}
        }
    }
}
