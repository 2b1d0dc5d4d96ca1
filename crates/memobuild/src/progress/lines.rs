//! A step's output, cut at lines.

/// Longer lines are cut into pieces of this size, so that a line of a gigabyte needs no gigabyte.
const LONGEST: usize = 16 * 1024;

/// Collects bytes until a line is whole.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes; gives the lines that are whole now, without their line ends.
    pub(super) fn push(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.push(trimmed(std::mem::take(&mut self.rest)));
            }
            while self.rest.len() > LONGEST {
                let tail = self.rest.split_off(LONGEST);
                lines.push(std::mem::replace(&mut self.rest, tail));
            }
        }
        lines
    }

    /// The last line, if it has no line end.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| trimmed(rest))
    }

    /// The line that is being written: what a terminal would show of it.
    pub(super) fn partial(&self) -> &[u8] {
        &self.rest
    }
}

fn trimmed(mut line: Vec<u8>) -> Vec<u8> {
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    line
}

/// A line as a live display can show it: what stands behind the last carriage return, without escape sequences and
/// control characters, tabs as blanks.
pub(super) fn printable(line: &[u8]) -> String {
    let shown = line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or_default();
    let text = String::from_utf8_lossy(shown);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips the rest of an escape sequence (ECMA-48): `[`...letter, `]`...BEL or ESC `\`, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('\x40'..='\x7e').contains(&c)) {},
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' {
                    return;
                }
                if c == '\x1b' {
                    chars.next_if_eq(&'\\');
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let mut splitter = LineSplitter::default();
        assert!(splitter.push(b"on").is_empty());
        assert_eq!(splitter.partial(), b"on");
        assert_eq!(splitter.push(b"e\r\ntwo\n\nthr"), [b"one".to_vec(), b"two".to_vec(), Vec::new()]);
        assert_eq!(splitter.finish(), Some(b"thr".to_vec()));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut splitter = LineSplitter::default();
        let mut bytes = 0;
        for _ in 0..100 {
            bytes += splitter.push(&[b'x'; 5000]).iter().map(Vec::len).sum::<usize>();
            assert!(splitter.partial().len() <= LONGEST);
        }
        assert_eq!(bytes + splitter.finish().map_or(0, |l| l.len()), 500_000);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_left_out() {
        assert_eq!(printable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;u\x1b\\x\tend\x08"), "red x    end");
        assert_eq!(printable(b" 10%\r 50%\r"), " 50%");
        assert_eq!(printable(b"\xff\x1b"), "\u{fffd}");
        assert_eq!(printable(b""), "");
    }
}
