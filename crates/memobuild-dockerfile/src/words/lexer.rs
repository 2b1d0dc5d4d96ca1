//! The lexer proper: one pass over the characters, recursing for `${NAME:-word}` alone.

use std::iter::Peekable;
use std::str::Chars;

use super::pattern::Pattern;
use super::{Env, Expansion, Lexer};

/// Deeper nesting of `${...}` is refused, so that hostile input can't exhaust the stack.
const MAX_DEPTH: usize = 100;

type Result<T> = std::result::Result<T, String>;

pub(super) fn expand(lexer: Lexer, word: &str, env: &dyn Env) -> Result<Expansion> {
    let mut run = Run {
        lexer,
        env,
        chars: word.chars().peekable(),
        raw_escapes: lexer.raw_escapes,
        depth: 0,
        out: Expansion::default(),
    };
    let mut splitter = Splitter::default();
    let text = run.until(None, Some(&mut splitter))?;
    Ok(Expansion { text, words: splitter.finish(), ..run.out })
}

/// Gathers words. Text from variables is split at white space, quoted and escaped text is not.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    word: String,
}

impl Splitter {
    fn split(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Run<'a> {
    lexer: Lexer,
    env: &'a dyn Env,
    chars: Peekable<Chars<'a>>,
    raw_escapes: bool,
    depth: usize,
    /// Only the names that were looked up.
    out: Expansion,
}

impl Run<'_> {
    /// Expands up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, mut words: Option<&mut Splitter>) -> Result<String> {
        let mut result = String::new();
        while let Some(&c) = self.chars.peek() {
            if stop == Some(c) {
                self.chars.next();
                return Ok(result);
            }
            match c {
                '$' => {
                    let text = self.dollar()?;
                    if let Some(words) = &mut words {
                        text.chars().for_each(|c| words.split(c));
                    }
                    result.push_str(&text);
                }
                '<' | '\'' | '"' if c == '<' || !self.lexer.skip_quotes => {
                    let text = match c {
                        '<' => self.less_than(),
                        '\'' => self.single_quoted()?,
                        _ => self.double_quoted()?,
                    };
                    if let Some(words) = &mut words {
                        words.word.push_str(&text);
                    }
                    result.push_str(&text);
                }
                _ if c == self.lexer.escape => {
                    self.chars.next();
                    let kept = self.raw_escapes.then_some(c);
                    for c in kept.into_iter().chain(self.chars.next()) {
                        if let Some(words) = &mut words {
                            words.word.push(c);
                        }
                        result.push(c);
                    }
                }
                _ => {
                    self.chars.next();
                    if let Some(words) = &mut words {
                        words.split(c);
                    }
                    result.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(result),
        }
    }

    /// `<<` and the blanks behind it stay together, so that `<< EOF` is one word.
    fn less_than(&mut self) -> String {
        self.chars.next();
        if self.chars.peek() != Some(&'<') {
            return "<".to_owned();
        }
        self.chars.next();
        let mut text = "<<".to_owned();
        while let Some(c) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
            text.push(c);
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String> {
        let mut result = String::new();
        if let Some(open) = self.chars.next().filter(|_| self.lexer.raw_quotes) {
            result.push(open);
        }
        for c in self.chars.by_ref() {
            if c == '\'' {
                if self.lexer.raw_quotes {
                    result.push(c);
                }
                return Ok(result);
            }
            result.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".into())
    }

    /// Variables are expanded; the escape character works on `"`, `$` and itself only.
    fn double_quoted(&mut self) -> Result<String> {
        let mut result = String::new();
        if let Some(open) = self.chars.next().filter(|_| self.lexer.raw_quotes) {
            result.push(open);
        }
        while let Some(&c) = self.chars.peek() {
            if c == '$' {
                result.push_str(&self.dollar()?);
                continue;
            }
            self.chars.next();
            if c == '"' {
                if self.lexer.raw_quotes {
                    result.push(c);
                }
                return Ok(result);
            }
            if c != self.lexer.escape {
                result.push(c);
                continue;
            }
            if self.raw_escapes {
                result.push(c);
            }
            match self.chars.peek() {
                None => {}
                Some(&next) if next == '"' || next == '$' || next == c => {
                    self.chars.next();
                    result.push(next);
                }
                Some(_) => result.push(c),
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".into())
    }

    /// A reference to a variable.
    fn dollar(&mut self) -> Result<String> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.look_up(&name) {
                None if self.lexer.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.chars.next();
        match self.chars.peek() {
            None => return Err(MISSING_BRACE.into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err(MISSING_BRACE.into()),
            Some('}') => Ok(match self.look_up(&name) {
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.chars.next() {
                None => Err(MISSING_BRACE.into()),
                Some(op @ ('+' | '-' | '?')) => self.conditional(&name, op, true),
                Some(op) => Err(unsupported(&format!(":{op}"))),
            },
            Some(op @ ('+' | '-' | '?')) => self.conditional(&name, op, false),
            Some(op @ ('#' | '%')) => self.trimmed(&name, op),
            Some('/') => self.replaced(&name),
            Some(op) => Err(unsupported(&op.to_string())),
        }
    }

    /// `${NAME-word}`, `${NAME+word}`, `${NAME?word}`; with `:`, an empty value is as none.
    fn conditional(&mut self, name: &str, op: char, colon: bool) -> Result<String> {
        let word = self.nested('}', false, MISSING_BRACE)?;
        let value = self.look_up(name);
        if self.lexer.skip_unset && value.is_none() {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{op}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|v| !(colon && v.is_empty()));
        match (op, value) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let what = match (word.is_empty(), unset) {
                    (false, _) => word,
                    (true, true) => "is not allowed to be unset".into(),
                    (true, false) => "is not allowed to be empty".into(),
                };
                Err(format!("{name}: {what}"))
            }
        }
    }

    /// `${NAME#pattern}`, `${NAME%pattern}`; doubled, the longest match goes.
    fn trimmed(&mut self, name: &str, op: char) -> Result<String> {
        let word = self.nested('}', true, MISSING_BRACE)?;
        let value = self.look_up(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}{op}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (pattern, longest) = match word.strip_prefix(op) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let parsed = pattern_of(pattern)?;
        let trimmed = match op {
            '#' => parsed.trim_prefix(&value, longest),
            _ => parsed.trim_suffix(&value, longest),
        };
        trimmed.map_err(|e| bad_pattern(pattern, &e))
    }

    /// `${NAME/pattern/replacement}`; `//` replaces all.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.nested('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.nested('}', true, MISSING_BRACE)?;
        let value = self.look_up(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        pattern_of(&pattern)?
            .replace(&value.unwrap_or_default(), &replacement, all)
            .map_err(|e| bad_pattern(&pattern, &e))
    }

    /// The word inside `${...}`, up to `stop`.
    fn nested(&mut self, stop: char, raw_escapes: bool, at_end: &str) -> Result<String> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("substitutions nested more than {MAX_DEPTH} deep"));
        }
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let word = self.until(Some(stop), None);
        self.depth -= 1;
        self.raw_escapes = before;
        word.map_err(|e| if self.chars.peek().is_none() { at_end.to_owned() } else { e })
    }

    /// A name: letters, digits and `_`, or digits alone, or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name);
        let seen = match value {
            Some(_) => &mut self.out.matched,
            None => &mut self.out.unmatched,
        };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

const MISSING_BRACE: &str = "syntax error: missing '}'";

fn unsupported(op: &str) -> String {
    format!("unsupported modifier ({op}) in substitution")
}

fn pattern_of(text: &str) -> Result<Pattern> {
    Pattern::parse(text).map_err(|e| bad_pattern(text, &e))
}

fn bad_pattern(pattern: &str, why: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {why}")
}
