//! The output of steps as text: what a terminal would show in the end, without colours.

/// Lines of output. Of a line that was written over (a progress bar) the last version stays; escape sequences (ECMA-48)
/// and other control characters are gone.
pub(super) fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut line = 0;
    let mut chars = text.chars().peekable();
    // Where a carriage return stands what comes next writes over the line.
    let mut over = false;
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                out.push('\n');
                (line, over) = (out.len(), false);
            }
            '\r' => over = true,
            '\x1b' => skip_escape(&mut chars),
            '\t' => push(&mut out, line, &mut over, '\t'),
            c if c.is_control() => {}
            c => push(&mut out, line, &mut over, c),
        }
    }
    out
}

fn push(out: &mut String, line: usize, over: &mut bool, c: char) {
    if std::mem::take(over) {
        out.truncate(line);
    }
    out.push(c);
}

/// Skips the rest of an escape sequence: `[`...letter, `]`...BEL or ESC `\`, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('\x40'..='\x7e').contains(&c)) {},
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// The last `most` bytes, from the begin of a line where there is one.
pub(super) fn tail(text: &str, most: usize) -> (&str, bool) {
    if text.len() <= most {
        return (text, false);
    }
    let from = (text.len() - most..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let rest = text.get(from..).unwrap_or_default();
    let rest = rest.split_once('\n').map_or(rest, |(_, whole)| if whole.is_empty() { rest } else { whole });
    (rest, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows() {
        assert_eq!(readable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;u\x1b\\x\tend\x08\r\n"), "red x\tend\n");
        assert_eq!(readable(b"a\n 10%\r 50%\r100%\nb"), "a\n100%\nb");
        assert_eq!(readable(b" 10%\r"), " 10%");
        assert_eq!(readable(b"\xff\x1b"), "\u{fffd}");
    }

    #[test]
    fn tails_begin_with_a_line() {
        assert_eq!(tail("one\ntwo\nthree\n", 20), ("one\ntwo\nthree\n", false));
        assert_eq!(tail("one\ntwo\nthree\n", 11), ("two\nthree\n", true));
        assert_eq!(tail("one\ntwo\nthree\n", 9), ("three\n", true));
        assert_eq!(tail("äöü", 3), ("ü", true));
        assert_eq!(tail("abcdef\n", 3), ("ef\n", true));
    }
}
