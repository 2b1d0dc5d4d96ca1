//! Events, errors, the rule for trying again, and secrets: what every crate above may speak of.
//!
//! Everything that a build does is told once, as a [`TraceEvent`]; the progress display, logs, metrics and history are
//! all made from it. Never does I/O of its own.
#![forbid(unsafe_code)]

mod error;
mod event;
mod failure;
mod retry;
mod secret;

pub use error::MemoBuildError;
pub use event::{Observer, Several, Silent, StepInfo, StepOutcome, Stream, TraceEvent};
pub use failure::FailureKind;
pub use retry::{Backoff, RetryConfig};
pub use secret::Secret;
