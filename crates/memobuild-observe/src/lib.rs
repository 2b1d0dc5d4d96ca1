//! Events, errors, log lines, sums, secrets and the rule for trying again: what every crate above may speak of.
//!
//! Everything that a build does is told once, as a [`TraceEvent`]; the progress display, logs, traces, metrics and
//! history are all made from it. Never does I/O of its own: log lines go to whatever the program has set up.
#![forbid(unsafe_code)]

mod error;
mod event;
mod failure;
mod log;
mod metrics;
mod retry;
mod secret;
mod traceparent;

pub use error::MemoBuildError;
pub use event::{Observer, Several, Silent, StepInfo, StepOutcome, Stream, TraceEvent};
pub use failure::FailureKind;
pub use log::in_same_span;
pub use metrics::BuildMetrics;
pub use retry::{Backoff, RetryConfig};
pub use secret::Secret;
pub use traceparent::TraceContext;
/// For the macros of this crate alone.
#[doc(hidden)]
pub use tracing as __tracing;
