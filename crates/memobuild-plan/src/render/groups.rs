//! The steps of a plan by stage.

use crate::model::{Op, Plan, StepId};

/// Steps that stand in one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// What stands over it; empty for what is in no box (contexts).
    pub(super) title: String,
    /// In the plan's order.
    pub(super) steps: Vec<StepId>,
}

/// One group for each stage (of each platform, where there are several), in order of their first steps.
pub(super) fn of(plan: &Plan) -> Vec<Group> {
    let many = plan.targets.len() > 1;
    let mut out: Vec<Group> = Vec::new();
    for step in &plan.steps {
        let title = match &step.op {
            Op::Local(_) => String::new(),
            _ if many => format!("{} ({})", named(&step.stage), step.platform),
            _ => named(&step.stage),
        };
        match out.iter_mut().find(|group| group.title == title) {
            Some(group) => group.steps.push(step.id),
            None => out.push(Group { title, steps: vec![step.id] }),
        }
    }
    out
}

/// `build`, or `stage-2` for one without a name, as labels count them.
pub(super) fn named(stage: &str) -> String {
    match stage.parse::<usize>() {
        Ok(number) => format!("stage-{number}"),
        Err(_) => stage.to_owned(),
    }
}
