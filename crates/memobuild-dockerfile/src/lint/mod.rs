//! Build checks: BuildKit's rules under their published names.

mod options;
mod rules;

pub use options::{CheckOptions, CheckOptionsError};
pub use rules::Rule;

use crate::ast::Dockerfile;
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
    /// A finding; `message` comes from one of [`Rule`]'s message functions.
    pub fn new(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Self {
            rule,
            message: message.into(),
            span,
        }
    }

    /// As a warning with the rule's name, description and page.
    pub fn diagnostic(&self, source: &SourceFile) -> Diagnostic {
        Diagnostic::warning(source, self.span, self.message.clone()).with_code(self.rule.name())
    }
}

/// Runs all rules that can be judged from the text alone, and leaves out what the file's
/// `# check=` or a comment above an instruction skips. In file order.
pub fn lint(dockerfile: &Dockerfile, options: &CheckOptions) -> Vec<Finding> {
    let _ = (dockerfile, options);
    todo!()
}
