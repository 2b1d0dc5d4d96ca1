//! `memobuild build`: arguments to a request, the engine's events to the progress display, the outcome to files.

mod args;
mod listeners;
mod report;
pub(crate) mod request;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
};

use memobuild_engine::{BuildRequest, Cancel, ContextInput, Destination, EngineError};
use memobuild_observe::{Observer, Silent};
use memobuild_store::Store;

use self::listeners::{Listeners, TraceOutput};
use super::{CliResult, Failure, check, env, failure::FailedStep, load, signals};
use crate::progress::{Progress, ProgressMode};

pub(crate) use args::{BuildArgs, Call};
pub(crate) use request::{dockerfile, options};

pub(crate) fn run(args: BuildArgs) -> CliResult {
    match if args.check { Call::Check } else { args.call } {
        Call::Build => {}
        Call::Check => return check::check_for_build(&args),
        Call::Outline => return check::outline(&args),
        Call::Targets => return check::targets(&args),
    }
    let mode = if args.quiet { ProgressMode::Quiet } else { args.progress };
    let (iidfile, metadata_file, dry_run) = (args.iidfile.clone(), args.metadata_file.clone(), args.dry_run);
    let trace = args.trace_file.clone().map(TraceOutput::create).transpose()?;
    let loads = request::loads(&args);
    let reports = !args.no_report;
    let request = request::from_args(args)?;
    refuse_terminal(&request, io::stdout().is_terminal())?;
    let store = Store::open(&env::cache_dir()?)?;
    let _leaving = env::Leaving(&store);
    if dry_run {
        let silent: Arc<dyn Observer> = Arc::new(Silent);
        let outcome = memobuild_engine::dry_run(&store, &request, &silent)?;
        super::text::to_stdout(&report::dry_run(&outcome))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before the work, not after it, is the time to hear that there is nobody to give the image to.
    let runtime = if loads { Some(load::runtime(None, None)?) } else { None };
    // What has no name yet must stay until it is loaded.
    let _lease = store.lease()?;

    let cancel = Cancel::default();
    let interrupt = signals::cancel_on_signal(&cancel);
    let listeners = Listeners::start(mode, trace, &request, &name(&request), reports);
    let result = listeners.during(|observer| memobuild_engine::build(&store, &request, observer, &cancel));
    listeners.finish();
    match (result, interrupt.signal()) {
        (Ok(outcome), _) => {
            report::write_files(&outcome, iidfile.as_deref(), metadata_file.as_deref())?;
            if let (Some(runtime), Some(kept)) = (&runtime, &outcome.kept) {
                let line = load::built(&store, runtime, kept, mode)?;
                if !matches!(mode, ProgressMode::Quiet | ProgressMode::Rawjson) {
                    super::text::to_stderr(&line);
                }
            }
            let stdout_is_taken = request.outputs.iter().any(|o| o.dest == Some(Destination::Stdout));
            if mode == ProgressMode::Quiet && !stdout_is_taken {
                super::text::to_stdout(&report::image_id(&outcome))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        (Err(_), Some(signal)) => Err(Failure::interrupted(signal)),
        (Err(error), None) => Err(step_failure(error, &listeners.progress)),
    }
}

/// What a build is called by others: its first name, else where its context comes from. A URL may hold a password: of it
/// the end of its path is told.
pub(crate) fn name(request: &BuildRequest) -> String {
    let last = |path: &str| path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default().to_owned();
    match (request.tags.first(), &request.context) {
        (Some(tag), _) => tag.clone(),
        (None, ContextInput::Directory(dir)) => {
            let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
            dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
        (None, ContextInput::Stdin) => "standard input".into(),
        (None, ContextInput::Url(url)) => last(url.split(['?', '#']).next().unwrap_or_default()),
    }
}

/// The engine's error with what the progress display knows of the failed step.
fn step_failure(error: EngineError, progress: &Progress) -> Failure {
    let step = error
        .step
        .and_then(|id| progress.label(id))
        .map(|label| FailedStep { label, log_tail: error.log_tail.clone() });
    let full = error.hint.is_none() && error.log_tail.iter().any(|line| line.contains(NO_SPACE));
    let failure = Failure::from(error).with_step(step);
    if full { failure.with_hint(FULL_DISK) } else { failure }
}

/// What programs say when a disk is full: a step writes to the cache's.
const NO_SPACE: &str = "No space left on device";
const FULL_DISK: &str = "what steps write lies on the disk of the cache: free some space with `memobuild prune`, or set \
                         MEMOBUILD_CACHE_DIR to another disk";

/// A terminal can't show an archive, and at most one archive fits into standard output.
fn refuse_terminal(request: &BuildRequest, is_terminal: bool) -> Result<(), Failure> {
    match request.outputs.iter().filter(|o| o.dest == Some(Destination::Stdout)).count() {
        0 => Ok(()),
        1 if is_terminal => Err(Failure::usage("the image would be written to the terminal")
            .with_hint("give --output a dest=FILE, or send standard output to a file or a pipe")),
        1 => Ok(()),
        _ => Err(Failure::usage("two outputs go to standard output: give one of them a dest=FILE")),
    }
}
