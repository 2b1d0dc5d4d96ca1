//! The `# check=` directive and `--check` options.

use std::collections::BTreeSet;

use super::rules::Rule;

/// Which rules run, and whether findings are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// `skip=all`
    pub skip_all: bool,
    /// `skip=A,B`
    pub skip: BTreeSet<String>,
    /// `experimental=all`
    pub experimental_all: bool,
    /// `experimental=A,B`
    pub experimental: BTreeSet<String>,
    /// `error=true`: findings fail the build.
    pub error: bool,
}

/// A `# check=` value that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CheckOptionsError(pub String);

impl CheckOptions {
    /// Reads `skip=A,B;error=true;experimental=C`.
    ///
    /// # Errors
    /// An unknown option or value.
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let _ = text;
        todo!()
    }

    /// These options and those of `other` together.
    pub fn merged(&self, other: &Self) -> Self {
        let _ = other;
        todo!()
    }

    /// With the options of a `check=` comment above an instruction, if there is one.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let _ = comments;
        todo!()
    }

    /// Whether findings of a rule are reported.
    pub fn allows(&self, rule: Rule) -> bool {
        let _ = rule;
        todo!()
    }
}
