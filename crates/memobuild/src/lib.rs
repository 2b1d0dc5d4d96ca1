//! The memobuild command, and memobuild as a library.
//!
//! As a library: fill a [`BuildRequest`], open a [`Store`], call [`build`] and listen with an [`Observer`]. The program
//! that does so must hand over to [`sandbox_server`] first thing in `main` when its first argument is
//! [`SANDBOX_INIT_ARG`], since steps are run by the same program started again.
//!
//! [`logging`] has what becomes of a build's events written to the log.
//!
//! [`cli`] is the command line: one file for each command, which turns arguments into calls of the crates below and
//! their answers into text. It knows how nothing is done; it is the only place that knows flags, terminals and exit
//! codes, and environment variables but for those of logs and traces.
#![forbid(unsafe_code)]

pub mod cli;
pub mod error;
pub mod logging;
mod progress;
mod report;
mod telemetry;
#[cfg(test)]
mod testing;

pub use memobuild_engine::{
    BuildOutcome, BuildRequest, Cancel, ContextInput, Destination, DockerfileInput, EngineError, Output, OutputKind,
    SandboxChoice, SecretSource, StepReport, build, dry_run,
};
pub use memobuild_observe::{
    BuildMetrics, FailureKind, Observer, Silent, StepInfo, StepOutcome, Stream, TraceContext, TraceEvent,
};
pub use memobuild_plan::model::Options;
pub use memobuild_sandbox::{SANDBOX_INIT_ARG, init_main as sandbox_server};
pub use memobuild_store::Store;
