//! Log lines about builds: one macro for each, so that the same thing has the same level, target and fields wherever it
//! is logged. Programs that read logs may rely on these.
//!
//! | line | level | target | fields |
//! |---|---|---|---|
//! | `build started` | info | `memobuild::build` | `trace_id`, `steps` |
//! | `build complete` | info | `memobuild::build` | `ok`, `duration_ms`, `cache_hits`, `cache_misses`, `bytes_moved` |
//! | `build failed` | error | `memobuild::build` | `error` |
//! | `warning` | warn | `memobuild::build` | `warning` |
//! | `sandbox chosen` | debug | `memobuild::build` | `mode`, `why` |
//! | `cache hit`, `cache miss` | debug | `memobuild::cache` | `step`, `key` |
//! | `digest mismatch` | warn | `memobuild::cache` | `expected`, `actual`, `size` |
//! | `step started` | info | `memobuild::step` | `step`, `label`, `reason` |
//! | `step done` | info | `memobuild::step` | `step`, `label`, `outcome`, `duration_ms` |
//! | `step failed` | error | `memobuild::step` | `step`, `label`, `error`, `duration_ms` |
//! | `transfer done` | info | `memobuild::transfer` | `what`, `bytes`, `duration_ms` |
//! | `export done` | info | `memobuild::export` | `what`, `duration_ms` |
//! | `layer built` | info | `memobuild::export` | `digest`, `size` |
//!
//! Texts of other people (labels, messages) are taken as strings, which the human form quotes: a line stays one line.
//! Keys and digests are anything that can be displayed.

/// The work, with its log lines in the span in which this is called: for work that another thread does. Ties them to the
/// same build, by its trace id.
pub fn in_same_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = tracing::Span::current();
    move || span.in_scope(work)
}

/// The steps of a build begin: its trace's id and how many steps there are.
#[macro_export]
macro_rules! log_build_start {
    ($trace_id:expr, $steps:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::build",
            trace_id = %$trace_id,
            steps = $steps,
            "build started"
        )
    };
}

/// A build is over, well or not: whether it is well, milliseconds, steps that were found and that were not, bytes.
#[macro_export]
macro_rules! log_build_complete {
    ($ok:expr, $duration_ms:expr, $cache_hits:expr, $cache_misses:expr, $bytes_moved:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::build",
            ok = $ok,
            duration_ms = $duration_ms,
            cache_hits = $cache_hits,
            cache_misses = $cache_misses,
            bytes_moved = $bytes_moved,
            "build complete"
        )
    };
}

/// Why a build fails.
#[macro_export]
macro_rules! log_build_fail {
    ($error:expr) => {
        $crate::__tracing::error!(target: "memobuild::build", error = $error, "build failed")
    };
}

/// Something that the user should know and the build goes on from.
#[macro_export]
macro_rules! log_build_warning {
    ($warning:expr) => {
        $crate::__tracing::warn!(target: "memobuild::build", warning = $warning, "warning")
    };
}

/// How steps are run, and why that way.
#[macro_export]
macro_rules! log_sandbox_chosen {
    ($mode:expr, $why:expr) => {
        $crate::__tracing::debug!(target: "memobuild::build", mode = $mode, why = $why, "sandbox chosen")
    };
}

/// A key of a step was found.
#[macro_export]
macro_rules! log_cache_hit {
    ($step:expr, $key:expr) => {
        $crate::__tracing::debug!(target: "memobuild::cache", step = $step, key = %$key, "cache hit")
    };
}

/// A key of a step was not found; another of its keys may be.
#[macro_export]
macro_rules! log_cache_miss {
    ($step:expr, $key:expr) => {
        $crate::__tracing::debug!(target: "memobuild::cache", step = $step, key = %$key, "cache miss")
    };
}

/// Bytes that do not have the digest they go by, and are not used: the digest that they should have, what was found in
/// its place, and how many bytes came.
#[macro_export]
macro_rules! log_cas_verify_fail {
    ($expected:expr, $actual:expr, $size:expr) => {
        $crate::__tracing::warn!(
            target: "memobuild::cache",
            expected = %$expected,
            actual = %$actual,
            size = $size,
            "digest mismatch"
        )
    };
}

/// A step is being executed, and why.
#[macro_export]
macro_rules! log_step_start {
    ($step:expr, $label:expr, $reason:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::step",
            step = $step,
            label = $label,
            reason = $reason,
            "step started"
        )
    };
}

/// A step is over: `cached`, `executed` or `cancelled`, after so many milliseconds.
#[macro_export]
macro_rules! log_step_done {
    ($step:expr, $label:expr, $outcome:expr, $duration_ms:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::step",
            step = $step,
            label = $label,
            outcome = $outcome,
            duration_ms = $duration_ms,
            "step done"
        )
    };
}

/// A step failed.
#[macro_export]
macro_rules! log_step_fail {
    ($step:expr, $label:expr, $error:expr, $duration_ms:expr) => {
        $crate::__tracing::error!(
            target: "memobuild::step",
            step = $step,
            label = $label,
            error = $error,
            duration_ms = $duration_ms,
            "step failed"
        )
    };
}

/// A pull, a push or another transfer is over: what it was, bytes, milliseconds.
#[macro_export]
macro_rules! log_transfer_done {
    ($what:expr, $bytes:expr, $duration_ms:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::transfer",
            what = $what,
            bytes = $bytes,
            duration_ms = $duration_ms,
            "transfer done"
        )
    };
}

/// An image or its files have been written.
#[macro_export]
macro_rules! log_export_done {
    ($what:expr, $duration_ms:expr) => {
        $crate::__tracing::info!(
            target: "memobuild::export",
            what = $what,
            duration_ms = $duration_ms,
            "export done"
        )
    };
}

/// A layer of the image is ready.
#[macro_export]
macro_rules! log_layer_built {
    ($digest:expr, $size:expr) => {
        $crate::__tracing::info!(target: "memobuild::export", digest = %$digest, size = $size, "layer built")
    };
}
