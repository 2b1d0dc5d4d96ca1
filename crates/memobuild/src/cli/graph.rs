//! `memobuild graph`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use memobuild_plan::render;

use super::{
    CliResult,
    planning::{self, Looked, PlanArgs, Scope},
    text,
};

/// Show the steps of a build and what each one needs, without building
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    plan: PlanArgs,

    /// How the graph is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  One line for each step:
    memobuild graph .
  For a Markdown page:
    memobuild graph --target test --format mermaid .
  A picture:
    memobuild graph --format dot . | dot -Tsvg >graph.svg";

/// `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One line for each step
    Text,
    /// Graphviz
    Dot,
    /// Mermaid, which Markdown viewers draw
    Mermaid,
    /// One JSON object
    Json,
}

pub(crate) fn run(args: &GraphArgs) -> CliResult {
    let file = args.plan.dockerfile()?;
    let scope = Scope { all_stages: false, pull: args.plan.pull };
    let Looked { planned, unknown } = planning::plan(&file, &args.plan.options(), &args.plan.context, scope)?;
    for name in unknown {
        text::to_stderr(&format!(
            "note: {name} is not here: triggers that it sets are not shown (--pull asks for it)\n"
        ));
    }
    let plan = &planned.plan;
    let mut shown = match args.format {
        Format::Text => render::text(plan),
        Format::Dot => render::dot(plan),
        Format::Mermaid => render::mermaid(plan),
        Format::Json => format!("{:#}", render::json(plan)),
    };
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    text::to_stdout(&shown)?;
    Ok(ExitCode::SUCCESS)
}
