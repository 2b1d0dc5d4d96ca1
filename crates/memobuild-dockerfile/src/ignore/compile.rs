//! One ignore pattern, compiled: plain comparisons where they do, else a regular expression.

use regex::{Regex, RegexBuilder};

use super::gomatch::{Token, matches};

/// A pattern without its `!`.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    kind: Kind,
    /// Components in front of the first one that may match across slashes.
    plain: Vec<Vec<Token>>,
    /// Whether there is such a component.
    deep: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Exact(String),
    Prefix(String),
    /// Text behind a leading `**`; with a leading slash also without it.
    Suffix(String),
    Regex(Regex),
}

impl Compiled {
    /// None: the pattern is malformed or too long.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let kind = kind(pattern)?;
        let mut plain = Vec::new();
        let mut deep = false;
        for component in pattern.split('/') {
            // A negated class matches a slash too.
            let tokens = Token::parse_all(component.as_bytes()).ok();
            let negated = |tokens: &Vec<Token>| tokens.iter().any(|t| matches!(t, Token::Class(true, _)));
            match tokens {
                Some(tokens) if !component.contains("**") && !negated(&tokens) => plain.push(tokens),
                _ => {
                    deep = true;
                    break;
                }
            }
        }
        Some(Self { kind, plain, deep })
    }

    pub(super) fn is_match(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact(text) => path == text,
            Kind::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Kind::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Kind::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether a path below `dir` may match. Never false when one does.
    pub(super) fn may_match_below(&self, dir: &str) -> bool {
        let mut parts = dir.split('/');
        for tokens in &self.plain {
            match parts.next() {
                Some(part) if !matches(tokens, part.as_bytes()) => return false,
                Some(_) => {}
                None => return true,
            }
        }
        // Without `**` a pattern has no components left for what is below.
        self.deep
    }
}

/// moby's translation. What kind it ends up as matters: `a**` is a prefix, `**a` a suffix.
fn kind(pattern: &str) -> Option<Kind> {
    let mut regex = String::from("^");
    let mut detected = Detected::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    // Any number of whole components, none included.
                    regex.push_str("(?:.*/)?");
                    detected = Detected::Regex;
                } else if detected == Detected::Exact {
                    detected = Detected::Prefix;
                } else {
                    regex.push_str(".*");
                    detected = Detected::Regex;
                }
                if first {
                    detected = Detected::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                detected = Detected::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                detected = Detected::Regex;
            }
            '[' => {
                class(&mut chars, &mut regex)?;
                detected = Detected::Regex;
            }
            '\\' => match chars.next() {
                Some(c) => {
                    literal(c, &mut regex);
                    detected = Detected::Regex;
                }
                None => literal('\\', &mut regex),
            },
            c => literal(c, &mut regex),
        }
        first = false;
    }
    let whole = pattern.to_owned();
    Some(match detected {
        Detected::Exact => Kind::Exact(whole),
        Detected::Prefix => Kind::Prefix(whole.strip_suffix("**")?.to_owned()),
        Detected::Suffix => Kind::Suffix(whole.strip_prefix("**")?.to_owned()),
        Detected::Regex => {
            regex.push('$');
            let built = RegexBuilder::new(&regex).build().ok()?;
            Kind::Regex(built)
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Detected {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

fn literal(c: char, regex: &mut String) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// A class, spelled in code points so that nothing in it means more than in Go's.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, regex: &mut String) -> Option<()> {
    regex.push('[');
    if chars.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    let mut first = true;
    loop {
        let low = match chars.next()? {
            ']' if !first => break,
            '\\' => chars.next()?,
            c => c,
        };
        first = false;
        let mut high = low;
        if chars.next_if_eq(&'-').is_some() {
            high = match chars.next()? {
                '\\' => chars.next()?,
                c => c,
            };
        }
        if low > high {
            return None;
        }
        regex.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high)));
    }
    regex.push(']');
    Some(())
}
