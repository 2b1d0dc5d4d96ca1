//! `memobuild graph`.

use std::{process::ExitCode, sync::Arc};

use clap::{Args, ValueEnum};
use memobuild_engine::{ContextInput, DockerfileInput, Reach, StepReport, foresee, history::Outcome};
use memobuild_observe::{Observer, Silent};
use memobuild_plan::{
    model::{Op, Plan},
    render::{self, State, StateKind},
};

use super::{
    CliResult, Failure, env,
    planning::{self, Looked, PlanArgs, Scope},
    text,
};

/// Show the steps of a build, what each one needs, and whether it would run
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    plan: PlanArgs,

    /// How the graph is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// Leave out whether steps would run
    #[arg(long)]
    no_state: bool,
}

const EXAMPLES: &str = "\
Examples:
  One line for each step, with why it would run:
    memobuild graph .
  A picture:
    memobuild graph --format svg . >graph.svg
  For a Markdown page, without states:
    memobuild graph --target test --format mermaid --no-state .
  For Graphviz:
    memobuild graph --format dot . | dot -Tpng >graph.png";

/// `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One line for each step
    Text,
    /// A picture
    Svg,
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
    let Looked { planned, unknown } = planning::plan(&file, &args.plan.options()?, &args.plan.context, scope)?;
    let mut known = None;
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        let states = if args.no_state { "" } else { ", nor whether steps would run" };
        note(&format!("{names} is not here: triggers that it sets are not shown{states} (--pull asks for it)"));
    } else if !args.no_state {
        match with_states(args, &planned.plan) {
            Ok(found) => known = Some(found),
            Err(failure) => note(&format!("whether steps would run can't be told: {}", failure.message())),
        }
    }
    let (plan, states) = match &known {
        Some((plan, states)) => (plan, Some(states.as_slice())),
        None => (&planned.plan, None),
    };
    let mut shown = match args.format {
        Format::Text => render::text(plan, states),
        Format::Svg => render::svg(plan, states),
        Format::Dot => render::dot(plan, states),
        Format::Mermaid => render::mermaid(plan, states),
        Format::Json => format!("{:#}", render::json(plan, states)),
    };
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    text::to_stdout(&shown)?;
    Ok(ExitCode::SUCCESS)
}

fn note(what: &str) {
    text::to_stderr(&format!("note: {what}\n"));
}

/// The plan as a build would make it now, and what would become of its steps.
fn with_states(args: &GraphArgs, plan: &Plan) -> Result<(Plan, Vec<State>), Failure> {
    let request = args.plan.flags.request(&args.plan.context)?;
    if request.context == ContextInput::Stdin || request.dockerfile == DockerfileInput::Stdin {
        // It has been read already.
        return Err(Failure::usage("the Dockerfile came on standard input"));
    }
    let Some(store) = env::existing_store()? else {
        let states = plan.steps.iter().map(|step| match step.op {
            Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => {
                State { kind: StateKind::Run, why: Some("the cache is empty".into()) }
            }
            _ => State { kind: StateKind::Source, why: None },
        });
        return Ok((plan.clone(), states.collect()));
    };
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let reach = if args.plan.pull { Reach::Everything } else { Reach::Here };
    let ahead = foresee(&store, &request, &silent, reach)?;
    let states = ahead.record.steps.iter().map(state).collect();
    Ok((ahead.plan, states))
}

fn state(step: &StepReport) -> State {
    let kind = match step.outcome {
        Outcome::Source => StateKind::Source,
        Outcome::Hit => StateKind::Hit,
        Outcome::Ran | Outcome::Failed => StateKind::Run,
        Outcome::Unknown | Outcome::NotReached => StateKind::Unknown,
    };
    State { kind, why: step.reason.clone() }
}
