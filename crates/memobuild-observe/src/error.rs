//! The one error that programs which use memobuild as a library have to know.
//!
//! Each crate has errors of its own, which say more; all of them turn into this one.

use crate::FailureKind;

/// What went wrong, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoBuildError {
    /// Bytes that do not have the digest they go by. They were not used.
    #[error("content does not match its digest: expected {expected}, got {actual} ({data_size} bytes)")]
    CASIntegrityFailure {
        /// The digest that it goes by.
        expected: String,
        /// The digest that it has.
        actual: String,
        /// Bytes that came.
        data_size: u64,
    },
    /// No answer, or no good one, from another host.
    #[error("{message}{}", after(*attempt))]
    NetworkError {
        /// What happened, and with whom.
        message: String,
        /// Whether the same may work a little later. It was tried again, then.
        retryable: bool,
        /// How many attempts were made, from 1.
        attempt: u32,
    },
    /// The cache directory, or another file of this machine, can't be read or written.
    #[error("could not {operation}: {reason}")]
    StorageError {
        /// What was tried, as a verb phrase.
        operation: String,
        /// The system's answer.
        reason: String,
    },
    /// Something in the cache contradicts itself, and counts as not cached.
    #[error("{hash} in the cache is damaged: {reason}")]
    CacheCoherencyError {
        /// What it goes by.
        hash: String,
        /// How it shows.
        reason: String,
    },
    /// A Dockerfile that says nothing a build could do.
    #[error("{message}")]
    DockerfileError {
        /// What and where; several lines.
        message: String,
    },
    /// A step of the build failed.
    #[error("{message}")]
    StepFailed {
        /// How.
        message: String,
        /// The end of what it wrote.
        log_tail: Vec<String>,
    },
    /// What was asked for makes no sense.
    #[error("{message}")]
    UsageError {
        /// Why not.
        message: String,
    },
    /// This machine can't run steps.
    #[error("{message}")]
    MachineError {
        /// Why not.
        message: String,
    },
    /// One of the others, and what was being done when it came up.
    #[error("{message}")]
    Context {
        /// What was being done, and why it can't go on.
        message: String,
        /// What a person can do about it.
        hint: Option<String>,
        /// What came up.
        #[source]
        source: Box<MemoBuildError>,
    },
}

fn after(attempt: u32) -> String {
    if attempt > 1 { format!(" ({attempt} attempts)") } else { String::new() }
}

impl MemoBuildError {
    /// One without anything more known than its kind.
    pub fn of_kind(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        match kind {
            FailureKind::Step => Self::StepFailed { message, log_tail: Vec::new() },
            FailureKind::Usage => Self::UsageError { message },
            FailureKind::Dockerfile => Self::DockerfileError { message },
            FailureKind::Cache => Self::StorageError { operation: "use the cache".into(), reason: message },
            FailureKind::Registry => Self::NetworkError { message, retryable: false, attempt: 1 },
            FailureKind::Machine => Self::MachineError { message },
        }
    }

    /// The same, with what was being done.
    #[must_use]
    pub fn context(self, message: impl Into<String>, hint: Option<String>) -> Self {
        Self::Context { message: message.into(), hint, source: Box::new(self) }
    }

    /// What is at the bottom of it: never [`MemoBuildError::Context`].
    pub fn root(&self) -> &Self {
        let mut error = self;
        while let Self::Context { source, .. } = error {
            error = source;
        }
        error
    }

    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self.root() {
            Self::StepFailed { .. } => FailureKind::Step,
            Self::UsageError { .. } => FailureKind::Usage,
            Self::DockerfileError { .. } => FailureKind::Dockerfile,
            Self::NetworkError { .. } => FailureKind::Registry,
            Self::MachineError { .. } => FailureKind::Machine,
            Self::CASIntegrityFailure { .. }
            | Self::StorageError { .. }
            | Self::CacheCoherencyError { .. }
            | Self::Context { .. } => FailureKind::Cache,
        }
    }

    /// The exit code of a program that fails with it.
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }

    /// Whether the same may work a little later without anybody doing anything about it.
    pub fn is_retryable(&self) -> bool {
        matches!(self.root(), Self::NetworkError { retryable: true, .. })
    }

    /// What a person can do about it: the outermost hint that somebody gave, else what holds for all of the kind.
    pub fn hint(&self) -> Option<String> {
        let mut error = self;
        while let Self::Context { hint, source, .. } = error {
            if hint.is_some() {
                return hint.clone();
            }
            error = source;
        }
        Some(match error {
            Self::CASIntegrityFailure { .. } => {
                "the source sent other bytes than it announced; try again or check the image".into()
            }
            Self::CacheCoherencyError { .. } => {
                "build again: what is damaged counts as not cached; repeated damage points to a failing disk".into()
            }
            Self::NetworkError { retryable: true, .. } => "try again later".into(),
            Self::MachineError { .. } => "`memobuild doctor` says what this machine lacks".into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn what_is_at_the_bottom_decides() {
        let network = MemoBuildError::NetworkError { message: "reset".into(), retryable: true, attempt: 8 };
        assert_eq!(network.to_string(), "reset (8 attempts)");
        let error = network.clone().context("pull app", None).context("build", Some("look".into()));
        assert_eq!(error.root(), &network);
        assert!(error.is_retryable());
        assert_eq!((error.exit_code(), error.to_string().as_str()), (5, "build"));
        assert_eq!(error.hint().as_deref(), Some("look"));
        let mut chain = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            chain.push(cause.to_string());
            next = cause.source();
        }
        assert_eq!(chain, ["pull app", "reset (8 attempts)"]);
    }

    #[test]
    fn each_kind_keeps_its_exit_code() {
        use FailureKind::*;
        for (kind, code) in [(Step, 1), (Usage, 2), (Dockerfile, 3), (Cache, 4), (Registry, 5), (Machine, 6)] {
            let error = MemoBuildError::of_kind(kind, "x");
            assert_eq!((error.kind(), error.exit_code()), (kind, code));
            assert!(!error.is_retryable());
        }
    }
}
