//! An explained build as JSON, for other programs. `docs/explain.md` says what the fields mean.

use memobuild_engine::{
    StepReport,
    explain::{Became, Beside, Dependent, Explanation, Origin, Touched},
    history::{BuildRecord, FactChange},
};
use serde_json::{Value, json};

use super::show;
use crate::cli::record;

/// All steps, or those of these numbers.
pub(super) fn explanation(explanation: &Explanation, chosen: Option<&[usize]>) -> String {
    let Explanation { build, ahead, steps } = explanation;
    let wanted = |step: &&StepReport| chosen.is_none_or(|chosen| chosen.contains(&step.number));
    let one = |step: &StepReport| steps.get(step.number - 1).map(|beside| self::step(step, beside, *ahead));
    let mut out = record::head(build);
    out.insert("ahead".into(), (*ahead).into());
    out.insert("steps".into(), build.steps.iter().filter(wanted).filter_map(one).collect::<Vec<_>>().into());
    format!("{:#}\n", Value::Object(out))
}

fn step(step: &StepReport, beside: &Beside, ahead: bool) -> Value {
    let broken = step.broken.iter().map(|fact| {
        json!({
            "path": fact.path,
            "mount": fact.mount,
            "change": match fact.change {
                FactChange::Appeared => "appeared",
                FactChange::Disappeared => "disappeared",
                FactChange::Kind => "kind",
                FactChange::Content => "content",
                FactChange::Meta => "meta",
                FactChange::Listing => "listing",
            },
            "read": fact.read,
        })
    });
    json!({
        "number": step.number,
        "label": step.label,
        "stage": step.stage,
        "line": step.line,
        "kind": step.kind,
        "inputs": step.inputs,
        "outcome": record::word(step.outcome, ahead),
        "found": record::found(step),
        "again": step.again,
        "reason": step.reason,
        "said": show::sentence(step, beside, ahead),
        "broken": broken.collect::<Vec<_>>(),
        "brokenCount": step.broken_count,
        "redefined": step.redefined,
        "copied": changes(&beside.copied),
        "listed": changes(&Some(beside.listed.clone())),
        "withoutEffect": changes(&beside.without_effect),
        "durationMs": step.duration_ms,
        "savedMs": step.saved_ms,
        "created": step.created.map(|secs| memobuild_image::time::rfc3339(secs, 0)),
        "definitionKey": step.definition.map(|k| k.hex()),
        "exactKey": step.exact.map(|k| k.hex()),
        "factsKey": step.seen.map(|s| s.strong.hex()),
        "pathSet": step.seen.map(|s| s.paths.hex()),
        "bundle": step.bundle.map(|b| b.hex()),
        "tree": step.identity.map(|t| t.hex()),
    })
}

fn changes(all: &Option<Vec<(String, Became)>>) -> Value {
    let one = |(path, became): &(String, Became)| {
        let became = match became {
            Became::Changed => "changed",
            Became::New => "new",
            Became::Gone => "gone",
        };
        json!({ "path": path, "became": became })
    };
    all.as_ref().map(|all| all.iter().map(one).collect::<Vec<_>>()).into()
}

/// The steps that depend on a path.
pub(super) fn dependents(build: &BuildRecord, path: &str, origin: Origin, found: &[Dependent]) -> String {
    let touch = |touch: &memobuild_engine::explain::Touch| {
        let (how, target, count) = match &touch.how {
            Touched::CopiedTo(target) => ("copied", Some(target.as_str()), None),
            Touched::Read => ("read", None, None),
            Touched::LookedAt => ("looked at", None, None),
            Touched::LookedFor => ("looked for", None, None),
            Touched::Listed => ("listed", None, None),
            Touched::ListedBeside => ("listed beside", None, None),
            Touched::Below(count) => ("below", None, Some(*count)),
            Touched::Everything => ("everything", None, None),
        };
        json!({ "path": touch.path, "how": how, "to": target, "count": count })
    };
    let one = |dependent: &Dependent| {
        let step = build.step(dependent.step);
        json!({
            "number": dependent.step,
            "label": step.map(|step| step.label.as_str()),
            "line": step.and_then(|step| step.line),
            "touches": dependent.touches.iter().map(touch).collect::<Vec<_>>(),
        })
    };
    let origin = match origin {
        Origin::Context => "context",
        Origin::Image => "image",
    };
    let steps: Vec<Value> = found.iter().map(one).collect();
    format!("{:#}\n", json!({ "build": build.id, "path": path, "in": origin, "steps": steps }))
}
