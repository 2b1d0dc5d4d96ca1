//! Two builds, and the steps that differ between them.

use std::fmt::Write as _;

use memobuild_engine::{StepReport, history::BuildRecord};
use serde_json::{Value, json};

use super::{
    pair::{Pair, pairs},
    show::{self, why},
};
use crate::cli::{
    record::{self, one_line, time, word},
    text as table,
};

/// Columns that a step's text takes at most.
const LONGEST: usize = 50;
/// Times that are nearer to each other are as good as equal.
const NOTABLE_MS: u64 = 100;

/// How two steps differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differs {
    Outcome,
    Why,
    Duration,
}

impl Differs {
    fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Why => "why",
            Self::Duration => "duration",
        }
    }
}

/// In what two steps differ; empty: in nothing. One that only one build has differs in its outcome.
fn differing(pair: Pair<'_>) -> Vec<Differs> {
    let (Some(a), Some(b)) = (pair.a, pair.b) else { return vec![Differs::Outcome] };
    let mut out = Vec::new();
    if a.outcome != b.outcome {
        out.push(Differs::Outcome);
    }
    if why(a) != why(b) {
        out.push(Differs::Why);
    }
    let (less, more) = (a.duration_ms.min(b.duration_ms), a.duration_ms.max(b.duration_ms));
    // A tenth of it at least: no two runs take the same time.
    if more - less >= NOTABLE_MS.max(more / 10) {
        out.push(Differs::Duration);
    }
    out
}

/// The pairs that differ, and how many do not.
fn split<'a>(a: &'a BuildRecord, b: &'a BuildRecord) -> (Vec<(Pair<'a>, Vec<Differs>)>, usize) {
    let all = pairs(a, b);
    let count = all.len();
    let differ: Vec<_> =
        all.into_iter().map(|pair| (pair, differing(pair))).filter(|(_, differs)| !differs.is_empty()).collect();
    let same = count - differ.len();
    (differ, same)
}

pub(super) fn text(a: &BuildRecord, b: &BuildRecord) -> String {
    let mut out = format!("{}{}\n", record::headline(a), record::headline(b));
    let (differ, same) = split(a, b);
    if !differ.is_empty() {
        let mut rows = vec![["STEP".to_owned(), a.id.clone(), b.id.clone(), "WHY".to_owned()]];
        rows.extend(differ.iter().map(|(pair, _)| row(*pair, a, b)));
        out.push_str(&table::table(&rows));
        out.push('\n');
    }
    let _ = match (differ.len(), same) {
        (0, _) => writeln!(out, "no step differs"),
        (_, 1) => writeln!(out, "1 step is the same in both"),
        (_, same) => writeln!(out, "{same} steps are the same in both"),
    };
    out
}

fn row(pair: Pair<'_>, a: &BuildRecord, b: &BuildRecord) -> [String; 4] {
    let label = pair.b.or(pair.a).map(|step| table::cut(&one_line(&step.label), LONGEST)).unwrap_or_default();
    let state = |step: Option<&StepReport>| match step {
        Some(step) => format!("{} {}", word(step.outcome, false), time(step.duration_ms)),
        None => "-".into(),
    };
    // Of the newer one if it ran, else of the one that did.
    let ran = |step: Option<&StepReport>| step.filter(|step| step.executed()).and_then(why);
    let said = match (ran(pair.a), ran(pair.b)) {
        (_, Some(why)) => format!("{}: {why}", b.id),
        (Some(why), None) => format!("{}: {why}", a.id),
        (None, None) => pair.b.and_then(why).unwrap_or_default(),
    };
    [label, state(pair.a), state(pair.b), said]
}

pub(super) fn json(a: &BuildRecord, b: &BuildRecord) -> String {
    let (differ, same) = split(a, b);
    let side = |step: Option<&StepReport>| step.map_or(Value::Null, show::step);
    let steps = differ.iter().map(|(pair, differs)| {
        let differs: Vec<&str> = differs.iter().map(|one| one.name()).collect();
        json!({ "a": side(pair.a), "b": side(pair.b), "differs": differs })
    });
    let steps: Vec<Value> = steps.collect();
    format!("{:#}\n", json!({ "a": record::head(a), "b": record::head(b), "steps": steps, "same": same }))
}

#[cfg(test)]
mod tests {
    use memobuild_engine::history::Outcome;

    use super::*;
    use crate::cli::history::testing::*;

    #[test]
    fn what_differs_is_listed() {
        insta::assert_snapshot!(text(&first(), &second()), @r"
        Build 1a2b3c4d of app, at some time: done in 2.3s; 2 of 2 steps ran, 0ms saved
        Build 9f8e7d6c of app, at some time: done in 120ms; 2 of 3 steps ran, 8.1s saved

        STEP                   1a2b3c4d  9f8e7d6c  WHY
        [app 2/4] COPY . /src  ran 2.0s  hit 1ms   1a2b3c4d: src/a.c changed (read by the step)
        [app 4/4] RUN test     -         ran 2.0s  9f8e7d6c: src/a.c changed (read by the step)

        2 steps are the same in both
        ");
        assert!(text(&first(), &first()).ends_with("\n\nno step differs\n"));
    }

    #[test]
    fn the_same_as_json() {
        let shown: Value = serde_json::from_str(&json(&first(), &second())).unwrap();
        assert_eq!((&shown["a"]["build"], &shown["b"]["build"]), (&"1a2b3c4d".into(), &"9f8e7d6c".into()));
        assert_eq!(shown["same"], 2);
        let steps = shown["steps"].as_array().unwrap();
        assert_eq!((&steps[0]["a"]["outcome"], &steps[0]["b"]["outcome"]), (&"ran".into(), &"hit".into()));
        assert_eq!(steps[0]["differs"], json!(["outcome", "why", "duration"]));
        assert_eq!((&steps[1]["a"], &steps[1]["differs"]), (&Value::Null, &json!(["outcome"])));
    }

    #[test]
    fn small_differences_of_time_are_none() {
        let timed = |ms| StepReport { duration_ms: ms, ..step(1, "[app 1/1] RUN a", Outcome::Ran) };
        for (one, other, expected) in [
            (0, 99, vec![]),
            (0, 100, vec![Differs::Duration]),
            (5000, 5400, vec![]),
            (6000, 5400, vec![Differs::Duration]),
        ] {
            let (one, other) = (timed(one), timed(other));
            assert_eq!(differing(Pair { a: Some(&one), b: Some(&other) }), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn another_reason_is_a_difference() {
        let mut other = first();
        other.steps[2].reason = Some("the command changed".into());
        let (differ, same) = split_of(&first(), &other);
        assert_eq!((differ, same), (vec![vec![Differs::Why]], 2));
    }

    fn split_of(a: &BuildRecord, b: &BuildRecord) -> (Vec<Vec<Differs>>, usize) {
        let (differ, same) = split(a, b);
        (differ.into_iter().map(|(_, differs)| differs).collect(), same)
    }
}
