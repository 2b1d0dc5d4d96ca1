//! `memobuild history`: the builds of this cache, what became of the steps of one, what differs between two, and all of
//! them for other programs.

mod compare;
mod export;
mod list;
mod pair;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use memobuild_engine::history::{self, BuildRecord};

use super::{CliResult, Failure, env, text};

/// Stands for the last build in place of its name.
const LATEST: &str = "latest";

/// List builds, show one, compare two, and hand them to other programs
///
/// The last 100 builds of this cache are known, whatever they were of.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    command: Option<HistoryCommand>,

    #[command(flatten)]
    list: ListArgs,

    /// Print all that is known: short for `history export --format FORMAT`
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["last", "json"])]
    export: Option<Format>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only the last N builds
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// List builds, newest first; what `history` does by itself
    List(ListArgs),
    /// Show what became of each step of a build, why, and how long it took
    Show {
        /// The build: its name in the list, the begin of it, or `latest`
        #[arg(value_name = "BUILD", default_value = LATEST)]
        build: String,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which steps of two builds ended otherwise, for another reason, or took longer
    Compare {
        /// The one
        #[arg(value_name = "BUILD")]
        a: String,

        /// The other
        #[arg(value_name = "OTHER", default_value = LATEST)]
        b: String,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all that is known
    Export {
        /// In which form
        #[arg(long, value_enum, value_name = "FORMAT")]
        format: Format,
    },
}

/// For which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Builds with their steps, newest first
    Json,
    /// A line for each build, newest first
    Csv,
    /// Sums over all builds, in Prometheus's text format
    Prometheus,
}

const EXAMPLES: &str = "\
Examples:
  The last ten builds:
    memobuild history -n 10
  What became of the steps of the last one, and of another by the begin of its name:
    memobuild history show
    memobuild history show 1a2b
  What was otherwise in the last one:
    memobuild history compare 1a2b latest
  For a spreadsheet, and for node_exporter's textfile collector:
    memobuild history export --format csv >builds.csv
    memobuild history --export prometheus >/var/lib/node_exporter/memobuild.prom";

pub(crate) fn run(args: HistoryArgs) -> CliResult {
    let builds = all()?;
    let out = match args.command {
        None => match args.export {
            Some(format) => export::all(&builds, format)?,
            None => list::builds(&builds, &args.list),
        },
        Some(HistoryCommand::List(args)) => list::builds(&builds, &args),
        Some(HistoryCommand::Show { build, json }) => {
            let build = find(&builds, &build)?;
            if json { show::json(build) } else { show::text(build, text::stdout_colour()) }
        }
        Some(HistoryCommand::Compare { a, b, json }) => {
            let (a, b) = (find(&builds, &a)?, find(&builds, &b)?);
            if json { compare::json(a, b) } else { compare::text(a, b) }
        }
        Some(HistoryCommand::Export { format }) => export::all(&builds, format)?,
    };
    text::to_stdout(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// All builds that are known, newest first.
fn all() -> Result<Vec<BuildRecord>, Failure> {
    match env::existing_store()? {
        Some(store) => Ok(history::builds(&store)?.collect()),
        None => Ok(Vec::new()),
    }
}

/// The build of a name, of the begin of one, or the last.
fn find<'a>(builds: &'a [BuildRecord], wanted: &str) -> Result<&'a BuildRecord, Failure> {
    let Some(newest) = builds.first() else {
        return Err(Failure::usage("this cache holds no record of a build yet").with_hint("build something first"));
    };
    if wanted == LATEST {
        return Ok(newest);
    }
    if let Some(exact) = builds.iter().find(|build| build.id == wanted) {
        return Ok(exact);
    }
    let lower = wanted.to_lowercase();
    let begins = |build: &&BuildRecord| !lower.is_empty() && build.id.starts_with(&lower);
    let found: Vec<&BuildRecord> = builds.iter().filter(begins).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::usage(format!("no build {wanted:?} among the {} that are known", builds.len()))
            .with_hint("`memobuild history` lists them")),
        several => {
            let names: Vec<&str> = several.iter().map(|build| build.id.as_str()).collect();
            Err(Failure::usage(format!("{wanted:?} is the begin of {} builds", several.len()))
                .with_hint(format!("it is one of these: {}", names.join(", "))))
        }
    }
}

