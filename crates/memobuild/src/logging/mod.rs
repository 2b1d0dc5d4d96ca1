//! Logs: where lines go and in which form, and what of a build becomes one.
//!
//! [`init_logging`] sets lines up for the whole process. A [`LogObserver`] makes them of a build's events; memobuild's
//! own command line attaches one to each build when logs are on. The macros are those that it uses, with fixed levels
//! and names of fields.

mod observer;

use std::{
    env, io,
    sync::{Arc, Mutex, PoisonError},
};

use memobuild_observe::{MemoBuildError, Observer, Several};
pub use memobuild_observe::{
    log_build_complete, log_build_fail, log_build_start, log_build_warning, log_cache_hit, log_cache_miss,
    log_cas_verify_fail, log_export_done, log_layer_built, log_sandbox_chosen, log_step_done, log_step_fail,
    log_step_start, log_transfer_done,
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::observer::LogObserver;
use crate::{cli::stderr_colour, error::Result};

/// Which lines are written, as directives of `tracing`.
const FILTER: &str = "RUST_LOG";
/// Whether lines are JSON.
const JSON: &str = "MEMOBUILD_JSON_LOGS";
/// What is written where nobody says.
const USUAL: &str = "warn,memobuild=info";

/// Has the process's log written to standard error: the lines that `RUST_LOG` asks for, or else those of builds and
/// what is wrong. For people, in colours on a terminal; with `json_output`, or `MEMOBUILD_JSON_LOGS=1` (or `true`), one
/// JSON object a line. The first call decides; later ones change nothing.
///
/// # Errors
/// If something else than this function has set up where the process's log goes.
pub fn init_logging(json_output: bool) -> Result<()> {
    static SET_UP: Mutex<bool> = Mutex::new(false);
    let mut set_up = SET_UP.lock().unwrap_or_else(PoisonError::into_inner);
    if *set_up {
        return Ok(());
    }
    let filter = filter(env::var(FILTER).ok().as_deref());
    let made = subscriber(filter, json_output || wants_json(), stderr_colour(), io::stderr).try_init();
    made.map_err(|_| MemoBuildError::UsageError { message: "the log goes somewhere else already".into() })?;
    *set_up = true;
    Ok(())
}

/// Sets the log up if the environment asks for one. Without it nothing is set up, which costs nothing.
pub(crate) fn init_if_asked() -> Result<()> {
    let filtered = env::var_os(FILTER).is_some_and(|value| !value.is_empty());
    if filtered || wants_json() { init_logging(false) } else { Ok(()) }
}

/// Whether anybody takes log lines.
pub(crate) fn is_on() -> bool {
    tracing::dispatcher::has_been_set()
}

/// The observer, and one that logs if logs are on. `name`: what is built.
pub(crate) fn beside(observer: Arc<dyn Observer>, name: &str) -> Arc<dyn Observer> {
    if !is_on() {
        return observer;
    }
    let log: Arc<dyn Observer> = Arc::new(LogObserver::new(name));
    Arc::new(Several(vec![log, observer]))
}

fn wants_json() -> bool {
    env::var(JSON).is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

/// Directives name targets by how they begin, so `memobuild` names those of all crates and of all builds.
fn filter(directives: Option<&str>) -> EnvFilter {
    EnvFilter::builder().parse_lossy(directives.filter(|text| !text.trim().is_empty()).unwrap_or(USUAL))
}

/// Whether a line may be written at all: the HTTP client's finest are the bytes of requests, tokens among them.
fn may_be_seen(line: &Metadata<'_>) -> bool {
    *line.level() < Level::TRACE || !line.target().starts_with("ureq")
}

fn subscriber<W>(filter: EnvFilter, json: bool, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(colour).boxed() };
    tracing_subscriber::registry().with(filter).with(filter_fn(may_be_seen)).with(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of what `work` logs.
    pub(super) fn written(directives: Option<&str>, json: bool, work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(filter(directives), json, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    fn all_crates() {
        tracing::debug!(target: "memobuild", "of the program");
        tracing::debug!(target: "memobuild_engine::build", "of the engine");
        tracing::debug!(target: "memobuild_cache::remote::tier", "of the cache");
        tracing::debug!(target: "other", "of another program");
        log_cache_hit!(1_usize, "abc");
    }

    #[test]
    fn one_directive_covers_all_crates() {
        let log = written(Some("memobuild=debug"), false, all_crates);
        for line in ["of the program", "of the engine", "of the cache", "cache hit step=1 key=abc"] {
            assert!(log.contains(line), "{line}: {log}");
        }
        assert!(!log.contains("of another program"), "{log}");
        assert_eq!(written(Some("memobuild=info"), false, all_crates), "");
        assert_eq!(written(Some("memobuild_engine=debug"), false, all_crates).lines().count(), 1);
    }

    #[test]
    fn without_a_directive_builds_are_told_and_what_is_wrong() {
        let work = || {
            all_crates();
            tracing::warn!(target: "other", "is wrong");
            tracing::info!(target: "other", "is of no interest");
            log_step_done!(1_usize, "RUN x", "executed", 5_u64);
        };
        for usual in [None, Some(""), Some(" ")] {
            let log = written(usual, false, work);
            assert_eq!(log.lines().count(), 2, "{log}");
            assert!(log.contains("is wrong") && log.contains("step done"), "{log}");
        }
    }

    #[test]
    fn json_is_one_object_a_line_with_fixed_names() {
        let log = written(Some("memobuild=debug"), true, || {
            log_cas_verify_fail!("abc", "def", 7_u64);
            log_step_fail!(3_usize, "RUN a\nb", "exit \"1\"", 9_u64);
        });
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, second] = lines.as_slice() else { panic!("{log}") };
        let expected = serde_json::json!({
            "message": "digest mismatch", "expected": "abc", "actual": "def", "size": 7,
        });
        assert_eq!((&first["level"], &first["fields"]), (&"WARN".into(), &expected));
        assert_eq!((&second["level"], &second["target"]), (&"ERROR".into(), &"memobuild::step".into()));
        assert_eq!(second["fields"]["label"], "RUN a\nb");
    }

    #[test]
    fn a_text_of_several_lines_is_one_line_for_people() {
        let log = written(Some("info"), false, || log_step_done!(1_usize, "RUN a\nERROR b", "cached", 0_u64));
        assert_eq!(log.lines().count(), 1, "{log}");
    }

    #[test]
    fn bytes_of_requests_are_never_seen() {
        let work = || {
            tracing::trace!(target: "ureq_proto::util", "4175 7468 Authorization: Bearer");
            tracing::debug!(target: "ureq::run", "POST");
            tracing::trace!(target: "memobuild_cache", "fine");
        };
        for directives in ["trace", "ureq_proto=trace,ureq=trace,memobuild=trace", "ureq_proto::util=trace,trace"] {
            let log = written(Some(directives), false, work);
            assert!(log.contains("POST") && log.contains("fine") && !log.contains("Bearer"), "{directives}: {log}");
        }
    }
}
