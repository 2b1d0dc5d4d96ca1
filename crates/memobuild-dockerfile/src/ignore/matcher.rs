//! moby's pattern matcher for ignore files and `--exclude`, made for walking trees.
//!
//! Patterns are tried in order and the last one that matches decides; a pattern that matches a
//! directory matches all below it. A walk hands each directory's [`MatchState`] on to its
//! children, so that no path is looked at from the root again.

use std::borrow::Cow;

use super::compile::Compiled;
use super::gomatch::{BadPattern, Token};
use crate::path::clean;

/// Compiled ignore patterns.
#[derive(Clone, Debug, Default)]
pub struct IgnoreMatcher {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    exception: bool,
    compiled: Compiled,
    /// Cleaned, without its `!`.
    text: String,
}

/// Which patterns matched a directory; hand it on to the matches of its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchState {
    /// Whether the path is ignored.
    pub ignored: bool,
    /// One per pattern; empty for the root, of which no pattern has been asked.
    matched: Vec<bool>,
}

impl IgnoreMatcher {
    /// Compiles patterns as [`super::read_patterns`] gives them.
    ///
    /// # Errors
    /// A pattern is malformed, or is `!` alone.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadPattern> {
        let mut matcher = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (exception, text) = match pattern.strip_prefix('!') {
                Some("") => return Err(BadPattern::new(b"!")),
                Some(text) => (true, text),
                None => (false, pattern.as_str()),
            };
            Token::parse_all(text.as_bytes())?;
            let compiled = Compiled::new(text).ok_or_else(|| BadPattern::new(text.as_bytes()))?;
            matcher.exceptions |= exception;
            matcher.patterns.push(Pattern { exception, compiled, text: text.to_owned() });
        }
        Ok(matcher)
    }

    /// Whether there are no patterns, so that nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern is a `!` exception.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether a pattern ignores all entries of the root (`*`, `**` or `**/*`).
    pub fn ignores_all_entries(&self) -> bool {
        let all = |p: &Pattern| !p.exception && matches!(p.text.as_str(), "*" | "**" | "**/*");
        self.patterns.iter().any(all)
    }

    /// Whether a path is ignored: it or a parent matches, and no later exception takes it back.
    /// `path` is relative to the root, slash-separated, clean.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = decode(path);
        let mut ignored = false;
        for pattern in &self.patterns {
            // Only a pattern that would change the verdict is asked.
            if pattern.exception == ignored && matches_with_parents(&pattern.compiled, &path) {
                ignored = !pattern.exception;
            }
        }
        ignored
    }

    /// The state of the root, to start a walk with.
    pub fn root(&self) -> MatchState {
        MatchState::default()
    }

    /// Whether a file is ignored whose directory's state is known. As [`Self::enter`], without
    /// a state for children.
    pub fn matches_in(&self, parent: &MatchState, path: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        self.judge(parent, path, |_| {})
    }

    /// The state of a directory whose own parent's state is known. Cost: at most one test per
    /// pattern that did not match the parent.
    pub fn enter(&self, parent: &MatchState, path: &[u8]) -> MatchState {
        if self.patterns.is_empty() {
            return MatchState::default();
        }
        let mut matched = Vec::with_capacity(self.patterns.len());
        let ignored = self.judge(parent, path, |one| matched.push(one));
        MatchState { ignored, matched }
    }

    fn judge(&self, parent: &MatchState, path: &[u8], mut each: impl FnMut(bool)) -> bool {
        let path = decode(path);
        let mut ignored = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let by_parent = parent.matched.get(index).copied().unwrap_or(false);
            let matched = by_parent || (pattern.exception == ignored && pattern.compiled.is_match(&path));
            each(matched);
            if matched {
                ignored = !pattern.exception;
            }
        }
        ignored
    }

    /// Whether something below the ignored directory `dir` may be taken back by an exception, so
    /// that a walk must enter it. Never false when something may.
    pub fn may_match_below(&self, state: &MatchState, dir: &[u8]) -> bool {
        if !self.exceptions {
            return false;
        }
        let dir = decode(dir);
        // What matched the directory matches all below it, so only later exceptions can help.
        let decided = self
            .patterns
            .iter()
            .zip(&state.matched)
            .rposition(|(pattern, matched)| *matched && !pattern.exception)
            .map_or(0, |at| at + 1);
        self.patterns.iter().skip(decided).any(|pattern| pattern.exception && pattern.compiled.may_match_below(&dir))
    }
}

fn matches_with_parents(pattern: &Compiled, path: &str) -> bool {
    pattern.is_match(path)
        || path.match_indices('/').any(|(at, _)| path.get(..at).is_some_and(|parent| pattern.is_match(parent)))
}

/// Each byte that is not UTF-8 as one replacement character, as Go's regular expressions see it.
fn decode(path: &[u8]) -> Cow<'_, str> {
    if let Ok(path) = std::str::from_utf8(path) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}
