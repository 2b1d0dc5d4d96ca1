//! What became of one step.

use memobuild_plan::model::{CopySource, MountKind, Op, Plan, Step, StepId};
use memobuild_tree::{BundleId, KeyDigest, PathSetDigest, Sha256Digest, TreeDigest};
use serde::{Deserialize, Serialize};

use super::{fields, hex};
use crate::{
    memo::facts::Known,
    step::{Learnt, Why},
    value::Value,
};

/// How a step ended, or would end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It yields a tree from outside: a base image, a context, something fetched.
    Source,
    /// A known result was taken.
    Hit,
    /// It was executed, or would be.
    Ran,
    /// It was executed and failed.
    Failed,
    /// It was not begun, or was stopped with the others.
    #[default]
    NotReached,
    /// For a look ahead: only what comes before it, once executed, can tell.
    Unknown,
}

/// How a result was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// All that it works on is equal.
    Exact,
    /// What it uses of all that is equal.
    Parts,
    /// What it looks at is equal.
    Facts,
}

/// How something at a path differs from what a result depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactChange {
    /// It was not there.
    Appeared,
    /// It is not there any more.
    Disappeared,
    /// It is something of another kind.
    Kind,
    /// Content, target, or hard links.
    Content,
    /// Mode, owner, attributes, or a time set on purpose.
    Meta,
    /// The names in it.
    Listing,
}

/// A fact that no longer held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenFact {
    /// Where, as the step sees it: absolute, below a mount with the mount's target in front.
    pub path: String,
    /// The mount's target, if it is below one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// What is another.
    pub change: FactChange,
    /// Whether the bytes of a file were read there.
    pub read: bool,
    /// The same for a person: `src/index.js changed (read by the step)`.
    pub text: String,
}

/// Names a result by the facts that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which paths were looked at, and how.
    #[serde(with = "hex::one")]
    pub paths: PathSetDigest,
    /// The key over what was found there.
    #[serde(with = "hex::one")]
    pub strong: KeyDigest,
}

impl From<Known> for Seen {
    fn from(Known { set, last }: Known) -> Self {
        Self { paths: set, strong: last }
    }
}

/// Where a COPY takes from and where it puts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlaces {
    /// What is copied: number of the step that yields the tree, and path or pattern in it.
    pub sources: Vec<CopyFrom>,
    /// Absolute.
    pub dest: String,
    /// Written as a directory.
    pub dest_is_dir: bool,
    /// `--parents`: what is copied keeps its path.
    pub parents: bool,
}

/// One source of a COPY.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFrom {
    /// Number of the step.
    pub step: usize,
    /// Absolute path or pattern.
    pub pattern: String,
    /// With `--parents`: how many leading components are left out of what is kept.
    pub pivot: Option<usize>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindPlace {
    /// Where it appears.
    pub target: String,
    /// Number of the step that yields the tree.
    pub step: usize,
    /// The part of it.
    pub path: String,
}

/// A layer of a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its diff ID.
    #[serde(with = "hex::one")]
    pub diff_id: Sha256Digest,
    /// Its bundle, where the image itself says so.
    #[serde(with = "hex::option", default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleId>,
}

/// What a record need not say.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What became of one step, and how that came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepReport {
    /// Its number, from 1.
    pub number: usize,
    /// `[stage 2/5] RUN make`.
    pub label: String,
    /// The stage's name or number.
    pub stage: String,
    /// First line of its instruction, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// `run`, `copy`, `mkdir` (a WORKDIR), `image`, `local`, `scratch`, `http` or `git`.
    pub kind: String,
    /// Numbers of the steps whose trees it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<usize>,
    /// The one of them whose tree it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// How it ended.
    pub outcome: Outcome,
    /// Of a hit: how its result was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundBy>,
    /// Of a miss: whether the step, or the one that stood in its place, has a result of an earlier build.
    #[serde(skip_serializing_if = "is_default")]
    pub again: bool,
    /// Why it ran (or would run).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The facts that no longer held; the first ones, if they are very many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenFact>,
    /// How many no longer held.
    #[serde(skip_serializing_if = "is_default")]
    pub broken_count: usize,
    /// What is another in its definition: `environment variable VERSION`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redefined: Vec<String>,
    /// What it is, whatever it works on.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub definition: Option<KeyDigest>,
    /// What it is and all that it works on.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub exact: Option<KeyDigest>,
    /// Under what its path sets are listed.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub base: Option<KeyDigest>,
    /// Its result by facts, where those were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// Of a miss: the strong key of the result whose facts no longer held.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub compared: Option<KeyDigest>,
    /// What it changed; none: nothing, or it is not known.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleId>,
    /// Identity of the tree that it yielded.
    #[serde(with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub identity: Option<TreeDigest>,
    /// Of a base image: its layers, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// When its result was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// From begin to end, in milliseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub duration_ms: u64,
    /// Of a hit: how long executing it had taken.
    #[serde(skip_serializing_if = "is_default")]
    pub saved_ms: u64,
    /// Of a COPY: from where to where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyPlaces>,
    /// Of a RUN: what it mounts of other steps, in order of the flags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<BindPlace>,
    /// Of a RUN: its working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cwd: String,
    /// Its definition, field by field: names, and digests of what could be confidential.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, String)>,
}

