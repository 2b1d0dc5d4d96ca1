//! One build and its steps.

use std::fmt::Write as _;

use memobuild_engine::{
    StepReport,
    history::{BuildRecord, Outcome},
};
use serde_json::{Value, json};

use crate::cli::{
    record::{self, colour_of, one_line, time, word},
    text::paint,
};

pub(super) fn text(build: &BuildRecord, colour: bool) -> String {
    let mut out = record::headline(build);
    out.push('\n');
    let width = build.steps.iter().map(|step| word(step.outcome, false).len()).max().unwrap_or_default();
    let digits = build.steps.len().checked_ilog10().unwrap_or(0) as usize + 2;
    for step in &build.steps {
        let word = paint(colour, colour_of(step.outcome), &format!("{:width$}", word(step.outcome, false)));
        let number = format!("#{}", step.number);
        let _ = writeln!(out, "{number:>digits$} {word}  {}", one_line(&step.label));
        let said: Vec<String> = why(step).into_iter().chain(spent(step)).collect();
        if !said.is_empty() {
            let _ = writeln!(out, "{}{}", " ".repeat(digits + 1 + width + 2), said.join("; "));
        }
    }
    out
}

/// Why it was reused, or was not.
pub(super) fn why(step: &StepReport) -> Option<String> {
    match step.outcome {
        Outcome::Hit => Some(record::same(step.found).to_owned()),
        Outcome::Ran | Outcome::Failed | Outcome::Unknown => step.reason.as_deref().map(one_line),
        Outcome::Source | Outcome::NotReached => None,
    }
}

/// `took 2.1s`, `8.1s saved`.
fn spent(step: &StepReport) -> Option<String> {
    match step.outcome {
        Outcome::Hit => Some(format!("{} saved", time(step.saved_ms))),
        Outcome::NotReached if step.duration_ms == 0 => None,
        _ => Some(format!("took {}", time(step.duration_ms))),
    }
}

/// A build with its steps.
pub(super) fn json(build: &BuildRecord) -> String {
    format!("{:#}\n", whole(build))
}

pub(super) fn whole(build: &BuildRecord) -> Value {
    let mut out = record::head(build);
    out.insert("steps".into(), build.steps.iter().map(step).collect::<Vec<_>>().into());
    Value::Object(out)
}

/// A step, in the words of `explain-cache --json`.
pub(super) fn step(step: &StepReport) -> Value {
    json!({
        "number": step.number,
        "label": step.label,
        "stage": step.stage,
        "line": step.line,
        "kind": step.kind,
        "outcome": word(step.outcome, false),
        "found": record::found(step),
        "again": step.again,
        "reason": step.reason,
        "durationMs": step.duration_ms,
        "savedMs": step.saved_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::history::testing::*;

    #[test]
    fn steps_with_outcome_reason_and_time() {
        insta::assert_snapshot!(text(&second(), false), @r"
        Build 9f8e7d6c of app, at some time: done in 120ms; 2 of 3 steps ran, 8.1s saved

        #1 source  [app 1/4] FROM busybox
                   took 2.0s
        #2 hit     [app 2/4] COPY . /src
                   all that it looks at is the same; 8.1s saved
        #3 ran     [app 3/4] RUN make all
                   src/a.c changed (read by the step); took 2.0s
        #4 ran     [app 4/4] RUN test
                   src/a.c changed (read by the step); took 2.0s
        ");
        insta::assert_snapshot!(text(&failed(), false), @r#"
        Build 1a99ffff of app (Dockerfile.dev), at some time: failed after 2.3s; 1 of 1 steps ran, 0ms saved
        process "/bin/sh -c make, \"x\"" failed

        #1 failed  [app 1/1] RUN make
                   took 2.0s
        "#);
    }

    #[test]
    fn the_same_as_json() {
        let shown: Value = serde_json::from_str(&json(&second())).unwrap();
        assert_eq!(shown["build"], "9f8e7d6c");
        let steps = shown["steps"].as_array().unwrap();
        assert_eq!((steps.len(), &steps[1]["outcome"], &steps[1]["found"]), (4, &"hit".into(), &"facts".into()));
        assert_eq!(steps[2]["reason"], "src/a.c changed (read by the step)");
        assert_eq!((&steps[2]["durationMs"], &steps[1]["savedMs"]), (&2000.into(), &8100.into()));
    }
}
