//! Which step of one build stands for which of another.

use memobuild_engine::{StepReport, history::BuildRecord};

/// A step of one build, of the other, or of both.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) a: Option<&'a StepReport>,
    pub(super) b: Option<&'a StepReport>,
}

/// All steps of both, in the order of the second build; those of the first one alone stand behind. A step stands for
/// the one with the same definition and text, or else with the same text, or else at the same place: each for one at
/// most.
pub(super) fn pairs<'a>(a: &'a BuildRecord, b: &'a BuildRecord) -> Vec<Pair<'a>> {
    let mut of_b: Vec<Option<&StepReport>> = vec![None; b.steps.len()];
    let mut used = vec![false; a.steps.len()];
    for alike in [by_definition, by_text, by_place] {
        for (new, slot) in b.steps.iter().zip(&mut of_b).filter(|(_, slot)| slot.is_none()) {
            let mut free = a.steps.iter().zip(&mut used).filter(|(_, used)| !**used);
            if let Some((old, used)) = free.find(|(old, _)| alike(old, new)) {
                *used = true;
                *slot = Some(old);
            }
        }
    }
    let both = b.steps.iter().zip(of_b).map(|(new, old)| Pair { a: old, b: Some(new) });
    let left = a.steps.iter().zip(used).filter(|(_, used)| !used).map(|(old, _)| Pair { a: Some(old), b: None });
    both.chain(left).collect()
}

fn by_definition(old: &StepReport, new: &StepReport) -> bool {
    by_text(old, new) && old.fields == new.fields
}

fn by_text(old: &StepReport, new: &StepReport) -> bool {
    old.kind == new.kind && old.stage == new.stage && old.instruction() == new.instruction()
}

/// The place without the count of all steps: lines may have been added behind it.
fn by_place(old: &StepReport, new: &StepReport) -> bool {
    let place = |step: &StepReport| {
        let (before, _) = step.place()?.rsplit_once('/')?;
        Some(before.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    old.kind == new.kind && old.stage == new.stage && place(old).is_some() && place(old) == place(new)
}

#[cfg(test)]
mod tests {
    use memobuild_engine::history::Outcome;

    use super::*;
    use crate::cli::history::testing::*;

    fn build_of(labels: &[&str]) -> BuildRecord {
        let steps = labels.iter().zip(1..).map(|(label, number)| step(number, label, Outcome::Ran));
        build("00000000", steps.collect())
    }

    fn numbers(a: &BuildRecord, b: &BuildRecord) -> Vec<(usize, usize)> {
        let number = |step: Option<&StepReport>| step.map_or(0, |step| step.number);
        pairs(a, b).into_iter().map(|pair| (number(pair.a), number(pair.b))).collect()
    }

    #[test]
    fn steps_keep_their_counterparts_when_one_is_put_in_between() {
        let a = build_of(&["[app 1/2] RUN a", "[app 2/2] RUN b"]);
        let b = build_of(&["[app 1/3] RUN a", "[app 2/3] RUN new", "[app 3/3] RUN b"]);
        assert_eq!(numbers(&a, &b), [(1, 1), (0, 2), (2, 3)]);
        assert_eq!(numbers(&b, &a), [(1, 1), (3, 2), (2, 0)]);
    }

    #[test]
    fn another_command_at_the_same_place_is_the_same_step() {
        let a = build_of(&["[app 1/2] RUN a", "[app 2/2] RUN b"]);
        let b = build_of(&["[app 1/2] RUN a", "[app 2/2] RUN c"]);
        assert_eq!(numbers(&a, &b), [(1, 1), (2, 2)]);
    }

    #[test]
    fn equal_commands_are_told_apart_by_their_definitions_and_used_once() {
        let mut a = build_of(&["[app 1/2] RUN a", "[app 2/2] RUN a"]);
        let mut b = build_of(&["[app 1/2] RUN a", "[app 2/2] RUN a"]);
        a.steps[1].fields.push(("the user".into(), "me".into()));
        b.steps[0].fields.push(("the user".into(), "me".into()));
        assert_eq!(numbers(&a, &b), [(2, 1), (1, 2)]);
    }
}
