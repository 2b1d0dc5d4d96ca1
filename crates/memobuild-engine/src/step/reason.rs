//! Why a step runs, in one line for a person.

use memobuild_plan::model::{MountKind, Op, Step};
use memobuild_tree::{
    facts::{Broken, BrokenHow, Look},
    path,
};

use crate::history::{BrokenFact, FactChange};

/// Paths that a line names; of more it says how many.
const NAMED: usize = 3;
/// Facts that are kept one by one.
const KEPT: usize = 200;

/// The facts that broke: `src/index.js changed (read by the step) and 2 more`.
pub(super) fn of_broken(step: &Step, broken: &[Broken]) -> Option<String> {
    let named: Vec<String> = broken.iter().take(NAMED).map(|b| one(step, b)).collect();
    some_of(&named, broken.len())
}

/// What is another: `the user changed, environment variable A is new and 2 more`.
pub(super) fn listed(all: &[String]) -> Option<String> {
    some_of(all.get(..NAMED).unwrap_or(all), all.len())
}

fn some_of(named: &[String], count: usize) -> Option<String> {
    match (named.is_empty(), count - named.len()) {
        (true, _) => None,
        (_, 0) => Some(named.join(", ")),
        (_, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

/// The facts that broke, one by one; of very many the first.
pub(super) fn facts(step: &Step, broken: &[Broken]) -> Vec<BrokenFact> {
    let fact = |b: &Broken| {
        let mount = mount_of(step, b).map(str::to_owned);
        BrokenFact {
            path: path::display(&absolute(step, b)),
            mount,
            change: match b.how {
                BrokenHow::Appeared => FactChange::Appeared,
                BrokenHow::Disappeared => FactChange::Disappeared,
                BrokenHow::Kind => FactChange::Kind,
                BrokenHow::Content => FactChange::Content,
                BrokenHow::Meta => FactChange::Meta,
                BrokenHow::Listing => FactChange::Listing,
            },
            read: b.look.has(Look::READ),
            text: one(step, b),
        }
    };
    broken.iter().take(KEPT).map(fact).collect()
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

/// The target of the mount in which something broke.
fn mount_of<'s>(step: &'s Step, broken: &Broken) -> Option<&'s str> {
    let Op::Run(run) = &step.op else { return None };
    let binds = run.mounts.iter().filter(|m| matches!(m.kind, MountKind::Bind { .. }));
    binds.map(|m| m.target.as_str()).nth(broken.tree.checked_sub(1)?)
}

/// As the step sees it.
fn absolute(step: &Step, broken: &Broken) -> Vec<u8> {
    match mount_of(step, broken) {
        Some(target) => path::join(target.as_bytes(), broken.path.get(1..).unwrap_or_default()),
        None => broken.path.clone(),
    }
}

/// As seen from the step's working directory; below a mount with the mount's target in front.
pub(super) fn shown(step: &Step, broken: &Broken) -> String {
    let full = absolute(step, broken);
    let Op::Run(run) = &step.op else { return path::display(&full) };
    let inside = full.strip_prefix(run.cwd.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    match inside {
        Some(rest) if !rest.is_empty() && run.cwd != "/" => path::display(rest),
        _ => path::display(&full),
    }
}
