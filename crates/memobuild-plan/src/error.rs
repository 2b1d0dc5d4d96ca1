//! Why no plan could be made.

use memobuild_dockerfile::lint::Finding;
use memobuild_dockerfile::words::ExpandError;
use memobuild_dockerfile::{Diagnostic, SourceFile, Span};

/// What kind of thing went wrong; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanErrorKind {
    /// The Dockerfile is wrong.
    Dockerfile,
    /// A base image could not be found.
    BaseImage,
    /// The command line asks for what is not there: a target, a named context.
    Request,
    /// A step asks for what the command line does not allow.
    Denied,
    /// Checks found something, and `# check=error=true` makes that an error.
    Checks,
}

/// Why no plan could be made. Displays as the first diagnostic's message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .diagnostics.first().map_or("no plan could be made", |d| d.message.as_str()))]
pub struct PlanError {
    /// Its kind.
    pub kind: PlanErrorKind,
    /// At least one, each with its place.
    pub diagnostics: Vec<Diagnostic>,
    /// What the checks found until then.
    pub findings: Vec<Finding>,
}

/// An error on its way out, before it knows the file.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: PlanErrorKind,
    pub(crate) span: Option<Span>,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self { kind: PlanErrorKind::Dockerfile, span: span.into(), message: message.into(), expected: None, hint: None }
    }

    /// A word that could not be expanded.
    pub(crate) fn expand(span: Span, error: &ExpandError) -> Self {
        Self::new(span, error.to_string())
    }

    pub(crate) fn kind(mut self, kind: PlanErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `(did you mean X?)` behind the message, if some name is near.
    pub(crate) fn suggest<'a>(mut self, value: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(near) = memobuild_dockerfile::diagnostic::nearest(value, names, false) {
            self.message.push_str(&format!(" (did you mean {near}?)"));
            self.hint.get_or_insert(format!("did you mean `{near}`?"));
        }
        self
    }

    pub(crate) fn diagnostic(self, source: &SourceFile) -> Diagnostic {
        let mut out = Diagnostic::error(source, self.span, self.message);
        out.expected = self.expected;
        out.hint = self.hint;
        out
    }
}
