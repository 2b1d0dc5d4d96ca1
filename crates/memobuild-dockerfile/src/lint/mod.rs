//! Build checks: BuildKit's rules under their published names.
//!
//! [`lint`] runs those that the text alone decides. Rules that need variables, images or ignore
//! files are judged by the plan, which makes its findings with the constructors of [`Finding`].

mod messages;
mod options;
mod rules;
#[cfg(test)]
mod tests;
mod text;

pub use messages::is_secret_name;
pub use options::{CheckOptions, CheckOptionsError};
pub use rules::Rule;
pub use text::lint;

use crate::diagnostic::Diagnostic;
use crate::span::{SourceFile, Span};

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What is wrong, as BuildKit words it.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Finding {
    /// A finding with a message of its own.
    pub fn new(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), span }
    }

    /// As a warning with the rule's name and its page.
    pub fn diagnostic(&self, source: &SourceFile) -> Diagnostic {
        let warning = Diagnostic::warning(source, self.span, self.message.clone()).with_code(self.rule.name());
        match self.rule.url() {
            Some(url) => warning.with_hint(url),
            None => warning,
        }
    }
}
