//! Runs a plan: scheduling, single flight, look-up of known results, step executors, events.
//!
//! In: a [`BuildRequest`] and a store. Out: images in the store and in the outputs asked for, and a [`BuildOutcome`].
//! Called by the binary (and by whoever uses memobuild as a library). It knows nothing of flags and terminals.
#![forbid(unsafe_code)]

mod annotate;
mod attest;
mod bases;
mod build;
mod chmod;
mod contexts;
mod copy;
mod error;
pub mod explain;
mod export;
pub mod history;
mod input;
mod keys;
pub mod memo;
mod remote;
mod request;
mod resolve;
mod schedule;
mod session;
mod share;
#[cfg(feature = "sign")]
pub mod sign;
mod step;
mod users;
mod value;

pub use annotate::{Annotation, Level};
pub use attest::{Attestations, Provenance};
pub use build::{Foreseen, Reach, build, dry_run, foresee};
pub use error::EngineError;
pub use history::StepReport;
pub use memobuild_cache::{Place as CachePlace, RemoteOptions};
pub use memobuild_sandbox::Cancel;
pub use request::{
    BuildOutcome, BuildRequest, CacheTarget, Compression, CompressionMethod, ContextInput, Destination,
    DockerfileInput, Kept, Output, OutputKind, SandboxChoice, SecretSource,
};
