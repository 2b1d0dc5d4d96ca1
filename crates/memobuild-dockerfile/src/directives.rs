//! Parser directives: `# syntax=`, `# escape=` and `# check=` at the very top of a file.

use crate::lines::{Lines, without_ending};
use crate::span::{Pos, Span};

/// One directive as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// In lower case.
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) span: Span,
}

/// The directives of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) all: Vec<Directive>,
    /// Lines 1 to this one are directives (or a `#!` line), not comments.
    pub(crate) last_line: u32,
    /// A directive that stands a second time.
    pub(crate) repeated: Option<Directive>,
}

impl Found {
    pub(crate) fn get(&self, name: &str) -> Option<&Directive> {
        self.all.iter().find(|d| d.name == name)
    }
}

/// Reads the directives of a text whose byte order mark is already gone. The first line that is
/// not a directive ends them. Behind a `#!` line `escape` has no effect, as in BuildKit.
pub(crate) fn scan(text: &str) -> Found {
    let mut found = Found::default();
    let mut lines = Lines::new(text);
    let mut shebang = false;
    while let Some(raw) = lines.next_line() {
        let line = without_ending(raw);
        if lines.number() == 1 && line.starts_with("#!") {
            shebang = true;
            found.last_line = 1;
            continue;
        }
        let Some(directive) = directive(line, lines.number()) else {
            break;
        };
        found.last_line = lines.number();
        if found.get(directive.name).is_some() {
            found.repeated = Some(directive);
            break;
        }
        if !(shebang && directive.name == "escape") {
            found.all.push(directive);
        }
    }
    found
}

fn directive(line: &str, number: u32) -> Option<Directive> {
    let comment = line.trim_start().strip_prefix('#')?.trim_start();
    let (key, value) = key_value(comment)?;
    let name = ["syntax", "escape", "check"].into_iter().find(|name| key.eq_ignore_ascii_case(name))?;
    let column = |part: &str| {
        let offset = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        u32::try_from(offset).unwrap_or(u32::MAX).saturating_add(1)
    };
    let start = column(value);
    let end = start.saturating_add(u32::try_from(value.len()).unwrap_or(u32::MAX));
    Some(Directive { name, value: value.to_owned(), span: Span::new(Pos::new(number, start), Pos::new(number, end)) })
}

/// Splits `key = value`; the key is a letter followed by letters and digits, the value not empty.
pub(crate) fn key_value(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim_end(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&'static str, String)> {
        scan(text).all.into_iter().map(|d| (d.name, d.value)).collect()
    }

    #[test]
    fn reads_all_three_in_any_order_and_case() {
        let found = scan("# Syntax = docker/dockerfile:1 \n#escape=`\n# check=skip=all;error=true\nFROM x");
        assert_eq!(found.last_line, 3);
        assert_eq!(found.get("syntax").unwrap().value, "docker/dockerfile:1");
        assert_eq!(found.get("syntax").unwrap().span.start, Pos::new(1, 12));
        assert_eq!(found.get("escape").unwrap().value, "`");
        assert_eq!(found.get("check").unwrap().value, "skip=all;error=true");
    }

    #[test]
    fn anything_else_ends_them() {
        assert!(pairs("\n# escape=`").is_empty());
        assert!(pairs("# hello\n# escape=`").is_empty());
        assert!(pairs("# other=1\n# escape=`").is_empty());
        assert!(pairs("FROM a\n# escape=`").is_empty());
        assert_eq!(pairs("# syntax=a\n\n# escape=`").len(), 1);
    }

    #[test]
    fn shebang_is_stepped_over() {
        assert_eq!(pairs("#!/usr/bin/env x\n# check=skip=all\n# escape=`").len(), 1);
    }

    #[test]
    fn repetition_is_noticed() {
        assert_eq!(scan("# escape=`\n# escape=`").repeated.unwrap().span.first_line(), 2);
    }
}