/// Builds to test with.
#[cfg(test)]
mod testing {
    use memobuild_engine::{
        StepReport,
        history::{BuildRecord, FoundBy, Outcome},
    };

    pub(super) fn step(number: usize, label: &str, outcome: Outcome) -> StepReport {
        let hit = outcome == Outcome::Hit;
        StepReport {
            number,
            label: label.into(),
            stage: "app".into(),
            line: Some(number),
            kind: if outcome == Outcome::Source { "image".into() } else { "run".into() },
            outcome,
            found: hit.then_some(FoundBy::Facts),
            reason: (outcome == Outcome::Ran).then(|| "src/a.c changed (read by the step)".into()),
            again: outcome == Outcome::Ran,
            duration_ms: if hit { 1 } else { 2000 },
            saved_ms: if hit { 8100 } else { 0 },
            fields: vec![("the command".into(), label.split_once("] ").unwrap_or_default().1.into())],
            ..StepReport::default()
        }
    }

    /// One that is older than anybody, so that it is always as long ago.
    pub(super) fn build(id: &str, steps: Vec<StepReport>) -> BuildRecord {
        BuildRecord {
            id: id.into(),
            time: -1,
            context: "app".into(),
            targets: vec!["app".into()],
            ok: true,
            duration_ms: 2345,
            steps,
            ..BuildRecord::default()
        }
    }

    pub(super) fn first() -> BuildRecord {
        build(
            "1a2b3c4d",
            vec![
                step(1, "[app 1/3] FROM busybox", Outcome::Source),
                step(2, "[app 2/3] COPY . /src", Outcome::Ran),
                step(3, "[app 3/3] RUN make\n  all", Outcome::Ran),
            ],
        )
    }

    pub(super) fn second() -> BuildRecord {
        BuildRecord {
            duration_ms: 120,
            ..build(
                "9f8e7d6c",
                vec![
                    step(1, "[app 1/4] FROM busybox", Outcome::Source),
                    step(2, "[app 2/4] COPY . /src", Outcome::Hit),
                    step(3, "[app 3/4] RUN make\n  all", Outcome::Ran),
                    step(4, "[app 4/4] RUN test", Outcome::Ran),
                ],
            )
        }
    }

    pub(super) fn failed() -> BuildRecord {
        BuildRecord {
            ok: false,
            error: Some("process \"/bin/sh -c make, \\\"x\\\"\" failed\nmore".into()),
            dockerfile: Some("Dockerfile.dev".into()),
            ..build("1a99ffff", vec![step(1, "[app 1/1] RUN make", Outcome::Failed)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn builds_are_found_by_name_by_the_begin_of_it_and_as_the_last() {
        let all = [second(), failed(), first()];
        let found = |wanted: &str| find(&all, wanted).unwrap().id.as_str();
        assert_eq!((found("latest"), found("9"), found("1a2b")), ("9f8e7d6c", "9f8e7d6c", "1a2b3c4d"));
        assert_eq!((found("1a99ffff"), found("1A99")), ("1a99ffff", "1a99ffff"));
        let said = |wanted: &str| find(&all, wanted).unwrap_err().render(false);
        insta::assert_snapshot!(said("1a"), @r#"
        error: "1a" is the begin of 2 builds
        hint: it is one of these: 1a99ffff, 1a2b3c4d
        "#);
        insta::assert_snapshot!(said("7"), @r#"
        error: no build "7" among the 3 that are known
        hint: `memobuild history` lists them
        "#);
        assert!(find(&all, "").is_err());
        assert!(find(&[], "latest").unwrap_err().render(false).contains("no record"));
    }

    #[test]
    fn a_whole_name_goes_before_the_begin_of_others() {
        let all = [build("ab", Vec::new()), build("abc", Vec::new())];
        assert_eq!(find(&all, "ab").unwrap().id, "ab");
    }
}
