//! Go's `filepath.Match`, and its `**` variant for `COPY --parents`.

/// A pattern that is not well-formed. Displays as Go words it, with the pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
}

impl BadPattern {
    pub(super) fn new(pattern: &[u8]) -> Self {
        Self { pattern: String::from_utf8_lossy(pattern).into_owned() }
    }
}

/// Go's `filepath.Match` for slash-separated names: `*` and `?` stop at `/`, `[a-z]`, `[^a]`,
/// backslash escapes; the whole name must match. `COPY` without `--parents` uses it, where `**`
/// means no more than `*`. Time is at most the product of the lengths.
///
/// # Errors
/// The pattern is malformed, whether or not the name needed all of it.
pub fn gomatch(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let tokens = Token::parse_all(pattern)?;
    Ok(matches(&tokens, name))
}

/// As [`gomatch`], and a component `**` matches any number of components, none included.
///
/// # Errors
/// The pattern is malformed.
pub fn gomatch_deep(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let mut parts = Vec::new();
    for component in pattern.split(|&b| b == b'/') {
        parts.push(match component {
            b"**" => None,
            component => Some(Token::parse_all(component)?),
        });
    }
    let names: Vec<&[u8]> = name.split(|&b| b == b'/').collect();
    // Greedy with one point to fall back to: the last `**` that was met.
    let (mut p, mut n) = (0, 0);
    let mut fall_back: Option<(usize, usize)> = None;
    while let Some(component) = names.get(n) {
        let step = match parts.get(p) {
            Some(None) => {
                fall_back = Some((p, n));
                p += 1;
                continue;
            }
            Some(Some(tokens)) => matches(tokens, component),
            None => false,
        };
        if step {
            p += 1;
            n += 1;
        } else if let Some((star, from)) = fall_back {
            fall_back = Some((star, from + 1));
            p = star + 1;
            n = from + 1;
        } else {
            return Ok(false);
        }
    }
    Ok(parts.get(p..).is_some_and(|rest| rest.iter().all(Option::is_none)))
}

/// One element of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `*`
    Star,
    /// `?`
    Any,
    /// A character or a byte that is no part of one.
    Literal(u32),
    /// `[...]`: negated, ranges.
    Class(bool, Vec<(u32, u32)>),
}

impl Token {
    /// # Errors
    /// An open or empty class, a bare `-` in one, or a backslash at the end.
    pub(super) fn parse_all(pattern: &[u8]) -> Result<Vec<Self>, BadPattern> {
        let mut rest = pattern;
        let mut tokens = Vec::new();
        while let Some((&byte, after)) = rest.split_first() {
            let token = match byte {
                b'*' => {
                    rest = after;
                    // Several stars in a row match no more than one does.
                    if tokens.last() == Some(&Token::Star) {
                        continue;
                    }
                    Some(Token::Star)
                }
                b'?' => {
                    rest = after;
                    Some(Token::Any)
                }
                b'[' => {
                    rest = after;
                    class(&mut rest)
                }
                b'\\' if after.is_empty() => None,
                b'\\' => {
                    rest = after;
                    take(&mut rest).map(Token::Literal)
                }
                _ => take(&mut rest).map(Token::Literal),
            };
            tokens.push(token.ok_or_else(|| BadPattern::new(pattern))?);
        }
        Ok(tokens)
    }
}

/// The inside of a class, its closing bracket included.
fn class(rest: &mut &[u8]) -> Option<Token> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = rest.get(1..)?;
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            *rest = rest.get(1..)?;
            return Some(Token::Class(negated, ranges));
        }
        let low = class_char(rest)?;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            *rest = rest.get(1..)?;
            high = class_char(rest)?;
        }
        ranges.push((low, high));
    }
}

fn class_char(rest: &mut &[u8]) -> Option<u32> {
    match rest.first()? {
        b'-' | b']' => return None,
        b'\\' => *rest = rest.get(1..)?,
        _ => {}
    }
    let c = take(rest)?;
    // Go wants at least the closing bracket to follow, and refuses broken UTF-8 here.
    (!rest.is_empty() && c < BROKEN).then_some(c)
}

/// Bytes that are no UTF-8 are told apart from characters by this offset.
const BROKEN: u32 = 0x11_0000;

