//! `memobuild-soak`: see the head of the library.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use memobuild_soak::{Options, SoakError, run};

/// Random projects and edits: after each, an incremental build must equal one from nothing. The last line of the output
/// is a summary in JSON. Ends with 1 if there is a difference or nothing was ever reused, with 2 if the test itself
/// could not go on, with 77 if this machine can't run steps.
#[derive(Debug, Parser)]
struct Args {
    /// The program under test.
    #[arg(long, default_value = "target/release/memobuild")]
    memobuild: PathBuf,
    /// Where base images are kept and projects come and go.
    #[arg(long, default_value = "target/soak")]
    work: PathBuf,
    /// Seed of the first project; each further one takes the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Edits in all.
    #[arg(long, default_value_t = 300)]
    edits: usize,
    /// For this long instead.
    #[arg(long)]
    minutes: Option<f64>,
    /// Edits of each project.
    #[arg(long, default_value_t = 25)]
    per_project: usize,
    /// Projects at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Leave the directory of a project with a difference.
    #[arg(long)]
    keep: bool,
    /// Only projects on a busybox base.
    #[arg(long)]
    small_only: bool,
    /// Only name the kinds of facts that a mutation leaves out.
    #[arg(long)]
    facts: bool,
    /// Say how many edits were aimed at each kind of step.
    #[arg(long)]
    aims: bool,
}

fn main() -> ExitCode {
    match soak(&Args::parse()) {
        Ok(code) => code,
        Err(SoakError::NoSandbox(why)) => {
            println!("skipped: {why}");
            ExitCode::from(77)
        }
        Err(error) => {
            eprintln!("memobuild-soak: {error}");
            ExitCode::from(2)
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, SoakError> {
    std::path::absolute(path).map_err(|source| SoakError::Io { path: path.to_owned(), source })
}

fn soak(args: &Args) -> Result<ExitCode, SoakError> {
    if args.facts {
        memobuild_soak::FACTS.iter().for_each(|(kind, _)| println!("{kind}"));
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        memobuild: absolute(&args.memobuild)?,
        work: absolute(&args.work)?,
        seed: args.seed,
        edits: if args.minutes.is_some() { usize::MAX } else { args.edits },
        time: args.minutes.map(|m| Duration::from_secs_f64(m.max(0.0) * 60.0)),
        per_project: args.per_project,
        jobs: args.jobs,
        keep: args.keep,
        small_only: args.small_only,
        drop_fact: std::env::var("MEMOBUILD_TEST_DROP_FACT").ok().filter(|f| !f.is_empty()),
    };
    let summary = run(&options, &|text| eprintln!("{text}"))?;
    if args.aims {
        for (name, count) in &summary.aimed {
            println!("{count:5} {name}");
        }
    }
    println!("{}", summary.json());
    let Some(why) = summary.failure() else { return Ok(ExitCode::SUCCESS) };
    // Differences were told when they were found.
    if summary.differences.is_empty() {
        eprintln!("memobuild-soak: {why}");
    }
    Ok(ExitCode::from(1))
}
