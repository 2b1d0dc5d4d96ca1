//! `--flags` of an instruction: which exist, which may repeat, what values they take.

use crate::ast::Word;
use crate::diagnostic::nearest;
use crate::span::{Pos, Span};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `--x`, `--x=true`, `--x=false`
    Bool,
    /// `--x=value`, once
    Text,
    /// `--x=value`, any number of times
    List,
}

/// The flags of one instruction, read against the list of those that exist.
#[derive(Debug)]
pub(crate) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    /// # Errors
    /// The first flag that is unknown, repeated or has no proper value.
    pub(crate) fn read(words: &[Word], known: &[(&'static str, Takes)]) -> Result<Self, (String, Span)> {
        let mut flags = Self { given: Vec::new() };
        for word in words {
            let (name, value) = match word.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let bare = name.strip_prefix("--").unwrap_or(name);
            let Some(&(known_name, takes)) = known.iter().find(|(k, _)| *k == bare) else {
                let hint = nearest(bare, known.iter().map(|(k, _)| *k), false)
                    .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
                return Err((format!("unknown flag: {name}{hint}"), word.span));
            };
            if takes != Takes::List && flags.get(known_name).is_some() {
                return Err((format!("duplicate flag specified: {name}"), word.span));
            }
            let missing = match takes {
                Takes::Bool => value == Some(""),
                Takes::Text | Takes::List => value.is_none(),
            };
            if missing {
                return Err((format!("missing a value on flag: {name}"), word.span));
            }
            let value = value.unwrap_or("true");
            if takes == Takes::Bool && !["true", "false"].contains(&value.to_lowercase().as_str()) {
                let message = format!("expecting boolean value for flag {name}, not: {value}");
                return Err((message, word.span));
            }
            flags.given.push((known_name, Word::new(value, value_span(word.span, name))));
        }
        Ok(flags)
    }

    /// The value of a flag, if it was given.
    pub(crate) fn get(&self, name: &str) -> Option<&Word> {
        self.given.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The value of a flag; none if it was not given or is empty.
    pub(crate) fn text(&self, name: &str) -> Option<Word> {
        self.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// A boolean flag, if it was given.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value.eq_ignore_ascii_case("true"))
    }

    /// All values of a flag that may repeat.
    pub(crate) fn list(&self, name: &str) -> Vec<Word> {
        let all = self.given.iter().filter(|(n, _)| *n == name);
        all.map(|(_, value)| value.clone()).collect()
    }
}

/// The place behind `--name=`, if the flag stands on one line.
fn value_span(flag: Span, name: &str) -> Span {
    let skip = u32::try_from(name.len() + 1).unwrap_or(0);
    let start = Pos::new(flag.start.line, flag.start.column.saturating_add(skip));
    if start < flag.end && flag.start.line == flag.end.line { Span::new(start, flag.end) } else { flag }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Takes)] = &[("from", Takes::Text), ("link", Takes::Bool), ("exclude", Takes::List)];

    fn read(words: &[&str]) -> Result<Flags, String> {
        let span = Span::new(Pos::new(1, 6), Pos::new(1, 60));
        let words: Vec<Word> = words.iter().map(|w| Word::new(*w, span)).collect();
        Flags::read(&words, KNOWN).map_err(|(message, _)| message)
    }

    #[test]
    fn values() {
        let flags = read(&["--from=a=b", "--link", "--exclude=x", "--exclude="]).unwrap();
        assert_eq!(flags.text("from").unwrap().as_str(), "a=b");
        assert_eq!(flags.text("from").unwrap().span.start.column, 13);
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.list("exclude").len(), 2);
        assert_eq!(read(&["--link=False"]).unwrap().bool("link"), Some(false));
        assert_eq!(read(&[]).unwrap().bool("link"), None);
        assert_eq!(read(&["--from="]).unwrap().text("from"), None);
    }

    #[test]
    fn errors() {
        for (words, want) in [
            (&["--frm=a"][..], "unknown flag: --frm (did you mean from?)"),
            (&["--x"], "unknown flag: --x"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=yes"], "expecting boolean value for flag --link, not: yes"),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from"),
        ] {
            assert_eq!(read(words).unwrap_err(), want);
        }
    }
}
