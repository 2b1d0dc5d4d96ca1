//! Which steps a person means.

use memobuild_engine::{StepReport, history::BuildRecord};

use crate::cli::Failure;

/// Steps named when none was found.
const NEAREST: usize = 3;

/// The numbers of the steps that a text names: by number (`3`, `#3`), by stage and number (`build/3`), or by a part of
/// their text.
pub(super) fn steps(build: &BuildRecord, wanted: &str) -> Result<Vec<usize>, Failure> {
    let exact = build.steps.iter().filter(|step| is_number(step, wanted) || is_place(step, wanted));
    let mut found: Vec<usize> = exact.map(|step| step.number).collect();
    if found.is_empty() {
        let lower = wanted.to_lowercase();
        let with = build.steps.iter().filter(|step| step.label.to_lowercase().contains(&lower));
        found = with.map(|step| step.number).collect();
    }
    if found.is_empty() || wanted.is_empty() { Err(unknown(build, wanted)) } else { Ok(found) }
}

fn is_number(step: &StepReport, wanted: &str) -> bool {
    wanted.strip_prefix('#').unwrap_or(wanted).parse() == Ok(step.number)
}

/// `build/3` for `[build 3/5]`; a stage without a name is called `/3` or, as in the label, `stage-1/3`.
fn is_place(step: &StepReport, wanted: &str) -> bool {
    let bare = |text: &str| text.trim_matches(['[', ']']).split_whitespace().collect::<Vec<_>>().join(" ");
    if step.place().is_some_and(|place| bare(place) == bare(wanted)) {
        return true;
    }
    let Some((stage, number)) = wanted.trim_matches(['[', ']']).rsplit_once('/') else { return false };
    let Some((before, _)) = step.place().and_then(|place| place.rsplit_once('/')) else { return false };
    let (name, at) = before.trim_end().rsplit_once(' ').unwrap_or(("", before));
    at.trim() == number && (name.trim() == stage || step.stage == stage)
}

fn unknown(build: &BuildRecord, wanted: &str) -> Failure {
    let failure = Failure::usage(format!("no step {wanted:?} in build {}", build.id));
    let mut scored: Vec<(usize, &StepReport)> =
        build.steps.iter().map(|step| (likeness(wanted, &step.label), step)).collect();
    scored.sort_by_key(|(score, step)| (std::cmp::Reverse(*score), step.number));
    let near = scored.iter().filter(|(score, _)| *score > 0).take(NEAREST);
    let near: Vec<String> = near.map(|(_, step)| format!("#{} {}", step.number, step.label)).collect();
    match (near.is_empty(), build.steps.len()) {
        (_, 0) => failure.with_hint("that build ended before any step"),
        (true, count) => failure.with_hint(format!("its steps are numbered 1 to {count}")),
        (false, _) => failure.with_hint(format!("the nearest: {}", near.join(", "))),
    }
}

/// How many runs of three characters both have in common.
fn likeness(a: &str, b: &str) -> usize {
    let runs = |text: &str| -> std::collections::BTreeSet<Vec<char>> {
        let chars: Vec<char> = text.to_lowercase().chars().collect();
        chars.windows(3).map(<[char]>::to_vec).collect()
    };
    runs(a).intersection(&runs(b)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> BuildRecord {
        let labels = [
            "[base 1/2] FROM docker.io/library/debian:12",
            "[internal] load build context",
            "[build  2/12] COPY . /src",
            "[build  3/12] RUN npm run build",
            "[2/2] RUN npm test",
        ];
        let step = |(at, label): (usize, &&str)| StepReport {
            number: at + 1,
            label: (*label).into(),
            stage: if at < 4 { "build".into() } else { "1".into() },
            line: (at != 1).then_some(at),
            ..StepReport::default()
        };
        BuildRecord {
            id: "0123abcd".into(),
            steps: labels.iter().enumerate().map(step).collect(),
            ..BuildRecord::default()
        }
    }

    #[test]
    fn steps_are_found_in_each_way() {
        let found = |wanted: &str| steps(&build(), wanted).unwrap();
        assert_eq!((found("3"), found("#3"), found("build/3")), (vec![3], vec![3], vec![4]));
        assert_eq!((found("[build 2/12]"), found("1/2"), found("/2")), (vec![3], vec![5], vec![5]));
        assert_eq!((found("RUN NPM"), found("context")), (vec![4, 5], vec![2]));
    }

    #[test]
    fn the_nearest_are_named() {
        let said = |wanted: &str| steps(&build(), wanted).unwrap_err().render(false);
        insta::assert_snapshot!(said("npm bild"), @r#"
        error: no step "npm bild" in build 0123abcd
        hint: the nearest: #4 [build  3/12] RUN npm run build, #5 [2/2] RUN npm test, #2 [internal] load build context
        "#);
        insta::assert_snapshot!(said("77"), @r#"
        error: no step "77" in build 0123abcd
        hint: its steps are numbered 1 to 5
        "#);
    }
}
