//! Cutting an instruction's arguments into words. All functions give byte ranges of the text.

use std::ops::Range;

/// Whether a character separates words in the plain lists (`FROM`, `EXPOSE`, `COPY`, ...).
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// `range` without white space at either end.
pub(crate) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    let end = start + part.trim().len();
    start..end
}

/// Splits at blanks; quotes mean nothing here.
pub(crate) fn split_blanks(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text[range.clone()].char_indices() {
        let at = range.start + at;
        if is_blank(c) {
            words.extend(start.take().map(|start| start..at));
        } else {
            start.get_or_insert(at);
        }
    }
    words.extend(start.map(|start| start..range.end));
    words
}

/// Splits into words that may be quoted or escaped; quotes and escapes stay in. An escape
/// character that ends the text is left out.
pub(crate) fn split_quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut quote: Option<char> = None;
    let mut end = range.end;
    let mut chars = text[range.clone()].char_indices();
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if start.is_none() {
            if c.is_whitespace() {
                continue;
            }
            start = Some(at);
        }
        match quote {
            None if c.is_whitespace() => words.extend(start.take().map(|start| start..at)),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // Whatever the escape character stands before is taken with it.
            _ if c == escape && quote != Some('\'') && chars.next().is_none() => end = at,
            _ => {}
        }
    }
    words.extend(start.filter(|&start| start < end).map(|start| start..end));
    words
}

/// A flag in front of an instruction's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFlag {
    /// Without quotes and escapes.
    pub(crate) text: String,
    /// As it stands.
    pub(crate) range: Range<usize>,
}

/// Takes the `--flags` off the front of `range`; gives them and the start of what remains.
/// A lone `--` ends them.
pub(crate) fn take_flags(text: &str, range: Range<usize>, escape: char) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &text[at..range.end];
        at += rest.len() - rest.trim_start().len();
        if !text[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let (word, length) = flag_word(&text[at..range.end], escape);
        let start = at;
        at += length;
        if word == "--" {
            return (flags, at);
        }
        if !word.is_empty() {
            flags.push(RawFlag { text: word, range: start..at });
        }
    }
}

/// One word with quotes and escapes resolved, and its length in the text.
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, at),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> Vec<&str> {
        split_quoted(text, 0..text.len(), '\\').into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn quotes_and_escapes_join_words() {
        assert_eq!(quoted("a=1 b='x y' c=\"p \\\" q\""), ["a=1", "b='x y'", "c=\"p \\\" q\""]);
        assert_eq!(quoted("a\\ b c"), ["a\\ b", "c"]);
        assert_eq!(quoted("'a\\' b"), ["'a\\'", "b"]);
        assert_eq!(quoted("\"a b"), ["\"a b"]);
        assert_eq!(quoted("  a\\"), ["a"]);
        assert_eq!(quoted("a \\"), ["a"]);
        assert!(quoted("   ").is_empty());
    }

    #[test]
    fn blanks_split_without_quotes() {
        let text = "a\t 'b c'";
        let words: Vec<&str> = split_blanks(text, 0..text.len()).into_iter().map(|r| &text[r]).collect();
        assert_eq!(words, ["a", "'b", "c'"]);
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        let text = "--a=1  --b='x y'\\ z --c cmd --d";
        let (flags, rest) = take_flags(text, 0..text.len(), '\\');
        let names: Vec<&str> = flags.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(names, ["--a=1", "--b=x y z", "--c"]);
        assert_eq!(&text[rest..], "cmd --d");
        assert_eq!(&text[flags[1].range.clone()], "--b='x y'\\ z");
        let (flags, rest) = take_flags("--a -- --b", 0..10, '\\');
        assert_eq!((flags.len(), rest), (1, 6));
    }
}
