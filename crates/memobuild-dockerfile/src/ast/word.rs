//! Words and heredocs: the leaves of the syntax tree.

use std::fmt;
use std::ops::Deref;

use crate::span::Span;

/// A piece of text with its place in the file; reads as a `str`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, unexpanded. It may differ from the source where a line was continued or where
    /// the syntax takes quotes or JSON escapes off.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// A word with its place.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self { text: text.into(), span }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Deref for Word {
    type Target = str;
    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A here-document as attached to `RUN`, `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; for `COPY` and `ADD` also the file's name.
    pub name: String,
    /// File descriptor before `<<`; 0 when none is written.
    pub fd: u64,
    /// Whether variables in the content are expanded (the delimiter was not quoted).
    pub expand: bool,
    /// `<<-`: leading tabs of each line are to be removed. See [`Heredoc::chomped`].
    pub chomp: bool,
    /// The lines between, as written, each with its line ending.
    pub content: String,
    /// The content's lines (the terminator is not part of it).
    pub span: Span,
}

impl Heredoc {
    /// The content, with leading tabs of each line removed if `<<-` asks for it.
    pub fn chomped(&self) -> String {
        self.chomped_if(self.chomp)
    }

    pub(crate) fn chomped_if(&self, chomp: bool) -> String {
        if !chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}
