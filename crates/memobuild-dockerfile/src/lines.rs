//! Physical lines to logical lines: continuation, comments, and the way back from an offset in
//! a logical line to its place in the file.

use std::ops::Range;

use crate::span::{Pos, Span};

/// Cuts a text into physical lines, one at a time.
pub(crate) struct Lines<'a> {
    text: &'a str,
    rest: &'a str,
    /// Number of the line that was given last; 0 before the first.
    number: u32,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self::resume(text, (0, 0))
    }

    /// Goes on at a place that [`Self::position`] gave for the same text.
    pub(crate) fn resume(text: &'a str, (bytes, number): (usize, u32)) -> Self {
        Self { text, rest: text.get(bytes..).unwrap_or_default(), number }
    }

    /// How much has been read, in bytes and lines.
    pub(crate) fn position(&self) -> (usize, u32) {
        (self.text.len() - self.rest.len(), self.number)
    }

    /// The next line with its ending.
    pub(crate) fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number = self.number.saturating_add(1);
        Some(line)
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

/// An instruction's text with its continuation lines joined.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine {
    pub(crate) text: String,
    pub(crate) first_line: u32,
    /// Last physical line that was read, comments and blank lines included.
    pub(crate) last_line: u32,
    /// Comments above.
    pub(crate) comments: Vec<String>,
    /// A blank line stood inside.
    pub(crate) empty_continuation: bool,
    segments: Vec<Segment>,
}

/// From `offset` on, the logical text is the physical line from `at` on.
#[derive(Clone, Copy, Debug)]
struct Segment {
    offset: usize,
    at: Pos,
}

impl LogicalLine {
    /// The place of a byte of the text.
    pub(crate) fn pos(&self, offset: usize) -> Pos {
        let next = self.segments.partition_point(|s| s.offset <= offset);
        match next.checked_sub(1).and_then(|i| self.segments.get(i)) {
            Some(segment) => {
                Pos::new(segment.at.line, segment.at.column.saturating_add(clamp(offset - segment.offset)))
            }
            None => Pos::new(self.first_line, 1),
        }
    }

    /// The place of a range of the text.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.pos(range.start);
        if range.end <= range.start {
            return Span::new(start, start);
        }
        let last = self.pos(range.end - 1);
        Span::new(start, Pos::new(last.line, last.column.saturating_add(1)))
    }

    /// The place of the whole text.
    pub(crate) fn whole(&self) -> Span {
        self.span(0..self.text.len())
    }

    /// The physical lines that the text is made of (not comments or blank lines between).
    pub(crate) fn physical_lines(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.iter().map(|s| s.at.line)
    }
}

fn clamp(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Gathers logical lines.
pub(crate) struct Joiner {
    pub(crate) escape: char,
    comments: Vec<String>,
    /// Lines up to this one may be parser directives, which are not comments.
    directive_lines: u32,
}

impl Joiner {
    pub(crate) fn new(escape: char, directive_lines: u32) -> Self {
        Self { escape, comments: Vec::new(), directive_lines }
    }

    /// The next logical line; none at the end of the file.
    pub(crate) fn next(&mut self, lines: &mut Lines<'_>) -> Option<LogicalLine> {
        let (first, indent) = loop {
            let raw = lines.next_line()?;
            let line = without_ending(raw);
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                self.comment(trimmed, lines.number());
            } else if !trimmed.is_empty() {
                break (trimmed, line.len() - trimmed.len());
            }
        };
        let first_line = lines.number();
        let mut joined = LogicalLine {
            text: String::new(),
            first_line,
            last_line: first_line,
            comments: Vec::new(),
            empty_continuation: false,
            segments: Vec::new(),
        };
        let mut continued = self.push(&mut joined, first, first_line, indent);
        while continued {
            let Some(raw) = lines.next_line() else { break };
            let line = without_ending(raw);
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                joined.empty_continuation = true;
                continue;
            }
            continued = self.push(&mut joined, line, lines.number(), 0);
        }
        joined.last_line = lines.number();
        joined.comments = std::mem::take(&mut self.comments);
        Some(joined)
    }

    fn comment(&mut self, line: &str, number: u32) {
        if number <= self.directive_lines {
            return;
        }
        let text = line.strip_prefix('#').unwrap_or(line).trim();
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(text.to_owned());
        }
    }

    /// Appends a physical line without its continuation character; says whether it had one.
    fn push(&self, to: &mut LogicalLine, line: &str, number: u32, indent: usize) -> bool {
        let (text, continued) = match continued_text(line, self.escape) {
            Some(text) => (text, true),
            None => (line, false),
        };
        to.segments.push(Segment { offset: to.text.len(), at: Pos::new(number, clamp(indent).saturating_add(1)) });
        to.text.push_str(text);
        continued
    }
}

/// The text before the continuation character, if the line ends with one. An escape character
/// behind another one does not continue the line, whatever stands before the two.
fn continued_text(line: &str, escape: char) -> Option<&str> {
    let text = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!text.ends_with(escape)).then_some(text)
}

/// A line without its ending, which may be any mix of `\r` and `\n`.
pub(crate) fn without_ending(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(text: &str) -> Vec<LogicalLine> {
        let mut lines = Lines::new(text);
        let mut joiner = Joiner::new('\\', 0);
        std::iter::from_fn(|| joiner.next(&mut lines)).collect()
    }

    #[test]
    fn continuation_keeps_blanks_of_later_lines() {
        let all = join("  RUN a \\\n   b \\ \t\n\n# c\n  # d\n c\nNEXT\n");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].text, "RUN a    b  c");
        assert_eq!((all[0].first_line, all[0].last_line), (1, 6));
        assert!(all[0].empty_continuation);
        assert_eq!(all[0].pos(0), Pos::new(1, 3));
        assert_eq!(all[0].pos(9), Pos::new(2, 4));
        assert_eq!(all[0].pos(12), Pos::new(6, 2));
        assert_eq!(all[1].pos(1), Pos::new(7, 2));
    }

    #[test]
    fn doubled_escape_does_not_continue() {
        assert_eq!(join("RUN a \\\\\nb\n").len(), 2);
        assert_eq!(join("RUN a \\\\\\\nb\n").len(), 2);
        assert_eq!(join("\\\nRUN a").len(), 1);
        assert_eq!(join("RUN a \\").first().map(|l| l.text.as_str()), Some("RUN a "));
    }

    #[test]
    fn comments_belong_to_the_next_instruction() {
        let all = join("# gone\n#\n# a\n\n# b\r\nRUN x\r\nRUN y\r\n");
        assert_eq!(all[0].comments, ["a", "b"]);
        assert_eq!(all[0].text, "RUN x");
        assert!(all[1].comments.is_empty());
    }
}
