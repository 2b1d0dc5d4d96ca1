//! Why a build failed.

use memobuild_observe::FailureKind;

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
}

impl EngineError {
    /// An error of that kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, step: None, log_tail: Vec::new() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with its causes, one after the other.
    pub(crate) fn chain(kind: FailureKind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(kind, message)
    }

    /// A step of the Dockerfile that can't be done.
    pub(crate) fn step(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Step, message)
    }
}

impl From<memobuild_store::StoreError> for EngineError {
    fn from(error: memobuild_store::StoreError) -> Self {
        let hint = error.hint();
        let fetching = matches!(error, memobuild_store::StoreError::Fetch { .. });
        let kind = if fetching { FailureKind::Registry } else { FailureKind::Cache };
        let out = Self::chain(kind, &error);
        match hint {
            Some(hint) => out.with_hint(hint),
            None => out,
        }
    }
}
