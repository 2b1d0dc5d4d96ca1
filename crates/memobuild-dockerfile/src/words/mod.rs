//! Word expansion and splitting: variables, quotes and escapes as BuildKit's shell lexer does it.
//!
//! In: a word as written and an [`Env`]. Out: an [`Expansion`]. `memobuild-plan` calls it for
//! every word of an instruction that takes variables; the parser calls it to find heredocs.
//! Values are never expanded a second time.

mod lexer;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

/// Where variables come from.
pub trait Env {
    /// The value of a variable; none if it is not set.
    fn get(&self, name: &str) -> Option<String>;
    /// All names that are set, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// Why a word could not be expanded. Displays as BuildKit words it: `failed to process "W": ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    /// The whole word.
    pub word: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What expansion gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The expanded text as one word.
    pub text: String,
    /// The expanded text split at unquoted blanks; splitting happens after expansion.
    pub words: Vec<String>,
    /// Variables that were looked up and found.
    pub matched: BTreeSet<String>,
    /// Variables that were looked up and are not set.
    pub unmatched: BTreeSet<String>,
}

/// Settings of an expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lexer {
    /// Escape character: the file's `# escape=`.
    pub escape: char,
    /// Keep quotes in the output.
    pub raw_quotes: bool,
    /// Keep escape characters in the output.
    pub raw_escapes: bool,
    /// Treat quotes as ordinary characters (for heredoc contents).
    pub skip_quotes: bool,
    /// Leave references to unset variables as they are.
    pub skip_unset: bool,
}

impl Lexer {
    /// A lexer with the given escape character and all other settings off.
    pub const fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// Expands a word.
    ///
    /// # Errors
    /// Bad syntax, or a `${X:?message}` whose variable is unset.
    pub fn expand(&self, word: &str, env: &dyn Env) -> Result<Expansion, ExpandError> {
        lexer::expand(*self, word, env).map_err(|reason| ExpandError { word: word.to_owned(), reason })
    }
}

/// A map is an environment, mostly for tests.
impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
