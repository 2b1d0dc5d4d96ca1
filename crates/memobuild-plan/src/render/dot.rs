//! A plan as Graphviz source.

use super::{StateKind, States, edges, groups, is_target, number, one_line, short, state};
use crate::model::{Plan, Step};

/// Graphviz: `dot -Tsvg` makes a picture of it. Stages are clusters.
pub fn dot(plan: &Plan, states: States<'_>) -> String {
    let mut out = String::from(
        "digraph plan {\n  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\", fontsize=11];\n  \
         edge [color=\"#6e7781\"];\n",
    );
    for (index, group) in groups::of(plan).iter().enumerate() {
        let (indent, boxed) = if group.title.is_empty() { ("  ", false) } else { ("    ", true) };
        if boxed {
            let title = quoted(&group.title);
            out.push_str(&format!(
                "  subgraph cluster_{index} {{\n    label={title}; labeljust=l; fontname=\"sans-serif\"; style=rounded; \
                 color=\"#afb8c1\";\n"
            ));
        }
        for step in group.steps.iter().filter_map(|id| plan.steps.get(id.0)) {
            out.push_str(&format!("{indent}{}", node(plan, states, step)));
        }
        if boxed {
            out.push_str("  }\n");
        }
    }
    for (from, to) in edges(plan) {
        out.push_str(&format!("  s{} -> s{};\n", number(from), number(to)));
    }
    if states.is_some() {
        out.push_str(
            "  subgraph cluster_legend {\n    label=\"states\"; fontname=\"sans-serif\"; color=\"#d0d7de\";\n",
        );
        for kind in StateKind::ALL {
            let label = quoted(&format!("{}: {}", kind.word(), kind.meaning()));
            out.push_str(&format!("    legend_{} [label={label}{}];\n", kind.word(), style(kind)));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

fn node(plan: &Plan, states: States<'_>, step: &Step) -> String {
    let target = if is_target(plan, step.id) { ", peripheries=2" } else { "" };
    let Some(state) = state(states, step.id) else {
        return format!("s{} [label={}{target}];\n", number(step.id), quoted(&short(step)));
    };
    let label = quoted(&format!("{}: {}", state.kind.word(), short(step)));
    let tooltip = quoted(&one_line(state.why.as_deref().unwrap_or(&step.label)));
    format!("s{} [label={label}, tooltip={tooltip}{}{target}];\n", number(step.id), style(state.kind))
}

/// Each state has a colour, a line and a word of its own.
fn style(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Hit => ", style=\"filled\", fillcolor=\"#dafbe1\", color=\"#1a7f37\"",
        StateKind::Run => ", style=\"filled,bold\", fillcolor=\"#ffe2cc\", color=\"#bc4c00\"",
        StateKind::Unknown => ", style=\"filled,dashed\", fillcolor=\"#f6f8fa\", color=\"#57606a\"",
        StateKind::Source => ", style=\"filled,rounded\", fillcolor=\"#ddf4ff\", color=\"#0969da\"",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
