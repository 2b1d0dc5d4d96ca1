//! The conformance cases, as far as planning decides them: config, platform and history of images, and the errors that
//! come before any step runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step should end the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use memobuild_plan::model::{ContextSource, Op, Options};
use memobuild_plan::{Hooks, PlanError, Planned, plan};
use serde_json::{Value, json};
use support::{Images, amd64, render};

/// The goldens keep this much of a history line.
const GOLDEN_TEXT: usize = 200;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/cases")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let object = value.as_object().cloned().unwrap_or_default();
    object.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect()
}

fn options(case: &Value) -> Options {
    let args = &case["args"];
    let mut contexts: BTreeMap<String, ContextSource> = strings(&args["build_contexts"])
        .into_iter()
        .map(|(name, dir)| (name, ContextSource::Local(dir.into())))
        .collect();
    contexts.entry("busybox".into()).or_insert(ContextSource::OciLayout("busybox".into()));
    Options {
        target: args["target"].as_str().map(Into::into),
        platforms: args["platform"].as_str().map(|p| p.parse().unwrap()).into_iter().collect(),
        build_platform: amd64(),
        build_args: strings(&args["build_args"]),
        labels: strings(&args["labels"]),
        contexts,
        ..Options::default()
    }
}

/// The case planned; the text of the error if that fails.
fn run(dir: &Path, case: &Value) -> Result<Planned, String> {
    let name = case["dockerfile"].as_str().map_or_else(|| "Dockerfile".to_owned(), Into::into);
    let path = [dir.join(&name), dir.join("ctx").join(&name)].into_iter().find(|path| path.exists()).unwrap();
    let text = fs::read(&path).unwrap();
    let file = memobuild_dockerfile::parse(&text, "Dockerfile").map_err(|e| e.diagnostic().render(false))?;
    let images = Images::default();
    let made: Result<Planned, PlanError> = plan(&file, &options(case), &images, Hooks::default());
    made.map_err(|e| render(&e))
}

fn names() -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| cases().join(name).join("case.json").is_file());
    names.sort();
    names
}

/// Whether the case's base is made by its make.sh, which only the whole run executes.
fn has_own_base(case: &Value) -> bool {
    strings(&case["args"]["build_contexts"]).values().any(|source| source.starts_with("oci:"))
}

/// Whether the image stands on a directory. The reference has no history of such a layer and repeats an instruction.
fn stands_on_directory(planned: &Planned) -> bool {
    let steps = &planned.plan.steps;
    let mut at = planned.plan.targets[0].root;
    loop {
        at = match &steps[at.0].op {
            Op::Run(run) => run.parent,
            Op::Copy(copy) => copy.parent,
            Op::Mkdir(mkdir) => mkdir.parent,
            op => return matches!(op, Op::Local(_)),
        };
    }
}

#[test]
fn configs_and_history_are_those_of_the_reference() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for name in names() {
        let dir = cases().join(&name);
        let case = read_json(&dir.join("case.json"));
        if case["expect"] == "failure" || has_own_base(&case) {
            continue;
        }
        let planned = match run(&dir, &case) {
            Ok(planned) => planned,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let Ok(golden) = fs::read(dir.join("golden.json")) else {
            continue;
        };
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let Some(want) = golden["config"].as_object() else {
            continue;
        };
        let target = &planned.plan.targets[0];
        let got = serde_json::to_value(&target.config).unwrap();
        let mut config = got["config"].as_object().unwrap().clone();
        config.remove("ArgsEscaped");
        if &config != want {
            wrong.push(format!("{name}: config\n  want {}\n  got  {}", json!(want), json!(config)));
        }
        for key in ["os", "architecture", "variant"] {
            if golden["platform"][key] != got[key] {
                wrong.push(format!("{name}: {key} want {} got {}", golden["platform"][key], got[key]));
            }
        }
        let base = target.base.map(|base| planned.plan.images[base].config.history.clone()).unwrap_or_default();
        let history: Vec<Value> = base
            .iter()
            .map(|entry| entry.created_by.as_str())
            .chain(target.history.iter().map(|entry| entry.created_by.as_str()))
            .map(|text| text.chars().take(GOLDEN_TEXT).collect::<String>().into())
            .collect();
        if golden["history_commands"] != json!(history) && !stands_on_directory(&planned) {
            wrong.push(format!("{name}: history\n  want {}\n  got  {}", golden["history_commands"], json!(history)));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 150, "only {compared} cases were compared");
}

/// Failures that need no step to run, with what the message must say.
#[test]
fn errors_before_any_step_say_what_and_where() {
    for (name, mentions) in [
        ("copy-chmod-bad", &["999", "Dockerfile:2"] as &[&str]),
        ("copy-no-dest", &["COPY", "Dockerfile:2"]),
        ("err-bad-platform", &["wat"]),
        ("err-entrypoint-flag", &["flag", "--x", "Dockerfile:2"]),
        ("err-env-no-args", &["ENV", "Dockerfile:2"]),
        ("err-env-one-arg", &["ENV", "Dockerfile:2"]),
        ("err-from-flag", &["platfrom", "Dockerfile:1"]),
        ("err-label-no-args", &["LABEL", "Dockerfile:2"]),
        ("err-no-from", &["stage"]),
        ("from-bad-stage-name", &["1abc", "Dockerfile:1"]),
        ("from-extra-args", &["FROM", "Dockerfile:1"]),
        ("from-forward-reference", &["two"]),
        ("from-stage-upper-case", &["ONE"]),
        ("from-target-missing", &["nope", "one"]),
        ("from-undefined-stage-copy", &["invalid", "9"]),
        ("meta-expose-bad", &["http", "Dockerfile:2"]),
        ("meta-healthcheck-bad", &["unit", "Dockerfile:2"]),
        ("mount-bad-type", &["cahce", "cache", "Dockerfile:2"]),
        ("mount-no-target", &["target", "Dockerfile:2"]),
        ("onbuild-from-forbidden", &["FROM", "Dockerfile:2"]),
        ("parse-json-non-strings", &["string", "Dockerfile:2"]),
        ("run-security-insecure-denied", &["insecure"]),
        ("vars-env-blank-name", &["ENV", "Dockerfile:2"]),
        ("vars-env-missing-eq", &["Dockerfile:2"]),
        ("vars-replace-unclosed", &["p/one"]),
    ] {
        let dir = cases().join(name);
        let error = run(&dir, &read_json(&dir.join("case.json"))).expect_err(name);
        for mention in mentions {
            assert!(error.contains(mention), "{name}: no {mention:?} in\n{error}");
        }
    }
}
