//! A plan as Mermaid source.

use super::{StateKind, States, edges, groups, is_target, number, short, state};
use crate::model::{Plan, Step};

/// Mermaid, which Markdown viewers draw. Stages are subgraphs.
pub fn mermaid(plan: &Plan, states: States<'_>) -> String {
    let mut out = String::from("flowchart TD\n");
    for (index, group) in groups::of(plan).iter().enumerate() {
        let boxed = !group.title.is_empty();
        if boxed {
            out.push_str(&format!("  subgraph g{index}[{}]\n", quoted(&group.title)));
        }
        for step in group.steps.iter().filter_map(|id| plan.steps.get(id.0)) {
            out.push_str(&format!("{}{}", if boxed { "    " } else { "  " }, node(plan, states, step)));
        }
        if boxed {
            out.push_str("  end\n");
        }
    }
    for (from, to) in edges(plan) {
        out.push_str(&format!("  s{} --> s{}\n", number(from), number(to)));
    }
    for kind in StateKind::ALL.into_iter().filter(|_| states.is_some()) {
        out.push_str(&format!("  classDef {} {}\n", kind.word(), style(kind)));
    }
    out
}

fn node(plan: &Plan, states: States<'_>, step: &Step) -> String {
    let (open, close) = if is_target(plan, step.id) { ("[[", "]]") } else { ("[", "]") };
    let (word, class) = match state(states, step.id) {
        Some(state) => (format!("{}: ", state.kind.word()), format!(":::{}", state.kind.word())),
        None => Default::default(),
    };
    format!("s{}{open}{}{close}{class}\n", number(step.id), quoted(&format!("{word}{}", short(step))))
}

fn style(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Hit => "fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
        StateKind::Run => "fill:#ffe2cc,stroke:#bc4c00,stroke-width:3px,color:#1f2328",
        StateKind::Unknown => "fill:#f6f8fa,stroke:#57606a,stroke-dasharray:5 3,color:#1f2328",
        StateKind::Source => "fill:#ddf4ff,stroke:#0969da,color:#1f2328",
    }
}

/// Mermaid has no escapes in strings but for entities.
fn quoted(text: &str) -> String {
    let mut safe = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' => safe.push_str(&format!("#{};", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe.push('"');
    safe
}
