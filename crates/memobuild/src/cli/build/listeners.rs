//! Who listens to a build: the display, and whoever the command line and the environment ask for besides.

use std::{path::PathBuf, sync::Arc};

use memobuild_engine::BuildRequest;
use memobuild_observe::{Observer, Several, TraceEvent};

use crate::{
    cli::{Failure, text},
    logging::{self, LogObserver},
    progress::{Progress, ProgressMode, trace_file::TraceFile},
    report::{Destination, Reporter},
    telemetry::{otlp, trace},
};

/// The file of `--trace-file`.
pub(super) struct TraceOutput {
    file: Arc<TraceFile>,
    path: PathBuf,
}

impl TraceOutput {
    /// Makes the file, or empties it.
    pub(super) fn create(path: PathBuf) -> Result<Self, Failure> {
        let file = TraceFile::create(&path);
        let file = file.map_err(|e| Failure::file(format!("cannot write {}", path.display()), &e))?;
        Ok(Self { file: Arc::new(file), path })
    }
}

/// All that listen.
pub(super) struct Listeners {
    pub(super) progress: Arc<Progress>,
    reporter: Option<Arc<Reporter>>,
    trace: Option<TraceOutput>,
    exporter: Option<Arc<otlp::Exporter>>,
    log: Option<Arc<LogObserver>>,
    all: Arc<dyn Observer>,
}

impl Listeners {
    /// They begin to listen. `name`: what the build is called by others; `reports`: whether the server is told of it.
    pub(super) fn start(
        mode: ProgressMode,
        trace_file: Option<TraceOutput>,
        request: &BuildRequest,
        name: &str,
        reports: bool,
    ) -> Self {
        let (settings, wrong) = otlp::read(&|name| std::env::var(name).ok());
        let exporter = settings.and_then(|settings| otlp::Exporter::new(settings, *trace(), name.to_owned()));
        let exporter = exporter.map(Arc::new);
        let log = logging::is_on().then(|| Arc::new(LogObserver::new(name)));
        let span = log.as_ref().map_or_else(tracing::Span::none, |log| log.span().clone());
        let reporter = destination(request).filter(|_| reports).map(|to| {
            // That it can't be told is a matter for the log: results are shared by the same server, and whoever does
            // that warns where it fails.
            let warn = move |message: String| span.in_scope(|| tracing::warn!("{message}"));
            Arc::new(Reporter::start(to, name.to_owned(), warn))
        });
        let progress = Arc::new(Progress::start(mode));
        let mut all: Vec<Arc<dyn Observer>> = Vec::new();
        all.extend(log.clone().map(|log| log as Arc<dyn Observer>));
        all.extend(exporter.clone().map(|exporter| exporter as Arc<dyn Observer>));
        all.extend(trace_file.as_ref().map(|trace| trace.file.clone() as Arc<dyn Observer>));
        all.extend(reporter.clone().map(|reporter| reporter as Arc<dyn Observer>));
        all.push(progress.clone());
        let all: Arc<dyn Observer> = Arc::new(Several(all));
        for message in wrong {
            all.event(TraceEvent::Warning { message });
        }
        Self { progress, reporter, trace: trace_file, exporter, log, all }
    }

    /// Builds with all of them listening.
    pub(super) fn during<T>(&self, build: impl FnOnce(&Arc<dyn Observer>) -> T) -> T {
        match &self.log {
            // What the crates below log belongs to the build too.
            Some(log) => log.span().in_scope(|| build(&self.all)),
            None => build(&self.all),
        }
    }

    /// The build is over: what is left is told. None of it can fail the build.
    pub(super) fn finish(&self) {
        if let Some(reporter) = &self.reporter {
            reporter.finish();
        }
        if let Some(Err(message)) = self.exporter.as_ref().map(|exporter| exporter.finish()) {
            self.all.event(TraceEvent::Warning { message });
        }
        self.progress.finish();
        if let Some(TraceOutput { file, path }) = &self.trace
            && let Err(error) = file.finish()
        {
            text::to_stderr(&format!("warning: {} is not complete: {error}\n", path.display()));
        }
    }
}

/// The server that is told of a build: the one that its results are shared with.
fn destination(request: &BuildRequest) -> Option<Destination> {
    let remote = request.remote.as_ref()?;
    let to = Destination::new(remote.url(), remote.token.as_ref())?;
    Some(Destination { certificates: remote.certificates.clone(), trace: remote.trace, ..to })
}
