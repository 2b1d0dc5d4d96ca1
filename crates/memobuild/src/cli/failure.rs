//! What a command fails with, and how a person gets to read it.

use std::{fmt::Write as _, io, process::ExitCode};

use memobuild_observe::FailureKind;
use memobuild_store::StoreError;

use super::text;

/// What every command gives: the exit code, or why it failed.
pub(crate) type CliResult = Result<ExitCode, Failure>;

/// Why a command failed: the kind decides the exit code, the rest is text.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    message: String,
    /// The message has a head of its own.
    headed: bool,
    causes: Vec<String>,
    hint: Option<String>,
    step: Option<Box<FailedStep>>,
}

/// The step that failed and the end of what it wrote.
#[derive(Debug)]
pub(crate) struct FailedStep {
    /// `[stage 2/5] RUN make`.
    pub(crate) label: String,
    /// Last lines of its output.
    pub(crate) log_tail: Vec<String>,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            exit: kind.exit_code(),
            message: message.into(),
            headed: false,
            causes: Vec::new(),
            hint: None,
            step: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }

    /// A failure with the chain of causes that the error carries.
    pub(crate) fn caused(kind: FailureKind, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(kind, error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            failure.causes.push(cause.to_string());
            // A failure of the store may be inside one of reading or writing.
            let inner = cause.downcast_ref::<io::Error>().and_then(|e| e.get_ref()).and_then(|e| e.downcast_ref());
            let store: Option<&StoreError> = cause.downcast_ref().or(inner);
            failure.hint = failure.hint.or_else(|| store.and_then(StoreError::hint));
            next = cause.source();
        }
        failure
    }

    /// An error and its causes in one line.
    pub(crate) fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        text
    }

    /// A file of this machine that could not be read or written.
    pub(crate) fn file(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let mut failure = Self::new(FailureKind::Cache, what.to_string());
        failure.causes.push(error.to_string());
        failure
    }

    /// A text that already says `error:` and shows the place.
    pub(crate) fn rendered(kind: FailureKind, text: String) -> Self {
        Self { headed: true, ..Self::new(kind, text) }
    }

    /// The user stopped the command with this signal.
    pub(crate) fn interrupted(signal: i32) -> Self {
        let mut failure = Self::new(FailureKind::Step, "cancelled");
        failure.exit = u8::try_from(128 + signal).unwrap_or(130);
        failure
    }

    #[must_use]
    pub(crate) fn with_kind(mut self, kind: FailureKind) -> Self {
        self.exit = kind.exit_code();
        self
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_step(mut self, step: Option<FailedStep>) -> Self {
        self.step = step.map(Box::new);
        self
    }

    /// What happened, in one line.
    pub(crate) fn message(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// The text for a person, with a final newline.
    pub(crate) fn render(&self, colour: bool) -> String {
        let paint = |code, t: &str| text::paint(colour, code, t);
        let mut out = String::new();
        if let Some(step) = self.step.as_ref().filter(|s| !s.log_tail.is_empty()) {
            let _ = writeln!(out, "------\n > {}:", step.label);
            for line in &step.log_tail {
                let _ = writeln!(out, "{line}");
            }
            let _ = writeln!(out, "------");
        }
        if self.headed {
            let _ = writeln!(out, "{}", self.message);
        } else {
            let _ = writeln!(out, "{} {}", paint("1;31", "error:"), self.message);
        }
        if let Some(step) = self.step.as_ref().filter(|s| s.log_tail.is_empty() && !self.message.contains(&s.label)) {
            let _ = writeln!(out, "  in {}", step.label);
        }
        for cause in &self.causes {
            let _ = writeln!(out, "  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{} {hint}", paint("1;36", "hint:"));
        }
        out
    }

    /// Prints it to standard error; gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        text::to_stderr(&self.render(text::stderr_colour()));
        ExitCode::from(self.exit)
    }
}

/// The file is small and written early: a cache that was just made when the power went can have an empty one.
const EMPTY_FORMAT: &str = "a power cut can leave an empty `format` file: `memobuild doctor --clean` mends it";
const READ_ONLY: &str = "set MEMOBUILD_CACHE_DIR to a directory that can be written to";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut failure = Self::caused(FailureKind::Cache, &error);
        failure.hint = match &error {
            StoreError::Format { found, .. } if found.is_empty() => Some(EMPTY_FORMAT.into()),
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some(READ_ONLY.into())
            }
            error => error.hint(),
        };
        failure
    }
}

impl From<memobuild_engine::EngineError> for Failure {
    fn from(error: memobuild_engine::EngineError) -> Self {
        let mut failure = Self::caused(error.kind, &error);
        // Errors in a Dockerfile come with their place and a head of their own.
        failure.headed = failure.message.starts_with("error:") || failure.message.starts_with("error[");
        failure.hint = error.hint;
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_its_log_the_error_and_the_hint() {
        let failure =
            Failure::new(FailureKind::Step, "process \"/bin/sh -c make\" did not complete successfully: exit code: 2")
                .with_hint("run `memobuild doctor`")
                .with_step(Some(FailedStep {
                    label: "[build 2/3] RUN make".into(),
                    log_tail: vec!["cc -c a.c".into(), "a.c:1: error".into()],
                }));
        insta::assert_snapshot!(failure.render(false), @r#"
        ------
         > [build 2/3] RUN make:
        cc -c a.c
        a.c:1: error
        ------
        error: process "/bin/sh -c make" did not complete successfully: exit code: 2
        hint: run `memobuild doctor`
        "#);
    }

    #[test]
    fn causes_are_listed() {
        let source = io::Error::from_raw_os_error(28);
        let error = StoreError::io("write", "/x")(source);
        insta::assert_snapshot!(Failure::from(error).render(false), @r"
        error: no space left to write /x
          caused by: No space left on device (os error 28)
        hint: free some space with `memobuild prune`, or set MEMOBUILD_CACHE_DIR to another disk
        ");
    }
}
