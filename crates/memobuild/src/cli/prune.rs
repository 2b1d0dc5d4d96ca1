//! `memobuild prune`.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use memobuild_store::{GcOptions, GcReport};

use super::{CliResult, Failure, env, text, values};

/// Remove results from the cache, least recently used first
///
/// Without options only what nothing refers to any more goes. Images that have a name, and what a running build uses,
/// always stay.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all results
    #[arg(short, long)]
    all: bool,

    /// Remove results until the cache takes at most this many bytes, like 20g
    #[arg(long, value_name = "BYTES", value_parser = values::size, conflicts_with = "all")]
    max_size: Option<u64>,

    /// Remove only what was not used for this long, like 7d
    #[arg(long, value_name = "TIME", value_parser = values::age)]
    older_than: Option<Duration>,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &PruneArgs) -> CliResult {
    let Some(store) = env::existing_store()? else {
        text::to_stdout("the cache is empty\n")?;
        return Ok(ExitCode::SUCCESS);
    };
    let options =
        GcOptions { max_bytes: args.max_size, keep_duration: args.older_than, all: args.all, dry_run: args.dry_run };
    if !args.force && !args.dry_run && (args.all || args.max_size.is_some() || args.older_than.is_some()) {
        let would = store.gc(&GcOptions { dry_run: true, ..options.clone() })?;
        if would.freed_bytes > 0 && !confirmed(would.freed_bytes)? {
            text::to_stderr("nothing was removed\n");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let report = store.gc(&options)?;
    text::to_stdout(&summary(&report, args.dry_run))?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(bytes: u64) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("prune asks before it removes, and there is no terminal to ask on")
            .with_hint("give --force to remove without asking, or --dry-run to see what would go"));
    }
    text::to_stderr(&format!("Remove {} of results? [y/N] ", text::bytes(bytes)));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::file("cannot read the answer", &e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn summary(report: &GcReport, dry_run: bool) -> String {
    let parts = [
        (report.records, "result"),
        (report.bundles, "bundle"),
        (report.blobs, "blob"),
        (report.oci_blobs, "image blob"),
        (report.mounts, "cache mount"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" }))
        .collect();
    let what = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let verb = if dry_run { "would free" } else { "freed" };
    format!("{verb} {}{what}, {} left\n", text::bytes(report.freed_bytes), text::bytes(report.left_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_went() {
        let mut report = GcReport { freed_bytes: 1_250_000, left_bytes: 7, ..GcReport::default() };
        assert_eq!(summary(&report, true), "would free 1.25MB, 7B left\n");
        report.records = 1;
        report.bundles = 12;
        assert_eq!(summary(&report, false), "freed 1.25MB (1 result, 12 bundles), 7B left\n");
    }
}
