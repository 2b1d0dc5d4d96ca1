//! Errors and warnings with a place, rendered with an excerpt of the source.

mod nearest;
mod render;

pub use nearest::nearest;

use crate::span::{SourceFile, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The build can't go on.
    Error,
}

/// One error or warning about a place in a file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Rule name for lint findings, shown in brackets.
    pub code: Option<String>,
    /// What is wrong, in one line.
    pub message: String,
    /// The file.
    pub source: SourceFile,
    /// Where; none: the file as a whole.
    pub span: Option<Span>,
    /// Text beside the mark.
    pub label: Option<String>,
    /// What would have been right, such as `one or three arguments`.
    pub expected: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error about a place.
    pub fn error(source: &SourceFile, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: None,
            message: message.into(),
            source: source.clone(),
            span: span.into(),
            label: None,
            expected: None,
            hint: None,
        }
    }

    /// A warning about a place.
    pub fn warning(source: &SourceFile, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, span, message) }
    }

    /// With text beside the mark.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With what would have been right.
    pub fn with_expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// With what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a rule name, shown in brackets behind the severity.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The message with a marked excerpt of the source, in rustc's style, several lines, no
    /// final newline. `color`: with ANSI colours.
    pub fn render(&self, color: bool) -> String {
        render::render(self, color)
    }
}

/// Why a Dockerfile could not be parsed. Displays as the message alone, one line;
/// [`Diagnostic::render`] shows the place.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct ParseError(pub Box<Diagnostic>);

impl ParseError {
    /// The error with its place.
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.0
    }
}
