//! Text to syntax tree: reads the file instruction by instruction and files each one under its
//! stage. Line joining, cutting and typing are in modules of their own.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::ast::{Directives, Dockerfile, Instruction, Kind, MetaArg, Stage, Warning, Word};
use crate::diagnostic::{Diagnostic, ParseError};
use crate::directives;
use crate::instructions::{self, Problem};
use crate::lines::{Joiner, Lines};
use crate::lint::CheckOptions;
use crate::raw::{self, RawInstruction};
use crate::span::{Pos, SourceFile, Span};

/// Parses a Dockerfile. `file` is the name to show in messages.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &[u8], file: &str) -> Result<Dockerfile, ParseError> {
    let mut reader = Reader::new(text, file)?;
    let mut meta_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut warnings = Vec::new();
    let mut any = false;
    while let Some(raw) = reader.next()? {
        any = true;
        if raw.line.empty_continuation {
            let last = raw.line.last_line;
            warnings.push(Warning::EmptyContinuation(Span::lines(last, last)));
        }
        if let Some(span) = instructions::nearly_exec_form(&raw.head) {
            warnings.push(Warning::MalformedExecForm(span));
        }
        if raw.head.keyword() == "from" {
            stages.push(instructions::stage(&raw).map_err(|p| reader.error(&raw, p))?);
            continue;
        }
        let origin = instructions::origin(&raw);
        let kind = instructions::kind(&raw).map_err(|p| reader.error(&raw, p))?;
        match (stages.last_mut(), kind) {
            (None, Kind::Arg(arg)) => meta_args.push(MetaArg { origin, arg }),
            (None, _) => {
                let problem: Problem = ("no build stage in current context".to_owned(), origin.span).into();
                let hint = format!("{} must stand behind a FROM", origin.name.to_uppercase());
                return Err(reader.error_with_hint(&raw, problem, Some(hint)));
            }
            (Some(stage), kind) => stage.instructions.push(Instruction { origin, kind }),
        }
    }
    if stages.is_empty() {
        return Err(match any {
            true => reader.error_in_file("dockerfile contains no stages to build"),
            false => reader.no_instructions(),
        });
    }
    Ok(Dockerfile { source: reader.source, directives: reader.directives, meta_args, stages, warnings })
}

/// Parses one recorded `ONBUILD` trigger. `file` is the name to show in messages.
///
/// # Errors
/// The first thing that is wrong; `ONBUILD`, `FROM`, `MAINTAINER` and anything but one
/// instruction are errors too.
pub fn parse_trigger(text: &str, file: &str) -> Result<Instruction, ParseError> {
    let mut reader = Reader::new(text.as_bytes(), file)?;
    let (Some(raw), None) = (reader.next()?, reader.next()?) else {
        let mut error = reader.error_in_file("onbuild trigger should be a single expression");
        error.0.hint = None;
        return Err(error);
    };
    let name = raw.head.name.to_uppercase();
    if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        let message = format!("{name} isn't allowed as an ONBUILD trigger");
        return Err(reader.error(&raw, (message, raw.head.name.span).into()));
    }
    let kind = instructions::kind(&raw).map_err(|p| reader.error(&raw, p))?;
    Ok(Instruction { origin: instructions::origin(&raw), kind })
}

/// The raw instructions of a file, one at a time.
pub(crate) struct Reader {
    source: SourceFile,
    directives: Directives,
    joiner: Joiner,
    /// How much of the text has been read, in bytes and lines.
    read: (usize, u32),
    /// Lines that are not UTF-8, from 1.
    invalid: BTreeSet<u32>,
}

/// Larger files are refused, as the reference builder's transport does: the tree takes many times
/// the memory of the text.
const MAX_BYTES: usize = 16 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

impl Reader {
    pub(crate) fn new(text: &[u8], file: &str) -> Result<Self, ParseError> {
        let text = text.strip_prefix(BOM).unwrap_or(text);
        if text.len() > MAX_BYTES {
            let source = SourceFile::new(file, "");
            let message = format!("Dockerfile is larger than {} MiB", MAX_BYTES >> 20);
            return Err(ParseError(Box::new(Diagnostic::error(&source, None, message))));
        }
        let decoded = String::from_utf8_lossy(text);
        let invalid = match &decoded {
            Cow::Borrowed(_) => BTreeSet::new(),
            Cow::Owned(_) => invalid_lines(text),
        };
        let source = SourceFile::new(file, decoded.into_owned());
        let found = directives::scan(source.text());
        let directives = read_directives(&source, &found)?;
        Ok(Self { joiner: Joiner::new(directives.escape, found.last_line), source, directives, read: (0, 0), invalid })
    }

