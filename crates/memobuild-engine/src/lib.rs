//! Runs a plan: scheduling, single flight, look-up of known results, step executors, events.
//!
//! In: a [`BuildRequest`] and a store. Out: images in the store and in the outputs asked for, and a [`BuildOutcome`].
//! Called by the binary (and by whoever uses memobuild as a library). It knows nothing of flags and terminals.
#![forbid(unsafe_code)]

mod build;
mod cancel;
mod error;
mod request;

pub use build::{build, dry_run};
pub use cancel::Cancel;
pub use error::EngineError;
pub use request::{
    BuildOutcome, BuildRequest, Compression, CompressionMethod, ContextInput, Destination, DockerfileInput, Output,
    OutputKind, SandboxChoice, SecretSource, StepReport,
};
