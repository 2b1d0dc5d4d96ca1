//! The second of two steps from text to syntax tree: from cut-up words to typed instructions.
//! Which arguments and flags an instruction takes is decided here, in BuildKit's words.

mod command;
mod config;
mod copy;
mod from;

pub(crate) use from::stage;

use crate::ast::{Arg, ArgDecl, Env, Expose, Kind, Label, Onbuild, Origin, Word};
use crate::diagnostic::nearest;
use crate::flags::Flags;
use crate::raw::{Body, Head, RawInstruction};
use crate::span::{Pos, Span};

/// What is wrong with an instruction, where, and what would have been right.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) span: Span,
    pub(crate) expected: Option<String>,
}

impl From<(String, Span)> for Problem {
    fn from((message, span): (String, Span)) -> Self {
        Self { message, span, expected: None }
    }
}

impl Problem {
    fn new(message: impl Into<String>, span: Span) -> Self {
        (message.into(), span).into()
    }

    fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(text.into());
        self
    }
}

type Result<T> = std::result::Result<T, Problem>;

/// All instructions, in upper case.
pub(crate) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Source, place and comments of an instruction.
pub(crate) fn origin(raw: &RawInstruction) -> Origin {
    let text = raw.line.whole();
    let end = if raw.heredocs.is_empty() { text.end } else { Pos::new(raw.last_line, u32::MAX) };
    Origin {
        name: raw.head.name.clone(),
        original: raw.line.text.trim().to_owned(),
        span: Span::new(text.start, end.max(text.start)),
        comments: raw.line.comments.clone(),
    }
}

/// Types an instruction other than `FROM`.
pub(crate) fn kind(raw: &RawInstruction) -> Result<Kind> {
    let head = &raw.head;
    let words: &[Word] = match &head.body {
        Body::Words { words, .. } => words,
        _ => &[],
    };
    Ok(match head.keyword().as_str() {
        "add" => Kind::Add(copy::add(raw, words)?),
        "arg" => Kind::Arg(arg(raw, words)?),
        "cmd" => Kind::Cmd(command::plain(raw)?),
        "copy" => Kind::Copy(copy::copy(raw, words)?),
        "entrypoint" => Kind::Entrypoint(command::plain(raw)?),
        "env" => Kind::Env(Env { pairs: pairs(raw)? }),
        "expose" => {
            at_least_one(head, words)?;
            no_flags(head)?;
            Kind::Expose(Expose { ports: words.to_vec() })
        }
        "healthcheck" => Kind::Healthcheck(config::healthcheck(raw, words)?),
        "label" => Kind::Label(Label { pairs: pairs(raw)? }),
        "maintainer" => {
            let word = exactly_one(head, words)?;
            no_flags(head)?;
            Kind::Maintainer(word)
        }
        "onbuild" => Kind::Onbuild(onbuild(raw)?),
        "run" => Kind::Run(command::run(raw)?),
        "shell" => Kind::Shell(config::shell(raw, words)?),
        // BuildKit does not look at the flags of STOPSIGNAL (nor of ARG).
        "stopsignal" => Kind::Stopsignal(exactly_one(head, words)?),
        "user" => Kind::User(exactly_one_plain(head, words)?),
        "volume" => Kind::Volume(config::volume(head, words)?),
        "workdir" => Kind::Workdir(exactly_one_plain(head, words)?),
        _ => return Err(unknown(head)),
    })
}

/// The argument that was surely meant as an exec form but is not valid JSON, such as `['a', 'b']`.
/// A test such as `[ -f x ]` is not taken for one.
pub(crate) fn nearly_exec_form(head: &Head) -> Option<Span> {
    let takes_json = ["run", "cmd", "entrypoint", "shell", "healthcheck"];
    let Body::Words { words, json: false } = &head.body else {
        return None;
    };
    let word = words.last()?;
    let inside = word.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let quoted = inside.starts_with(['"', '\'']) && inside.ends_with(['"', '\'', ',']);
    (quoted && takes_json.contains(&head.keyword().as_str())).then_some(word.span)
}

fn unknown(head: &Head) -> Problem {
    let name = head.name.as_str();
    let hint = nearest(name, NAMES, true).map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    Problem::new(format!("unknown instruction: {name}{hint}"), head.name.span)
        .expected(format!("one of {}", NAMES.join(", ")))
}

