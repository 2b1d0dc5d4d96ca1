//! Why a build failed.

use std::error::Error;

use memobuild_cache::CacheError;
use memobuild_observe::{FailureKind, MemoBuildError};
use memobuild_oci::{image::ImageError, registry::RegistryError};
use memobuild_store::StoreError;

/// Why a build failed: a kind that decides the exit code, a text for a person, and what may help.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened, where, and why. May hold several lines (a marked excerpt of the Dockerfile).
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The step that failed, as [`memobuild_observe::StepInfo::id`].
    pub step: Option<usize>,
    /// The last lines of the failed step's output.
    pub log_tail: Vec<String>,
    /// What it comes from, where that is known.
    pub cause: Option<Box<MemoBuildError>>,
}

impl EngineError {
    /// An error of that kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, step: None, log_tail: Vec::new(), cause: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with its causes, one after the other.
    pub(crate) fn chain(kind: FailureKind, error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut known = known(error);
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            known = known.or_else(|| self::known(cause));
            source = cause.source();
        }
        Self { cause: known.map(Box::new), ..Self::new(kind, message) }
    }

    /// A step of the Dockerfile that can't be done.
    pub(crate) fn step(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Step, message)
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        let hint = error.hint();
        let fetching = matches!(error, StoreError::Fetch { .. });
        let kind = if fetching { FailureKind::Registry } else { FailureKind::Cache };
        let out = Self::chain(kind, &error);
        match hint {
            Some(hint) => out.with_hint(hint),
            None => out,
        }
    }
}

impl From<EngineError> for MemoBuildError {
    fn from(error: EngineError) -> Self {
        let EngineError { kind, message, hint, log_tail, cause, .. } = error;
        match cause {
            // The step's own kind stands above what it met.
            Some(cause) if cause.kind() == kind => cause.context(message, hint),
            _ => {
                let leaf = match Self::of_kind(kind, message.clone()) {
                    Self::StepFailed { message, .. } => Self::StepFailed { message, log_tail },
                    other => other,
                };
                if hint.is_none() { leaf } else { leaf.context(message, hint) }
            }
        }
    }
}

/// What an error of the crates below is to whoever uses memobuild as a library.
fn known(error: &(dyn Error + 'static)) -> Option<MemoBuildError> {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return match error {
            // Why it could not be fetched says more.
            StoreError::Fetch { source, .. } => known(&**source),
            error => Some(error.into()),
        };
    }
    match error.downcast_ref::<ImageError>() {
        Some(ImageError::Store(error)) => return known(error),
        Some(ImageError::Registry(error)) => return known(error),
        _ => {}
    }
    match error.downcast_ref::<CacheError>() {
        Some(CacheError::Store(error)) => return known(error),
        Some(CacheError::Registry(error)) => return known(error),
        _ => {}
    }
    match error.downcast_ref::<RegistryError>()? {
        RegistryError::Store(error) => known(error),
        error => Some(error.into()),
    }
}
