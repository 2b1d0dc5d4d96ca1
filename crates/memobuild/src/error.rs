//! The error of programs that use memobuild as a library, and how what goes over a network is tried again.
//!
//! What a build, the store and a registry fail with turns into [`MemoBuildError`] with `?`.

pub use memobuild_observe::{Backoff, FailureKind, MemoBuildError, RetryConfig};

/// The result of what a program does with memobuild.
pub type Result<T, E = MemoBuildError> = std::result::Result<T, E>;
