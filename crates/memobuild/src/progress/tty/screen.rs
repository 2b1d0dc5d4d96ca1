//! Puts lines over those drawn before, with as few bytes and as little flicker as ANSI allows. Pure: gives bytes.

use super::frame::Line;

/// What stands on the terminal from us.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Width of each line drawn last. The cursor stands below them.
    widths: Vec<usize>,
}

impl Screen {
    /// The bytes that turn the last drawing into this one on a terminal of that many columns. When the terminal became
    /// narrower since, old lines take several rows each.
    pub(super) fn replace(&mut self, lines: Vec<Line>, columns: usize) -> Vec<u8> {
        let columns = columns.max(1);
        let rows: usize = self.widths.iter().map(|w| w.div_ceil(columns).max(1)).sum();
        let mut out = Vec::new();
        if rows > 0 {
            out.extend_from_slice(format!("\x1b[{rows}A\r").as_bytes());
        }
        self.widths.clear();
        for line in lines {
            out.extend_from_slice(line.text.as_bytes());
            out.extend_from_slice(b"\x1b[K\r\n");
            self.widths.push(line.width);
        }
        // What was drawn below the last line.
        out.extend_from_slice(b"\x1b[J");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { text: text.into(), width: text.len() }
    }

    #[test]
    fn old_rows_are_counted_at_the_new_width() {
        let mut screen = Screen::default();
        assert_eq!(screen.replace(vec![line("12345678"), line("")], 10), b"12345678\x1b[K\r\n\x1b[K\r\n\x1b[J");
        // Eight columns of text need three rows of three columns; the empty line one.
        assert_eq!(screen.replace(vec![line("ab")], 3), b"\x1b[4A\rab\x1b[K\r\n\x1b[J");
        assert_eq!(screen.replace(Vec::new(), 3), b"\x1b[1A\r\x1b[J");
        assert_eq!(screen.replace(vec![line("x")], 0), b"x\x1b[K\r\n\x1b[J");
    }
}
