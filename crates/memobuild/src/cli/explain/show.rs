//! An explained build as text.

use std::fmt::Write as _;

use memobuild_engine::{
    StepReport,
    explain::{Became, Beside, Explanation},
    history::{BuildRecord, Outcome},
};

use crate::cli::{
    record::{self, Sums, colour_of, one_line, same, since, time, word},
    text::{self, paint},
};

/// Paths that a sentence names; of more it says how many.
const NAMED: usize = 3;
/// Lines of a list in full.
const LISTED: usize = 200;
/// Characters of an instruction that a sentence repeats.
const LONGEST: usize = 60;

/// All steps, or in full those of these numbers.
pub(super) fn explanation(explanation: &Explanation, chosen: Option<&[usize]>, colour: bool) -> String {
    let build = &explanation.build;
    let mut out = if explanation.ahead { ahead(build) } else { record::headline(build) };
    out.push('\n');
    let words: Vec<&str> = build.steps.iter().map(|step| word(step.outcome, explanation.ahead)).collect();
    let width = words.iter().map(|word| word.len()).max().unwrap_or_default();
    let digits = build.steps.len().checked_ilog10().unwrap_or(0) as usize + 2;
    let indent = " ".repeat(digits + 1 + width + 2);
    for ((step, beside), word) in build.steps.iter().zip(&explanation.steps).zip(words) {
        if chosen.is_some_and(|chosen| !chosen.contains(&step.number)) {
            continue;
        }
        let word = paint(colour, colour_of(step.outcome), &format!("{word:width$}"));
        let label = one_line(&step.label);
        let _ = writeln!(out, "{:>digits$} {word}  {label}", format!("#{}", step.number));
        if let Some(said) = sentence(step, beside, explanation.ahead) {
            let _ = writeln!(out, "{indent}{said}");
        }
        if chosen.is_some() {
            for line in in_full(step, beside) {
                let _ = writeln!(out, "{indent}{line}");
            }
        }
    }
    out
}

/// Of a build that would happen now.
fn ahead(build: &BuildRecord) -> String {
    let Sums { steps, run, unknown, saved_ms, .. } = Sums::of(build);
    let untold = match unknown {
        0 => String::new(),
        unknown => format!(" ({unknown} more may)"),
    };
    let (of, run, saved) = (record::context(build), run - unknown, time(saved_ms));
    format!("A build of {of} now: {run} of {steps} steps would run{untold}, {saved} would be saved\n")
}

/// What became of a step and why, as a person says it.
pub(super) fn sentence(step: &StepReport, beside: &Beside, ahead: bool) -> Option<String> {
    match step.outcome {
        Outcome::Hit => Some(format!("{}; {}", same(step.found), result(step))),
        Outcome::Ran | Outcome::Failed => {
            let instruction = shortened(&one_line(step.instruction()));
            let verb = match (ahead, step.again) {
                (true, true) => "would run again",
                (true, false) => "would run",
                (false, true) => "ran again",
                (false, false) => "ran",
            };
            Some(format!("{instruction} {verb}: {}{}", reason(step, beside), no_effect(beside)))
        }
        Outcome::Unknown => step.reason.clone(),
        Outcome::Source | Outcome::NotReached => None,
    }
}

/// `result 1a2b3c4d, made 2 hours ago, 8.1s saved`.
fn result(step: &StepReport) -> String {
    let key = step.seen.map(|seen| seen.strong).or(step.exact);
    let key = key.map(|key| short(&key.hex())).unwrap_or_default();
    let made = step.created.map(|secs| format!(", made {}", since(secs))).unwrap_or_default();
    format!("result {key}{made}, {} saved", time(step.saved_ms))
}

fn reason(step: &StepReport, beside: &Beside) -> String {
    let changed = beside.copied.as_ref().filter(|changed| !changed.is_empty());
    match changed {
        Some(changed) => named(changed),
        None => {
            let mut reason = step.reason.clone().unwrap_or_default();
            if !beside.listed.is_empty() {
                reason.push_str(&format!(": {}", named(&beside.listed)));
            }
            reason
        }
    }
}

/// `a is new, b is gone and 3 more`.
fn named(changes: &[(String, Became)]) -> String {
    let named: Vec<String> = changes.iter().take(NAMED).map(|(path, became)| became_text(path, *became)).collect();
    some_of(&named, changes.len())
}

/// `; 3 other changes had no effect: README.md, docs/a.md, .env.example`.
fn no_effect(beside: &Beside) -> String {
    let Some(others) = beside.without_effect.as_ref().filter(|others| !others.is_empty()) else { return String::new() };
    let named: Vec<String> = others.iter().take(NAMED).map(|(path, _)| path.clone()).collect();
    let noun = if others.len() == 1 { "change" } else { "changes" };
    format!("; {} other {noun} had no effect: {}", others.len(), some_of(&named, others.len()))
}

fn some_of(named: &[String], count: usize) -> String {
    match count - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn became_text(path: &str, became: Became) -> String {
    match became {
        Became::Changed => format!("{path} changed"),
        Became::New => format!("{path} is new"),
        Became::Gone => format!("{path} is gone"),
    }
}

/// Everything that is known, in lists.
fn in_full(step: &StepReport, beside: &Beside) -> Vec<String> {
    let mut out = Vec::new();
    let mut list = |title: &str, items: Vec<String>, count: usize| {
        if items.is_empty() {
            return;
        }
        out.push(format!("{title}:"));
        let shown = items.len().min(LISTED);
        out.extend(items.into_iter().take(LISTED).map(|item| format!("  {item}")));
        if count > shown {
            out.push(format!("  and {} more", count - shown));
        }
    };
    let facts = step.broken.iter().map(|fact| fact.text.clone()).collect();
    list("facts that no longer held", facts, step.broken_count);
    list("changes of its definition", step.redefined.clone(), step.redefined.len());
    let changes = |all: &Option<Vec<(String, Became)>>| -> Vec<String> {
        all.iter().flatten().map(|(path, became)| became_text(path, *became)).collect()
    };
    let copied = changes(&beside.copied);
    list("files that it copies", copied.clone(), copied.len());
    let names = changes(&Some(beside.listed.clone()));
    list("names in directories that it lists", names.clone(), names.len());
    let without = changes(&beside.without_effect);
    list("changes without effect", without.clone(), without.len());
    if let Some(line) = step.line {
        out.push(format!("line {line} of the Dockerfile, stage {}", step.stage));
    }
    if !matches!(step.outcome, Outcome::Source | Outcome::NotReached) {
        out.push(format!("took {}", time(step.duration_ms)));
    }
    let mut key = |name: &str, hex: Option<String>| out.extend(hex.map(|hex| format!("{name} {hex}")));
    key("definition key", step.definition.map(|k| k.hex()));
    key("exact key", step.exact.map(|k| k.hex()));
    key("facts", step.seen.map(|s| s.paths.hex()));
    key("key by facts", step.seen.map(|s| s.strong.hex()));
    key("change", step.bundle.map(|b| b.hex()));
    key("tree", step.identity.map(|t| t.hex()));
    out
}

/// The first digits of a digest.
fn short(hex: &str) -> String {
    hex.chars().take(8).collect()
}

fn shortened(instruction: &str) -> String {
    text::cut(instruction, LONGEST)
}
