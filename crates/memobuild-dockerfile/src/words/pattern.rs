//! Shell patterns inside `${NAME#pattern}` and `${NAME/pattern/word}`: `*` and `?`, escapes by a
//! backslash, no brackets.

use regex::{NoExpand, Regex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    Star,
    Char(char),
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    /// A backslash may stand before `*`, `?` and itself, and before `/` and `}`, where it only
    /// keeps them from ending the substitution.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '/' | '}')) => Token::Char(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("invalid escape at the end".into()),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// The value without the shortest or longest prefix that matches.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> Result<String, String> {
        let end = self.regex(longest, true)?.find(value).map_or(0, |m| m.end());
        Ok(value[end..].to_owned())
    }

    /// The value without the shortest or longest suffix that matches: the same from behind,
    /// since leftmost matching can't find the shortest match at the right end.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> Result<String, String> {
        let reversed = Self(self.0.iter().rev().copied().collect());
        let value: String = value.chars().rev().collect();
        let trimmed = reversed.trim_prefix(&value, longest)?;
        Ok(trimmed.chars().rev().collect())
    }

    /// The value with the first match, or all, replaced; the longest match counts.
    pub(super) fn replace(&self, value: &str, with: &str, all: bool) -> Result<String, String> {
        let limit = usize::from(!all);
        Ok(self.regex(true, false)?.replacen(value, limit, NoExpand(with)).into_owned())
    }

    fn regex(&self, longest: bool, anchored: bool) -> Result<Regex, String> {
        let mut text = String::from(if anchored { "^" } else { "" });
        for token in &self.0 {
            match token {
                Token::Any => text.push('.'),
                Token::Star => text.push_str(if longest { ".*" } else { ".*?" }),
                Token::Char(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        Regex::new(&text).map_err(|_| "pattern too long".into())
    }
}
