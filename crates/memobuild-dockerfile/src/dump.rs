//! A plain listing of a Dockerfile's instructions, for comparing this parser with others.
//!
//! It shows the state after cutting and before typing, so that files which use unknown
//! instructions or wrong arguments can be compared too. Nothing builds from it.

use crate::ast::Heredoc;
use crate::diagnostic::ParseError;
use crate::parse::Reader;
use crate::raw::{Body, Head};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Name in lower case.
    pub cmd: String,
    /// The trigger's name in lower case, for `ONBUILD`.
    pub sub_cmd: Option<String>,
    /// Whether the arguments (the trigger's, for `ONBUILD`) are an exec form.
    pub json: bool,
    /// The joined line, without heredocs.
    pub original: String,
    /// First line, from 1.
    pub start_line: u32,
    /// Last line, heredocs included.
    pub end_line: u32,
    /// Flags, quotes taken off; a trigger's own flags are not in it.
    pub flags: Vec<String>,
    /// Arguments; for pairs, names and values in turn.
    pub value: Vec<String>,
    /// Heredocs: name, file descriptor, content as written.
    pub heredocs: Vec<(String, u64, String)>,
}

/// Lists the instructions of a text.
///
/// # Errors
/// As [`crate::parse`], save for errors of single instructions' arguments and flags.
pub fn dump(text: &[u8], file: &str) -> Result<Vec<Dumped>, ParseError> {
    let mut reader = Reader::new(text, file)?;
    let mut all = Vec::new();
    while let Some(raw) = reader.next()? {
        let trigger = match &raw.head.body {
            Body::Trigger(Some(trigger)) => Some(&**trigger),
            _ => None,
        };
        let head = trigger.unwrap_or(&raw.head);
        all.push(Dumped {
            cmd: raw.head.keyword(),
            sub_cmd: trigger.map(Head::keyword),
            json: head.is_json(),
            original: raw.line.text.clone(),
            start_line: raw.line.first_line,
            end_line: raw.last_line,
            flags: raw.head.flags.iter().map(|w| w.text.clone()).collect(),
            value: value(head, trigger.is_some()),
            heredocs: raw.heredocs.iter().map(heredoc).collect(),
        });
    }
    if all.is_empty() {
        return Err(reader.no_instructions());
    }
    Ok(all)
}

fn heredoc(doc: &Heredoc) -> (String, u64, String) {
    (doc.name.clone(), doc.fd, doc.content.clone())
}

fn value(head: &Head, is_trigger: bool) -> Vec<String> {
    match &head.body {
        Body::Words { words, .. } => words.iter().map(|w| w.text.clone()).collect(),
        Body::Pairs(pairs) => pairs.iter().flat_map(|pair| [pair.key.text.clone(), pair.value.text.clone()]).collect(),
        Body::Trigger(_) if !is_trigger => Vec::new(),
        // One empty argument: what they hold stands elsewhere, or nowhere.
        Body::Trigger(_) | Body::Unknown => vec![String::new()],
    }
}
