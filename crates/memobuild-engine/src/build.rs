//! One build from its request to its outcome.

use std::sync::Arc;

use memobuild_observe::{FailureKind, Observer};
use memobuild_store::Store;

use crate::{BuildOutcome, BuildRequest, Cancel, EngineError};

/// Builds. Everything worth knowing on the way is told to `observer`.
///
/// # Errors
/// Whatever stops the build, with the kind that decides the exit code. Nothing half-made stands under a final name.
pub fn build(
    _store: &Store,
    _request: &BuildRequest,
    _observer: &Arc<dyn Observer>,
    _cancel: &Cancel,
) -> Result<BuildOutcome, EngineError> {
    Err(EngineError::new(FailureKind::Machine, "no executor"))
}

/// Says which steps would run, without running any. Steps behind one that would run, and whose keys can't be known
/// before it has run, are reported as running.
///
/// # Errors
/// As [`build`], but for what only running a step can show.
pub fn dry_run(_store: &Store, _request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
    Err(EngineError::new(FailureKind::Machine, "no executor"))
}
