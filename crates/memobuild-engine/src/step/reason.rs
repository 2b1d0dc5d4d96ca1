//! Why a step runs, in one line for a person.

use memobuild_plan::model::{MountKind, Op, Step};
use memobuild_tree::{
    facts::{Broken, BrokenHow, Look},
    path,
};

/// Paths that a line names; of more it says how many.
const NAMED: usize = 3;

/// The facts that broke: `src/index.js changed (read by the step) and 2 more`.
pub(super) fn of_broken(step: &Step, broken: &[Broken]) -> Option<String> {
    let named: Vec<String> = broken.iter().take(NAMED).map(|b| one(step, b)).collect();
    let more = broken.len().saturating_sub(NAMED);
    match (named.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(named.join(", ")),
        (_, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

fn one(step: &Step, broken: &Broken) -> String {
    let path = shown(step, broken);
    let read = if broken.look.has(Look::READ) { "read" } else { "looked at" };
    match broken.how {
        BrokenHow::Appeared => format!("{path} is new (the step looked for it)"),
        BrokenHow::Disappeared => format!("{path} is gone ({read} by the step)"),
        BrokenHow::Kind => format!("{path} became something else ({read} by the step)"),
        BrokenHow::Content => format!("{path} changed ({read} by the step)"),
        BrokenHow::Meta => format!("mode, owner or attributes of {path} changed ({read} by the step)"),
        BrokenHow::Listing => format!("names in {path} changed (listed by the step)"),
    }
}

/// As seen from the step's working directory; below a mount with the mount's target in front.
pub(super) fn shown(step: &Step, broken: &Broken) -> String {
    let Op::Run(run) = &step.op else { return path::display(&broken.path) };
    let binds = run.mounts.iter().filter(|m| matches!(m.kind, MountKind::Bind { .. }));
    let full = match binds.map(|m| m.target.as_bytes()).nth(broken.tree.wrapping_sub(1)) {
        Some(target) if broken.tree > 0 => path::join(target, broken.path.get(1..).unwrap_or_default()),
        _ => broken.path.clone(),
    };
    let inside = full.strip_prefix(run.cwd.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    match inside {
        Some(rest) if !rest.is_empty() && run.cwd != "/" => path::display(rest),
        _ => path::display(&full),
    }
}
