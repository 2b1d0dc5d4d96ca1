//! A plan to look at: as text, as Graphviz and Mermaid source, as an SVG picture, and as JSON.
//!
//! All forms name a step `#N`, counting from 1, and name the same edges; their order is the plan's, so that equal
//! plans give equal text. All but the pictures of plain plans show [`State`]s beside the steps where those are given.

mod dot;
mod groups;
mod json;
mod layout;
mod mermaid;
mod svg;
mod text;

use crate::model::{Op, Plan, Step, StepId};

pub use dot::dot;
pub use json::json;
pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

/// What would become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// Its result is known.
    Hit,
    /// It would run.
    Run,
    /// Only what comes before it, once executed, can tell.
    Unknown,
    /// It comes from outside: a base image, a context.
    Source,
}

/// What would become of a step, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What.
    pub kind: StateKind,
    /// Why, in one line.
    pub why: Option<String>,
}

impl StateKind {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Run => "run",
            Self::Unknown => "unknown",
            Self::Source => "source",
        }
    }

    /// What the word means, for legends.
    fn meaning(self) -> &'static str {
        match self {
            Self::Hit => "result is known",
            Self::Run => "would run",
            Self::Unknown => "depends on what runs before",
            Self::Source => "from outside",
        }
    }

    const ALL: [Self; 4] = [Self::Hit, Self::Run, Self::Unknown, Self::Source];
}

/// The states of a plan's steps in order; none where they are not to be shown, or can't be told.
pub type States<'a> = Option<&'a [State]>;

fn state<'a>(states: States<'a>, id: StepId) -> Option<&'a State> {
    states?.get(id.0)
}

/// A step's number as people count.
fn number(id: StepId) -> usize {
    id.0 + 1
}

fn name(id: StepId) -> String {
    format!("#{}", number(id))
}

/// What an operation needs, each once.
fn needs(op: &Op) -> Vec<StepId> {
    let mut out: Vec<StepId> = Vec::new();
    for id in op.inputs() {
        if !out.contains(&id) {
            out.push(id);
        }
    }
    out
}

/// From what is needed to what needs it.
fn edges(plan: &Plan) -> impl Iterator<Item = (StepId, StepId)> + '_ {
    plan.steps.iter().flat_map(|step| needs(&step.op).into_iter().map(|from| (from, step.id)))
}

fn is_target(plan: &Plan, id: StepId) -> bool {
    plan.targets.iter().any(|target| target.root == id)
}

/// A label that fits into a box.
fn short(step: &Step) -> String {
    const MOST: usize = 60;
    let label = one_line(&step.label);
    if label.chars().count() <= MOST {
        return label;
    }
    format!("{}…", label.chars().take(MOST - 1).collect::<String>())
}

/// Control characters would break lines or terminals.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
