//! `FROM`

use super::{Problem, Result, arguments_span, doc_comment, origin};
use crate::ast::{Stage, Word};
use crate::flags::{Flags, Takes};
use crate::raw::{Body, RawInstruction};

/// A stage without instructions yet.
pub(crate) fn stage(raw: &RawInstruction) -> Result<Stage> {
    let words = match &raw.head.body {
        Body::Words { words, .. } => words.as_slice(),
        _ => &[],
    };
    let (base, named) = match words {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some((keyword, name))),
        _ => {
            let message = "FROM requires either one or three arguments";
            return Err(
                Problem::new(message, arguments_span(&raw.head)).expected("FROM [--platform=PLATFORM] IMAGE [AS NAME]")
            );
        }
    };
    let name = named.map(|(_, name)| lower_name(name)).transpose()?;
    let flags = Flags::read(&raw.head.flags, &[("platform", Takes::Text)])?;
    Ok(Stage {
        doc: name.as_ref().and_then(|name| doc_comment(&raw.line.comments, name)),
        origin: origin(raw),
        name,
        as_keyword: named.map(|(keyword, _)| keyword.clone()),
        name_as_written: named.map(|(_, name)| name.text.clone()),
        base: base.clone(),
        platform: flags.text("platform"),
        instructions: Vec::new(),
    })
}

/// Stage names are looked up without regard to case: they are kept in lower case.
fn lower_name(name: &Word) -> Result<Word> {
    let lower = name.to_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if valid {
        return Ok(Word::new(lower, name.span));
    }
    Err(Problem::new(
        format!("invalid name for build stage: {:?}, name can't start with a number or contain symbols", name.as_str()),
        name.span,
    )
    .expected("a letter, then letters, digits, `-`, `_` or `.`"))
}