/// The span to point at when arguments are missing or too many.
fn arguments_span(head: &Head) -> Span {
    let words = match &head.body {
        Body::Words { words, .. } => words.as_slice(),
        _ => &[],
    };
    match (words.first(), words.last()) {
        (Some(first), Some(last)) => Span::new(first.span.start, last.span.end),
        _ => head.name.span,
    }
}

fn no_flags(head: &Head) -> Result<()> {
    Flags::read(&head.flags, &[])?;
    Ok(())
}

fn at_least_one(head: &Head, words: &[Word]) -> Result<()> {
    if words.is_empty() {
        return Err(needs_one(head));
    }
    Ok(())
}

fn needs_one(head: &Head) -> Problem {
    let name = head.name.to_uppercase();
    Problem::new(format!("{name} requires at least one argument"), head.name.span)
}

fn exactly_one(head: &Head, words: &[Word]) -> Result<Word> {
    match words {
        [word] => Ok(word.clone()),
        _ => Err(Problem::new(
            format!("{} requires exactly one argument", head.name.to_uppercase()),
            arguments_span(head),
        )),
    }
}

fn exactly_one_plain(head: &Head, words: &[Word]) -> Result<Word> {
    let word = exactly_one(head, words)?;
    no_flags(head)?;
    Ok(word)
}

fn pairs(raw: &RawInstruction) -> Result<Vec<crate::ast::KeyValue>> {
    let head = &raw.head;
    no_flags(head)?;
    let pairs = match &head.body {
        Body::Pairs(pairs) if !pairs.is_empty() => pairs,
        _ => return Err(needs_one(head)),
    };
    let name = head.name.to_uppercase();
    if let Some(blank) = pairs.iter().find(|pair| pair.key.is_empty()) {
        let span = Span::new(blank.key.span.start, blank.value.span.end.max(blank.key.span.start));
        return Err(Problem::new(format!("{name} names can not be blank"), span));
    }
    Ok(pairs.clone())
}

fn arg(raw: &RawInstruction, words: &[Word]) -> Result<Arg> {
    at_least_one(&raw.head, words)?;
    let mut args = Vec::new();
    for word in words {
        let (key, value) = match word.text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.as_str(), None),
        };
        if key.is_empty() {
            return Err(Problem::new("ARG names can not be blank", word.span));
        }
        let key = part(word, 0, key.len());
        let value = value.map(|_| part(word, key.len() + 1, word.len()));
        args.push(ArgDecl { doc: doc_comment(&raw.line.comments, &key), key, value });
    }
    Ok(Arg { args })
}

/// Bytes `from..to` of a word, with their place if the word stands on one line.
fn part(word: &Word, from: usize, to: usize) -> Word {
    let text = word.text.get(from..to).unwrap_or_default();
    let Span { start, end } = word.span;
    if start.line != end.line {
        return Word::new(text, word.span);
    }
    let at = |n: usize| {
        let column = start.column.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        Pos::new(start.line, column.min(end.column))
    };
    Word::new(text, Span::new(at(from), at(to)))
}

/// The text of a comment `NAME text` among those above an instruction.
fn doc_comment(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    comments.iter().find_map(|line| {
        let text = line.strip_prefix(name)?.strip_prefix(' ')?;
        Some(text.to_owned())
    })
}

fn onbuild(raw: &RawInstruction) -> Result<Onbuild> {
    let head = &raw.head;
    let Body::Trigger(Some(trigger)) = &head.body else {
        return Err(needs_one(head));
    };
    no_flags(head)?;
    let name = trigger.name.to_uppercase();
    match name.as_str() {
        "ONBUILD" => {
            let message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
            return Err(Problem::new(message, trigger.name.span));
        }
        "MAINTAINER" | "FROM" => {
            let message = format!("{name} isn't allowed as an ONBUILD trigger");
            return Err(Problem::new(message, trigger.name.span));
        }
        _ => {}
    }
    // Only the name goes; blanks at the end stay, as they do in recorded triggers.
    let text = raw.line.text.trim_start();
    let mut expression = text.get(head.name.len()..).unwrap_or_default().trim_start().to_owned();
    for doc in &raw.heredocs {
        expression.push('\n');
        expression.push_str(&doc.content);
        expression.push_str(&doc.name);
    }
    Ok(Onbuild { expression, trigger: trigger.name.clone(), heredocs: raw.heredocs.clone() })
}
