//! Events, and the kinds of failure that decide the exit code: what every crate above may speak of.
//!
//! Everything that a build does is told once, as a [`TraceEvent`]; the progress display, logs, metrics and history are
//! all made from it. Never does I/O of its own.
#![forbid(unsafe_code)]

mod event;
mod failure;

pub use event::{Observer, Several, Silent, StepInfo, StepOutcome, Stream, TraceEvent};
pub use failure::FailureKind;