/// Takes one character, or one byte if it is not valid UTF-8.
fn take(rest: &mut &[u8]) -> Option<u32> {
    let (&first, after) = rest.split_first()?;
    let length = match first {
        0..=0x7f => {
            *rest = after;
            return Some(u32::from(first));
        }
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let decoded =
        rest.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|text| text.chars().next());
    Some(match decoded {
        Some(c) => {
            *rest = rest.get(length..)?;
            u32::from(c)
        }
        None => {
            *rest = after;
            BROKEN + u32::from(first)
        }
    })
}

/// Whether a whole name matches. Only the last star met is ever tried again: what matched before
/// it stays matched.
pub(super) fn matches(tokens: &[Token], name: &[u8]) -> bool {
    let mut rest = name;
    let mut t = 0;
    let mut fall_back: Option<(usize, &[u8])> = None;
    loop {
        match tokens.get(t) {
            None if rest.is_empty() => return true,
            Some(Token::Star) => {
                fall_back = Some((t, rest));
                t += 1;
                continue;
            }
            Some(token) => {
                let mut after = rest;
                if take(&mut after).is_some_and(|c| accepts(token, c)) {
                    rest = after;
                    t += 1;
                    continue;
                }
            }
            None => {}
        }
        // The last star takes one character more, if it may.
        let Some((star, mut from)) = fall_back else {
            return false;
        };
        match take(&mut from) {
            Some(c) if c != u32::from(b'/') => {
                fall_back = Some((star, from));
                rest = from;
                t = star + 1;
            }
            _ => return false,
        }
    }
}

fn accepts(token: &Token, c: u32) -> bool {
    match token {
        Token::Star => false,
        Token::Any => c != u32::from(b'/'),
        Token::Literal(wanted) => *wanted == c,
        Token::Class(negated, ranges) => ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn m(pattern: &str, name: &str) -> Option<bool> {
        gomatch(pattern.as_bytes(), name.as_bytes()).ok()
    }

    #[test]
    fn go_table() {
        // The published table of Go's own test, condensed.
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("**", "a/b", false),
            ("d/**/*.txt", "d/sub/c.txt", true),
            ("d/**/*.txt", "d/a.txt", false),
            ("", "", true),
        ] {
            assert_eq!(m(pattern, name), Some(want), "{pattern} {name}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a-", "x[]"] {
            assert_eq!(m(bad, "zzz"), None, "{bad}");
        }
        assert_eq!(gomatch(b"?", b"\xff"), Ok(true));
        assert_eq!(gomatch(b"\xff", b"\xff"), Ok(true));
        assert_eq!(gomatch(b"\xff", b"\xfe"), Ok(false));
    }

    #[test]
    fn deep() {
        let d = |pattern: &str, name: &str| gomatch_deep(pattern.as_bytes(), name.as_bytes()).unwrap();
        assert!(d("**", "a/b"));
        assert!(d("**/*.txt", "a.txt"));
        assert!(d("a/**/b", "a/b"));
        assert!(d("a/**/b", "a/x/y/b"));
        assert!(!d("a/**/b", "a/x/y/c"));
        assert!(d("**/a/**/b", "x/a/y/b/z/b"));
        assert!(!d("a/*", "a/b/c"));
        assert!(gomatch_deep(b"**/[", b"").is_err());
    }

    #[test]
    fn many_stars_are_no_trouble() {
        let pattern = "*a".repeat(200);
        let name = "a".repeat(10_000) + "b";
        assert_eq!(m(&pattern, &name), Some(false));
        let deep = "**/a/".repeat(200) + "c";
        assert!(!gomatch_deep(deep.as_bytes(), "a/".repeat(5_000).as_bytes()).unwrap());
    }

    proptest! {
        #[test]
        fn never_panics(pattern in proptest::collection::vec(any::<u8>(), 0..20), name in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = gomatch(&pattern, &name);
            let _ = gomatch_deep(&pattern, &name);
        }

        #[test]
        fn special_bytes_never_panic(pattern in r"[ab*?\[\]^\\/-]{0,12}", name in "[ab/]{0,12}") {
            let _ = gomatch(pattern.as_bytes(), name.as_bytes());
            let _ = gomatch_deep(pattern.as_bytes(), name.as_bytes());
        }
    }
}
