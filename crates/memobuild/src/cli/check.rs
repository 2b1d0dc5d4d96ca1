//! `memobuild check`, and what `build --call=` shows instead of building.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, ValueEnum};
use memobuild_dockerfile::{Dockerfile, ast::Kind, lint::Finding};
use memobuild_engine::ContextInput;
use memobuild_observe::FailureKind;
use memobuild_plan::model::Options;
use serde_json::{Value, json};

use super::{
    CliResult, Failure,
    build::{self, BuildArgs},
    planning::{self, Looked, PlanArgs, Scope},
    source, text,
};

/// Check a Dockerfile for mistakes, without building
///
/// Exits with 3 if there are findings. The rules are BuildKit's, under the same names; `# check=skip=NAME` at the top
/// of the Dockerfile switches one off.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    plan: PlanArgs,

    /// How findings are printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// With the place in the Dockerfile
    Text,
    /// One JSON object
    Json,
}

pub(crate) fn run(args: &CheckArgs) -> CliResult {
    check(&args.plan.dockerfile()?, &args.plan.options()?, &args.plan.context, args.plan.pull, args.format)
}

/// `build --check`.
pub(crate) fn check_for_build(args: &BuildArgs) -> CliResult {
    check(&dockerfile_of(args)?, &build::options(args)?, &args.context, args.pull, Format::Text)
}

fn dockerfile_of(args: &BuildArgs) -> Result<Dockerfile, Failure> {
    source::read(&args.context, &build::dockerfile(args)?)
}

fn check(dockerfile: &Dockerfile, options: &Options, context: &ContextInput, pull: bool, format: Format) -> CliResult {
    let scope = Scope { all_stages: true, pull };
    let Looked { planned, unknown } = planning::plan(dockerfile, options, context, scope)?;
    for name in unknown {
        text::to_stderr(&format!(
            "note: {name} is not here: variables and triggers that it sets are not known (--pull asks for it)\n"
        ));
    }
    let findings = planned.findings;
    let shown = match format {
        Format::Text => as_text(dockerfile, &findings),
        Format::Json => format!("{:#}\n", as_json(dockerfile, &findings)),
    };
    text::to_stdout(&shown)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FailureKind::Dockerfile.exit_code()) })
}

fn as_text(dockerfile: &Dockerfile, findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let _ = writeln!(out, "{}\n", finding.diagnostic(&dockerfile.source).render(text::stdout_colour()));
    }
    let sum = match findings.len() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    };
    let _ = writeln!(out, "{}: {sum}", dockerfile.source.name());
    out
}

/// The keys that `docker build --call=check,format=json` writes.
fn as_json(dockerfile: &Dockerfile, findings: &[Finding]) -> Value {
    let warning = |finding: &Finding| {
        let mut out = json!({
            "ruleName": finding.rule.name(),
            "description": finding.rule.description(),
            "detail": finding.message,
            "location": { "ranges": [{
                "start": { "line": finding.span.first_line() },
                "end": { "line": finding.span.last_line() },
            }] },
        });
        if let (Some(url), Some(object)) = (finding.rule.url(), out.as_object_mut()) {
            object.insert("url".into(), url.into());
        }
        out
    };
    json!({
        "file": dockerfile.source.name(),
        "warnings": findings.iter().map(warning).collect::<Vec<_>>(),
    })
}

