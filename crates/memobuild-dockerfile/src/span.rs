//! Places in a Dockerfile: positions, spans, and the file itself.
//!
//! Every word of the syntax tree carries a [`Span`], so that later floors can point an error at
//! the line and column that caused it. Nothing here reads files: the text is handed in.

use std::fmt;
use std::sync::Arc;

/// A point in a file. Both numbers count from 1; `column` counts bytes within the physical line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Byte column within the line, from 1.
    pub column: u32,
}

impl Pos {
    /// A position from line and byte column, both counted from 1.
    pub const fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }
}

/// A piece of a file. `end` is exclusive: it is the position just behind the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: Pos,
    /// Just behind the last byte; never before `start`.
    pub end: Pos,
}

impl Span {
    /// A span between two positions.
    pub const fn new(start: Pos, end: Pos) -> Self {
        Self { start, end }
    }

    /// A span that covers whole lines, first and last included, without saying more.
    pub const fn lines(first: u32, last: u32) -> Self {
        Self::new(Pos::new(first, 1), Pos::new(last, u32::MAX))
    }

    /// First line, from 1.
    pub const fn first_line(&self) -> u32 {
        self.start.line
    }

    /// Last line that the span touches, from 1.
    pub const fn last_line(&self) -> u32 {
        self.end.line
    }
}

/// A file's display name and text; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    text: Arc<str>,
}

impl SourceFile {
    /// A file with the name to show in messages and its whole text.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// The name to show in messages, such as `Dockerfile`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({}, {} bytes)", self.name, self.text.len())
    }
}
