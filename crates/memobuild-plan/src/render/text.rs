//! A plan as lines.

use super::{State, StateKind, States, name, needs, one_line, state};
use crate::model::Plan;

/// One line a step: number, state, label, platform if there are several, and what it needs. Below a step that would
/// run stands why.
pub fn text(plan: &Plan, states: States<'_>) -> String {
    let many = plan.targets.len() > 1;
    let width = plan.steps.len().checked_ilog10().unwrap_or(0) as usize + 2;
    let words = states.into_iter().flatten().map(|state| state.kind.word().len()).max().unwrap_or_default();
    let mut out = String::new();
    for step in &plan.steps {
        let platform = if many { format!(" ({})", step.platform) } else { String::new() };
        let needs = needs(&step.op).iter().map(|&id| name(id)).collect::<Vec<_>>().join(" ");
        let arrow = if needs.is_empty() { String::new() } else { format!("  <- {needs}") };
        let state = state(states, step.id);
        let word = state.map(|state| format!("{:words$}  ", state.kind.word())).unwrap_or_default();
        out.push_str(&format!("{:>width$} {word}{}{platform}{arrow}\n", name(step.id), one_line(&step.label)));
        if let Some(State { kind: StateKind::Run, why: Some(why) }) = state {
            out.push_str(&format!("{}{}\n", " ".repeat(width + 1 + words + 2), one_line(why)));
        }
    }
    for target in &plan.targets {
        out.push_str(&format!("target {} ({}): {}\n", target.stage, target.platform, name(target.root)));
    }
    out
}