impl StepReport {
    /// A step of which nothing is known yet.
    pub(crate) fn planned(step: &Step) -> Self {
        let number = |id: StepId| id.0 + 1;
        let copy = match &step.op {
            Op::Copy(copy) => Some(CopyPlaces {
                sources: copy.sources.iter().filter_map(copy_from).collect(),
                dest: copy.dest.clone(),
                dest_is_dir: copy.dest_is_dir,
                parents: copy.parents,
            }),
            _ => None,
        };
        let (binds, cwd) = match &step.op {
            Op::Run(run) => {
                let bind = |mount: &memobuild_plan::model::Mount| match &mount.kind {
                    MountKind::Bind { from, path, .. } => {
                        Some(BindPlace { target: mount.target.clone(), step: number(*from), path: path.clone() })
                    }
                    _ => None,
                };
                (run.mounts.iter().filter_map(bind).collect(), run.cwd.clone())
            }
            _ => (Vec::new(), String::new()),
        };
        Self {
            number: number(step.id),
            label: step.label.clone(),
            stage: step.stage.clone(),
            line: step.span.as_ref().map(|span| span.start.line as usize),
            kind: step.op.name().to_owned(),
            inputs: crate::schedule::inputs(step).into_iter().map(number).collect(),
            parent: crate::step::parent(step).map(number),
            copy,
            binds,
            cwd,
            ..Self::default()
        }
    }

    /// Adds the step's definition, field by field.
    pub(crate) fn define(&mut self, step: &Step, plan: &Plan) {
        self.fields = fields::of(step, plan);
    }

    /// Takes in what looking its result up has shown.
    pub(crate) fn take(&mut self, learnt: &Learnt) {
        let Learnt { definition, exact, base, found, created, millis, seen, why } = learnt;
        self.outcome = if found.is_some() { Outcome::Hit } else { Outcome::Ran };
        (self.definition, self.exact, self.base) = (Some(*definition), Some(*exact), *base);
        self.found = *found;
        self.created = found.map(|_| *created);
        self.saved_ms = *millis;
        self.seen = seen.map(Seen::from);
        let Why { reason, again, broken, broken_count, redefined, compared } = why;
        self.reason = found.is_none().then(|| reason.clone());
        (self.again, self.broken_count, self.compared) = (*again, *broken_count, *compared);
        self.broken.clone_from(broken);
        self.redefined.clone_from(redefined);
    }

    /// Takes in what it yielded.
    pub(crate) fn yielded(&mut self, value: &Value) {
        self.identity = Some(value.identity());
        self.bundle = value.change.map(|(bundle, _)| bundle);
    }

    /// Whether it was executed, or would be as far as can be told.
    pub fn executed(&self) -> bool {
        matches!(self.outcome, Outcome::Ran | Outcome::Failed | Outcome::Unknown)
    }

    /// The instruction alone, without stage and count: `RUN make`.
    pub fn instruction(&self) -> &str {
        match self.label.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((_, instruction)) if self.line.is_some() => instruction,
            _ => &self.label,
        }
    }

    /// The stage and count in front of the instruction: `build 2/5`.
    pub fn place(&self) -> Option<&str> {
        let (place, _) = self.label.strip_prefix('[')?.split_once("] ")?;
        self.line.is_some().then_some(place)
    }

    /// The same without the count of all: what stays when lines are added behind it.
    pub(super) fn position(&self) -> Option<String> {
        let (before, _) = self.place()?.rsplit_once('/')?;
        Some(before.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

fn copy_from(source: &CopySource) -> Option<CopyFrom> {
    match source {
        CopySource::Path { from, pattern, pivot, .. } => {
            Some(CopyFrom { step: from.0 + 1, pattern: pattern.clone(), pivot: *pivot })
        }
        CopySource::Inline { .. } => None,
    }
}