/// `build --call=targets`.
pub(crate) fn targets(args: &BuildArgs) -> CliResult {
    let dockerfile = dockerfile_of(args)?;
    let last = dockerfile.stages.len().saturating_sub(1);
    let mut rows = vec![["TARGET", "BASE", "DESCRIPTION"].map(str::to_owned)];
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let name = stage.name_as_written.clone().unwrap_or_else(|| index.to_string());
        let mark = if index == last { " (default)" } else { "" };
        rows.push([format!("{name}{mark}"), stage.base.to_string(), stage.doc.clone().unwrap_or_default()]);
    }
    text::to_stdout(&text::table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

/// `build --call=outline`: what the target, and the stages that it is built from, can be given.
pub(crate) fn outline(args: &BuildArgs) -> CliResult {
    let dockerfile = dockerfile_of(args)?;
    let target = target(&dockerfile, args.plan.target.as_deref())?;
    let mut rows = vec![["KIND", "NAME", "VALUE", "DESCRIPTION"].map(str::to_owned)];
    let declared = dockerfile.meta_args.iter().flat_map(|meta| &meta.arg.args);
    let mut seen = std::collections::BTreeSet::new();
    let stages = needed(&dockerfile, target);
    let instructions = || stages.iter().filter_map(|i| dockerfile.stages.get(*i)).flat_map(|s| &s.instructions);
    let in_stages = instructions().filter_map(|i| match &i.kind {
        Kind::Arg(arg) => Some(&arg.args),
        _ => None,
    });
    for arg in declared.chain(in_stages.flatten()) {
        if seen.insert(("ARG", arg.key.to_string())) {
            let given =
                args.plan.build_args.iter().rev().find(|(name, _)| *name == *arg.key).and_then(|(_, v)| v.clone());
            let value = given.or_else(|| arg.value.as_ref().map(ToString::to_string)).unwrap_or_default();
            rows.push(["ARG".into(), arg.key.to_string(), value, arg.doc.clone().unwrap_or_default()]);
        }
    }
    for instruction in instructions() {
        let Kind::Run(run) = &instruction.kind else { continue };
        for mount in run.mounts.iter().filter_map(|m| m.resolve(&mut |text| Ok(text.to_owned())).ok()) {
            let (kind, name) = match mount {
                memobuild_dockerfile::ast::Mount::Secret(secret) => {
                    let of_target = secret.target.as_deref().and_then(|t| t.rsplit('/').next()).map(str::to_owned);
                    ("SECRET", secret.id.or(of_target).unwrap_or_default())
                }
                memobuild_dockerfile::ast::Mount::Ssh(ssh) => ("SSH", ssh.id.unwrap_or_else(|| "default".into())),
                memobuild_dockerfile::ast::Mount::Cache(cache) => ("CACHE", cache.id.unwrap_or(cache.target)),
                _ => continue,
            };
            if seen.insert((kind, name.clone())) {
                rows.push([kind.into(), name, String::new(), String::new()]);
            }
        }
    }
    let stage = dockerfile.stages.get(target);
    let name = stage.and_then(|s| s.name_as_written.clone()).unwrap_or_else(|| target.to_string());
    let doc = stage.and_then(|s| s.doc.clone()).map(|d| format!("  {d}")).unwrap_or_default();
    text::to_stdout(&format!("target {name}{doc}\n\n{}", text::table(&rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// The place of the stage of that name or number; without one, the last.
fn target(dockerfile: &Dockerfile, wanted: Option<&str>) -> Result<usize, Failure> {
    let last = dockerfile.stages.len().saturating_sub(1);
    let Some(wanted) = wanted else { return Ok(last) };
    stage_named(dockerfile, wanted).or_else(|| wanted.parse().ok().filter(|n| *n <= last)).ok_or_else(|| {
        let names = dockerfile.stages.iter().filter_map(|s| s.name.as_ref().map(|n| n.as_str()));
        let failure =
            Failure::new(FailureKind::Dockerfile, format!("no stage {wanted} in {}", dockerfile.source.name()));
        match memobuild_dockerfile::diagnostic::nearest(wanted, names, true) {
            Some(near) => failure.with_hint(format!("did you mean {near}?")),
            None => failure.with_hint("`memobuild build --call=targets` lists the stages"),
        }
    })
}

fn stage_named(dockerfile: &Dockerfile, name: &str) -> Option<usize> {
    dockerfile.stages.iter().rposition(|s| s.name.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
}

/// The stages that a stage is built from, itself included, in file order.
fn needed(dockerfile: &Dockerfile, target: usize) -> std::collections::BTreeSet<usize> {
    let mut seen = std::collections::BTreeSet::new();
    let mut todo = vec![target];
    while let Some(index) = todo.pop() {
        let Some(stage) = dockerfile.stages.get(index) else { continue };
        if !seen.insert(index) {
            continue;
        }
        let mut refer = |name: &str| {
            let by_number = name.parse().ok().filter(|n| *n < index);
            todo.extend(stage_named(dockerfile, name).filter(|n| *n < index).or(by_number));
        };
        refer(&stage.base);
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Copy(copy) => copy.from.iter().for_each(|from| refer(from)),
                Kind::Run(run) => run.mounts.iter().filter_map(|m| m.from()).for_each(&mut refer),
                _ => {}
            }
        }
    }
    seen
}