    /// The next instruction; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RawInstruction>, ParseError> {
        // The text is shared, so that lines can be borrowed while the reader changes.
        let source = self.source.clone();
        let mut lines = Lines::resume(source.text(), self.read);
        let Some(line) = self.joiner.next(&mut lines) else {
            return Ok(None);
        };
        let first_line = line.first_line;
        let raw = raw::instruction(line, &mut lines, self.joiner.escape)
            .map_err(|problem| self.error_on(first_line, problem.into(), None))?;
        self.read = lines.position();
        self.check_utf8(&raw)?;
        Ok(Some(raw))
    }

    /// Bytes that are not UTF-8 may stand in comments and, as they are only shown to people, in
    /// `LABEL` and `MAINTAINER`, where they become replacement characters.
    fn check_utf8(&self, raw: &RawInstruction) -> Result<(), ParseError> {
        if self.invalid.is_empty() || matches!(raw.head.keyword().as_str(), "label" | "maintainer") {
            return Ok(());
        }
        let heredoc_lines = raw.line.last_line.saturating_add(1)..=raw.last_line;
        let bad = raw.line.physical_lines().find(|line| self.invalid.contains(line)).or_else(|| {
            match raw.heredocs.is_empty() {
                true => None,
                false => self.invalid.range(heredoc_lines).next().copied(),
            }
        });
        match bad {
            None => Ok(()),
            Some(line) => {
                let message = "line is not valid UTF-8".to_owned();
                Err(self.error(raw, (message, Span::lines(line, line)).into()))
            }
        }
    }

    /// An error of the file as a whole.
    fn error_in_file(&self, message: &str) -> ParseError {
        let diagnostic = Diagnostic::error(&self.source, None, message);
        ParseError(Box::new(diagnostic.with_hint("start a stage with FROM")))
    }

    pub(crate) fn no_instructions(&self) -> ParseError {
        self.error_in_file("file with no instructions")
    }

    fn error(&self, raw: &RawInstruction, problem: Problem) -> ParseError {
        self.error_on(raw.line.first_line, problem, None)
    }

    fn error_with_hint(&self, raw: &RawInstruction, problem: Problem, hint: Option<String>) -> ParseError {
        self.error_on(raw.line.first_line, problem, hint)
    }

    fn error_on(&self, line: u32, problem: Problem, hint: Option<String>) -> ParseError {
        let message = format!("dockerfile parse error on line {line}: {}", problem.message);
        let mut diagnostic = Diagnostic::error(&self.source, problem.span, message);
        diagnostic.expected = problem.expected;
        diagnostic.hint = hint;
        ParseError(Box::new(diagnostic))
    }
}

fn invalid_lines(text: &[u8]) -> BTreeSet<u32> {
    (1..)
        .zip(text.split(|&b| b == b'\n'))
        .filter(|(_, line)| std::str::from_utf8(line).is_err())
        .map(|(number, _)| number)
        .collect()
}

fn read_directives(source: &SourceFile, found: &directives::Found) -> Result<Directives, ParseError> {
    let error = |message: String, span: Span| ParseError(Box::new(Diagnostic::error(source, span, message)));
    if let Some(again) = &found.repeated {
        let message = format!("only one {} parser directive can be used", again.name);
        return Err(error(message, again.span));
    }
    let escape = match found.get("escape") {
        None => '\\',
        Some(directive) => match directive.value.as_str() {
            "\\" => '\\',
            "`" => '`',
            other => {
                let message = format!("invalid escape token '{other}' does not match ` or \\");
                return Err(error(message, directive.span));
            }
        },
    };
    let check = found.get("check");
    let options = match check {
        None => CheckOptions::default(),
        // Only the first word counts, as in BuildKit.
        Some(directive) => {
            let value = directive.value.split(' ').next().unwrap_or_default();
            CheckOptions::parse(value)
                .map_err(|e| error(format!("failed to parse check options: {e}"), directive.span))?
        }
    };
    Ok(Directives {
        syntax: found.get("syntax").map(|d| Word::new(d.value.clone(), d.span)),
        escape,
        check: options,
        check_span: check.map(|d| Span::new(Pos::new(d.span.first_line(), 1), d.span.end)),
    })
}
