//! `memobuild fsck`.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use clap::Args;
use memobuild_observe::FailureKind;
use memobuild_store::fsck::{Finding, Options, Outcome, Progress, Report};
use serde_json::json;

use super::{CliResult, env, text};

/// Check the cache: every record, every file, every byte of it
///
/// Each fault is one line: where, what, what it means, and what to do. Builds may go on meanwhile.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FsckArgs {
    /// Remove what is damaged and what needs it, so that it is made again; a name of an image that has to go is told
    #[arg(long)]
    repair: bool,

    /// Print faults only
    #[arg(short, long)]
    quiet: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  After a power cut, or when a disk has shown errors:
    memobuild fsck
    memobuild fsck --repair

Exit code 0: nothing is wrong, or nothing any more; 4: something is.";

/// How long a check takes before it says how far it has come.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same, and between two lines, where they can't be overwritten.
const RARELY: Duration = Duration::from_secs(15);

pub(crate) fn run(args: &FsckArgs) -> CliResult {
    let (options, progress) = (Options { repair: args.repair, threads: 0 }, Progress::default());
    let report = match env::existing_store()? {
        None => Report::default(),
        Some(store) => thread::scope(|scope| {
            let (done, end) = mpsc::channel::<()>();
            if !args.quiet {
                let progress = &progress;
                scope.spawn(move || show_progress(progress, &end));
            }
            let report = store.fsck(&options, &progress);
            drop(done);
            report
        })?,
    };
    let shown = match (args.json, args.quiet) {
        (true, _) => as_json(&report)?,
        (false, quiet) => as_text(&report, quiet, &env::display_path(&env::cache_dir()?)),
    };
    text::to_stdout(&shown)?;
    Ok(match report.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FailureKind::Cache.exit_code()),
    })
}

/// Says from time to time how far it has come: over and over in one line of a terminal.
fn show_progress(progress: &Progress, end: &Receiver<()>) {
    let terminal = io::stderr().is_terminal() && !text::terminal_is_dumb();
    let mut wait = if terminal { PATIENCE } else { RARELY };
    let mut shown = false;
    while end.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        let line = so_far(progress);
        text::to_stderr(&if terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") });
        wait = if terminal { Duration::from_millis(500) } else { RARELY };
        shown = true;
    }
    if terminal && shown {
        text::to_stderr("\r\x1b[K");
    }
}

fn so_far(progress: &Progress) -> String {
    let suspects = match progress.suspects() {
        0 => String::new(),
        n => format!(", {n} to be looked at again"),
    };
    let (rows, files) = (progress.rows(), progress.files());
    format!("checked {rows} records, {files} files, {}{suspects}", text::bytes(progress.bytes()))
}

/// Names of images as people write them.
fn place(finding: &Finding) -> String {
    match finding.at.strip_prefix("tag image:") {
        Some(name) => format!("image {}", name.trim_start_matches("docker.io/library/")),
        None => finding.at.clone(),
    }
}

fn line(finding: &Finding) -> String {
    let (at, what, kind) = (place(finding), &finding.what, finding.kind);
    match &finding.outcome {
        Outcome::Found => format!("{at}: {what}; {}; {}", kind.meaning(), kind.remedy()),
        Outcome::Repaired(how) => format!("{at}: {what}; {how}"),
        Outcome::Left(why) => format!("{at}: {what}; {}; not repaired: {why}", kind.meaning()),
    }
}

fn as_text(report: &Report, quiet: bool, dir: &str) -> String {
    let mut out: String = report.findings.iter().map(|finding| line(finding) + "\n").collect();
    if quiet {
        return out;
    }
    let (stand, all) = (report.findings.iter().filter(|finding| finding.stands()).count(), report.findings.len());
    let faults = |n: usize| format!("{n} fault{}", if n == 1 { "" } else { "s" });
    let result = match (stand, all - stand) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, repaired) => format!("{} repaired", faults(repaired)),
        (stand, 0) => format!("{} found", faults(stand)),
        (stand, repaired) => format!("{} repaired, {} left", faults(repaired), faults(stand)),
    };
    let (rows, files, bytes) = (report.rows, report.files, text::bytes(report.bytes));
    let _ = writeln!(out, "{result}: {rows} records, {files} files, {bytes} in {dir}");
    out
}

fn as_json(report: &Report) -> Result<String, super::Failure> {
    let finding = |f: &Finding| {
        let (repaired, outcome) = match &f.outcome {
            Outcome::Found => (false, None),
            Outcome::Repaired(how) => (true, Some(how)),
            Outcome::Left(why) => (false, Some(why)),
        };
        json!({
            "kind": f.kind.name(),
            "at": f.at,
            "what": f.what,
            "meaning": f.kind.meaning(),
            "remedy": f.kind.remedy(),
            "repaired": repaired,
            "outcome": outcome,
        })
    };
    let shown = json!({
        "directory": env::cache_dir()?.display().to_string(),
        "clean": report.is_clean(),
        "records": report.rows,
        "files": report.files,
        "bytes": report.bytes,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    Ok(format!("{shown:#}\n"))
}

#[cfg(test)]
mod tests {
    use memobuild_store::fsck::Kind;

    use super::*;

    fn found(kind: Kind, at: &str, what: &str, outcome: Outcome) -> Finding {
        Finding { kind, at: at.into(), what: what.into(), outcome }
    }

    #[test]
    fn each_fault_is_one_line_with_what_it_means_and_what_helps() {
        let findings = vec![
            found(Kind::DamagedBundle, "bundles/ab12", "its tables do not have their checksum", Outcome::Found),
            found(
                Kind::DanglingTag,
                "tag image:docker.io/library/app:1",
                "it refers to bundle ab12, which is not there",
                Outcome::Repaired("removed".into()),
            ),
            found(Kind::Leftover, "tmp/1-2.0", "a process that is gone wrote it", Outcome::Left("no rights".into())),
        ];
        let mut report = Report { findings, rows: 7, files: 2, bytes: 1_250_000 };
        insta::assert_snapshot!(as_text(&report, false, "~/.cache/memobuild"), @r"
        bundles/ab12: its tables do not have their checksum; what it holds is made again; --repair removes it
        image app:1: it refers to bundle ab12, which is not there; removed
        tmp/1-2.0: a process that is gone wrote it; it takes room; not repaired: no rights
        1 fault repaired, 2 faults left: 7 records, 2 files, 1.25MB in ~/.cache/memobuild
        ");
        assert!(!report.is_clean());
        report.findings.retain(|finding| !finding.stands());
        let last = "1 fault repaired: 7 records, 2 files, 1.25MB in ~\n";
        assert!(report.is_clean() && as_text(&report, false, "~").ends_with(last));
        report.findings.clear();
        assert_eq!(as_text(&report, false, "~"), "nothing is wrong: 7 records, 2 files, 1.25MB in ~\n");
        assert_eq!(as_text(&report, true, "~"), "");
    }

    #[test]
    fn every_kind_says_what_it_means_and_what_helps() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| !kind.meaning().is_empty() && !kind.remedy().is_empty()));
    }
}
