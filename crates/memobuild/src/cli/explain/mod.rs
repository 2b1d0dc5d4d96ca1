//! `memobuild explain-cache`: why steps were reused or ran again, and which steps depend on a path.

mod depends;
mod json;
mod pick;
mod show;

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use memobuild_engine::{
    ContextInput,
    explain::{self, Explanation, Origin},
};
use memobuild_observe::{Observer, Silent};
use memobuild_store::Store;

use super::{CliResult, Failure, env, planning::PlanFlags, text, values};

/// Say why the steps of the last build were reused or ran again
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// Steps to explain in full: a number, STAGE/NUMBER as in `[STAGE NUMBER/5]`, or a part of the text
    #[arg(value_name = "STEP")]
    step: Option<String>,

    /// Explain the build that would happen now, of this directory
    #[arg(
        long,
        value_name = "CONTEXT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ".",
        value_parser = values::context_input,
        conflicts_with = "depends"
    )]
    now: Option<ContextInput>,

    /// Say which steps of the last build depend on this path, and how they touched it: in the build context, or in
    /// the image if it begins with /
    #[arg(long = "why-depends", id = "depends", value_name = "PATH", conflicts_with = "step")]
    depends: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten, next_help_heading = "With --now")]
    plan: PlanFlags,
}

const EXAMPLES: &str = "\
Examples:
  Each step of the last build:
    memobuild explain-cache
  All about step 3, the 3rd step of stage `build`, the steps that run npm:
    memobuild explain-cache 3
    memobuild explain-cache build/3
    memobuild explain-cache 'npm run'
  What would run now, and why:
    memobuild explain-cache --now
    memobuild explain-cache --now=app --build-arg VERSION=2
  Which steps depend on a file of the build context, and of the image:
    memobuild explain-cache --why-depends src/index.js
    memobuild explain-cache --why-depends /etc/passwd";

pub(crate) fn run(args: &ExplainArgs) -> CliResult {
    let flags = &args.plan;
    if args.now.is_none()
        && (flags.file.is_some()
            || flags.target.is_some()
            || !(flags.platforms.is_empty() && flags.build_args.is_empty() && flags.build_contexts.is_empty()))
    {
        return Err(Failure::usage("flags of a build go with --now: without it, the last build is explained"));
    }
    let explanation = match &args.now {
        Some(context) => ahead(context, flags)?,
        None => last()?,
    };
    let out = match &args.depends {
        Some(path) => of_path(&explanation, path, args.json)?,
        None => {
            let chosen = match &args.step {
                Some(wanted) => Some(pick::steps(&explanation.build, wanted)?),
                None => None,
            };
            match args.json {
                true => json::explanation(&explanation, chosen.as_deref()),
                false => show::explanation(&explanation, chosen.as_deref(), text::stdout_colour()),
            }
        }
    };
    text::to_stdout(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn last() -> Result<Explanation, Failure> {
    let found = match env::existing_store()? {
        Some(store) => explain::last(&store)?,
        None => None,
    };
    found.ok_or_else(|| {
        Failure::usage("this cache holds no record of a build yet")
            .with_hint("build something first, or ask what would happen now with --now")
    })
}

fn ahead(context: &ContextInput, flags: &PlanFlags) -> Result<Explanation, Failure> {
    let store = Store::open(&env::cache_dir()?)?;
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    Ok(explain::now(&store, &flags.request(context)?, &silent)?)
}

fn of_path(explanation: &Explanation, path: &str, as_json: bool) -> Result<String, Failure> {
    let Some(store) = env::existing_store()? else { return Ok(String::new()) };
    let origin = if path.starts_with('/') { Origin::Image } else { Origin::Context };
    let found = explain::depends(&store, &explanation.build, path.as_bytes(), origin)?;
    Ok(match as_json {
        true => json::dependents(&explanation.build, path, origin, &found),
        false => depends::table(&explanation.build, path, origin, &found),
    })
}
