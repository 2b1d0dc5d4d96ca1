//! JSON arrays of strings, as exec forms have them.
//!
//! It accepts and refuses exactly what Go's `encoding/json` does, because an array that is not
//! valid JSON is no error but a shell form. It does not recurse: nesting is a counter.

use std::ops::Range;

/// What a text that should be an array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// An array of strings: each with its source range, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// Valid JSON, but something in it is not a string; its source range.
    Others(Range<usize>),
    /// No valid JSON array.
    Malformed,
}

/// Go refuses deeper nesting.
const MAX_DEPTH: usize = 10_000;

/// Reads a text.
pub(crate) fn parse(text: &str) -> Json {
    let start = text.len() - text.trim_start().len();
    if !text[start..].starts_with('[') {
        return Json::Malformed;
    }
    let mut reader = Reader { bytes: text.as_bytes(), text, at: start };
    reader.document().unwrap_or(Json::Malformed)
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Option<Json> {
        self.at += 1;
        let mut strings = Vec::new();
        let mut other = None;
        self.blanks();
        if !self.eat(b']') {
            loop {
                self.blanks();
                let start = self.at;
                if self.peek() == Some(b'"') {
                    let value = self.string()?;
                    strings.push((value, start..self.at));
                } else {
                    self.value()?;
                    other.get_or_insert(start..self.at);
                }
                self.blanks();
                if self.eat(b',') {
                    continue;
                }
                if self.eat(b']') {
                    break;
                }
                return None;
            }
        }
        self.blanks();
        if self.at != self.bytes.len() {
            return None;
        }
        Some(match other {
            Some(range) => Json::Others(range),
            None => Json::Strings(strings),
        })
    }

    /// Steps over any value.
    fn value(&mut self) -> Option<()> {
        // One entry per open bracket: whether it is an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                b'[' => {
                    self.at += 1;
                    open.push(false);
                    // The outermost array counts too.
                    if open.len() + 1 > MAX_DEPTH {
                        return None;
                    }
                    self.blanks();
                    if !self.eat(b']') {
                        continue;
                    }
                    open.pop();
                }
                b'{' => {
                    self.at += 1;
                    open.push(true);
                    if open.len() + 1 > MAX_DEPTH {
                        return None;
                    }
                    self.blanks();
                    if !self.eat(b'}') {
                        self.key()?;
                        continue;
                    }
                    open.pop();
                }
                b'"' => {
                    self.string()?;
                }
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // A value has ended: close what it closes.
            loop {
                let Some(&object) = open.last() else {
                    return Some(());
                };
                self.blanks();
                if self.eat(b',') {
                    if object {
                        self.blanks();
                        self.key()?;
                    }
                    break;
                }
                if !self.eat(if object { b'}' } else { b']' }) {
                    return None;
                }
                open.pop();
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.blanks();
        self.eat(b':').then_some(())
    }

    fn string(&mut self) -> Option<String> {
        if !self.eat(b'"') {
            return None;
        }
        let mut value = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            value.push_str(self.text.get(start..self.at)?);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(value);
                }
                b'\\' => {
                    self.at += 1;
                    value.push(self.escape()?);
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.peek()?;
        let plain = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return None,
        };
        self.at += 1;
        Some(plain)
    }

    /// The digits of `\u`; a lone surrogate becomes the replacement character, as in Go.
    fn unicode(&mut self) -> Option<char> {
        let high = self.hex4()?;
        if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code);
            }
            self.at = before;
        }
        Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        let mut code = 0;
        for &digit in digits {
            code = code * 16 + char::from(digit).to_digit(16)?;
        }
        self.at += 4;
        Some(code)
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        // Go refuses what does not fit a float64.
        let value: f64 = self.text.get(start..self.at)?.parse().ok()?;
        value.is_finite().then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let end = self.at + word.len();
        (self.bytes.get(self.at..end) == Some(word.as_bytes())).then(|| self.at = end)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Vec<String> {
        match parse(text) {
            Json::Strings(all) => all.into_iter().map(|(s, _)| s).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn arrays_of_strings() {
        assert!(strings("[]").is_empty());
        assert!(strings(" [ ] ").is_empty());
        assert_eq!(strings(r#"["a","b c"]"#), ["a", "b c"]);
        assert_eq!(strings("[ \"a\" ,\t\"\" ]"), ["a", ""]);
        assert_eq!(strings(r#"["\n\"\\\/\u00e9\ud83d\ude00"]"#), ["\n\"\\/é😀"]);
        assert_eq!(strings(r#"["\ud83d","\ud83dx","\ud83d\u0041"]"#), ["\u{fffd}", "\u{fffd}x", "\u{fffd}A"]);
    }

    #[test]
    fn ranges_cover_the_quotes() {
        assert_eq!(parse(r#"  ["a", "bc"]"#), Json::Strings(vec![("a".into(), 3..6), ("bc".into(), 8..12)]));
    }

    #[test]
    fn other_values_are_an_error() {
        for text in ["[1]", "[null]", "[\"a\", true]", "[[]]", "[{\"a\":[1,{}]}]", "[-0.5e+3]"] {
            assert!(matches!(parse(text), Json::Others(_)), "{text}");
        }
    }

    #[test]
    fn malformed_is_no_json() {
        for text in [
            "",
            "a",
            "{}",
            "[",
            "[\"a\"",
            "[\"a]",
            "['a']",
            "[\"a\",]",
            "[,]",
            "[\"a\"] x",
            "[\"\\x\"]",
            "[\"\\u12g4\"]",
            "[01]",
            "[1.]",
            "[1e999]",
            "[\"a\tb\"]",
            "[\"a\" \"b\"]",
            "[{1:2}]",
            "[tru]",
            "\"a\"",
        ] {
            assert!(matches!(parse(text), Json::Malformed), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = "[".repeat(1_000_000);
        assert!(matches!(parse(&deep), Json::Malformed));
        let balanced = format!("{}{}", "[".repeat(10_001), "]".repeat(10_001));
        assert!(matches!(parse(&balanced), Json::Malformed));
        let allowed = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(parse(&allowed), Json::Others(_)));
    }
}
