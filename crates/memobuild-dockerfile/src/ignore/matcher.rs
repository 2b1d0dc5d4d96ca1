//! moby's pattern matcher for ignore files and `--exclude`, made for walking trees.

use super::gomatch::BadPattern;

/// Compiled ignore patterns.
#[derive(Clone, Debug, Default)]
pub struct IgnoreMatcher {}

/// Which patterns matched a directory; hand it on to the matches of its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchState {
    /// Whether the path is ignored.
    pub ignored: bool,
}

impl IgnoreMatcher {
    /// Compiles patterns as [`super::read_patterns`] gives them.
    ///
    /// # Errors
    /// A pattern is malformed, or is `!` alone.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadPattern> {
        let _ = patterns;
        todo!()
    }

    /// Whether there are no patterns, so that nothing is ignored.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Whether any pattern is a `!` exception.
    pub fn has_exceptions(&self) -> bool {
        todo!()
    }

    /// Whether a path is ignored: it or a parent matches, and no later exception takes it back.
    /// `path` is relative to the root, slash-separated, clean.
    pub fn matches(&self, path: &[u8]) -> bool {
        let _ = path;
        todo!()
    }

    /// The state of the root, to start a walk with.
    pub fn root(&self) -> MatchState {
        todo!()
    }

    /// As [`Self::matches`] for a path whose parent directory's state is known. Cost: one test
    /// per pattern that did not match the parent.
    pub fn enter(&self, parent: &MatchState, path: &[u8]) -> MatchState {
        let _ = (parent, path);
        todo!()
    }

    /// Whether something below the ignored directory `dir` may be taken back by an exception, so
    /// that a walk must enter it. Never false when something may.
    pub fn may_match_below(&self, state: &MatchState, dir: &[u8]) -> bool {
        let _ = (state, dir);
        todo!()
    }
}
