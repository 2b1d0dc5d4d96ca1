//! A plan to look at: as text, as Graphviz and Mermaid source, and as JSON.
//!
//! All forms name a step `#N`, counting from 1, and name the same edges; their order is the plan's, so that equal
//! plans give equal text.

mod json;

use crate::model::{Op, Plan, Step, StepId};

pub use json::json;

/// One line a step: number, label, platform if there are several, and what it needs.
pub fn text(plan: &Plan) -> String {
    let many = plan.targets.len() > 1;
    let width = plan.steps.len().checked_ilog10().unwrap_or(0) as usize + 2;
    let mut out = String::new();
    for step in &plan.steps {
        let platform = if many { format!(" ({})", step.platform) } else { String::new() };
        let needs = needs(&step.op).iter().map(|&id| name(id)).collect::<Vec<_>>().join(" ");
        let arrow = if needs.is_empty() { String::new() } else { format!("  <- {needs}") };
        out.push_str(&format!("{:>width$} {}{platform}{arrow}\n", name(step.id), one_line(&step.label)));
    }
    for target in &plan.targets {
        out.push_str(&format!("target {} ({}): {}\n", target.stage, target.platform, name(target.root)));
    }
    out
}

/// Graphviz: `dot -Tsvg` makes a picture of it.
pub fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph plan {\n  rankdir=BT;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    for step in &plan.steps {
        let style = if is_target(plan, step.id) { ", peripheries=2" } else { "" };
        out.push_str(&format!("  s{} [label={}{style}];\n", number(step.id), quoted(&short(step))));
    }
    for (from, to) in edges(plan) {
        out.push_str(&format!("  s{} -> s{};\n", number(from), number(to)));
    }
    out.push_str("}\n");
    out
}

/// Mermaid, which Markdown viewers draw.
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart TD\n");
    // Mermaid has no escapes in strings but for entities.
    let quoted = |text: &str| {
        let mut safe = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '#' | '<' | '>' | '&' | '`' | '\\' => safe.push_str(&format!("#{};", u32::from(c))),
                c => safe.push(c),
            }
        }
        safe.push('"');
        safe
    };
    for step in &plan.steps {
        let (open, close) = if is_target(plan, step.id) { ("[[", "]]") } else { ("[", "]") };
        out.push_str(&format!("  s{}{open}{}{close}\n", number(step.id), quoted(&short(step))));
    }
    for (from, to) in edges(plan) {
        out.push_str(&format!("  s{} --> s{}\n", number(from), number(to)));
    }
    out
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
