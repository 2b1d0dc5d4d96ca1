//! The first of two steps from text to syntax tree: instructions cut into name, flags, words and
//! heredocs, by rules that depend on the name alone. It knows nothing of what flags exist.

use std::ops::Range;

use crate::ast::{Heredoc, KeyValue, Word};
use crate::heredoc;
use crate::json::{self, Json};
use crate::lines::{Lines, LogicalLine, without_ending};
use crate::span::{Pos, Span};
use crate::tokens;

/// An instruction with its lines.
#[derive(Clone, Debug)]
pub(crate) struct RawInstruction {
    pub(crate) line: LogicalLine,
    pub(crate) head: Head,
    pub(crate) heredocs: Vec<Heredoc>,
    /// Last physical line, heredocs included.
    pub(crate) last_line: u32,
}

/// An instruction's name and arguments.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// As written; empty for a line that holds nothing.
    pub(crate) name: Word,
    /// Each from its `--` on, quotes taken off.
    pub(crate) flags: Vec<Word>,
    pub(crate) body: Body,
}

/// Arguments.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A list of words, or a single one that is the whole rest; `json` for an exec form.
    Words { words: Vec<Word>, json: bool },
    /// `ENV` and `LABEL`.
    Pairs(Vec<KeyValue>),
    /// `ONBUILD`: the trigger, if there is one.
    Trigger(Option<Box<Head>>),
    /// Not an instruction.
    Unknown,
}

/// What is wrong, and where.
pub(crate) type RawError = (String, Span);

impl Head {
    /// The name in lower case.
    pub(crate) fn keyword(&self) -> String {
        self.name.to_lowercase()
    }

    pub(crate) fn is_json(&self) -> bool {
        matches!(self.body, Body::Words { json: true, .. })
    }

    fn takes_heredocs(&self) -> bool {
        let head = match &self.body {
            Body::Trigger(Some(trigger)) => trigger,
            _ => self,
        };
        matches!(head.keyword().as_str(), "run" | "copy" | "add") && !head.is_json()
    }
}

/// Reads one instruction from its logical line, and its heredocs from the lines that follow.
pub(crate) fn instruction(line: LogicalLine, lines: &mut Lines<'_>, escape: char) -> Result<RawInstruction, RawError> {
    let whole = 0..line.text.len();
    let cutter = Cutter { line: &line, escape };
    let head = cutter.head(whole, true)?;
    let mut heredocs = Vec::new();
    if head.takes_heredocs() {
        let announced = heredoc::announced_in(&line.text).map_err(|e| (e, line.whole()))?;
        for doc in announced {
            heredocs.push(read_heredoc(doc, lines, &line)?);
        }
    }
    Ok(RawInstruction { head, heredocs, last_line: lines.number(), line })
}

fn read_heredoc(doc: heredoc::Announced, lines: &mut Lines<'_>, line: &LogicalLine) -> Result<Heredoc, RawError> {
    let first = lines.number().saturating_add(1);
    let mut content = String::new();
    while let Some(raw) = lines.next_line() {
        let bare = without_ending(raw);
        let end = if doc.chomp { bare.trim_start_matches('\t') } else { bare };
        if end == doc.name {
            return Ok(Heredoc {
                name: doc.name,
                fd: doc.fd,
                expand: doc.expand,
                chomp: doc.chomp,
                content,
                span: Span::new(Pos::new(first, 1), Pos::new(lines.number(), 1)),
            });
        }
        content.push_str(raw);
    }
    Err((format!("unterminated heredoc: no line {:?} found", doc.name), line.whole()))
}

struct Cutter<'a> {
    line: &'a LogicalLine,
    escape: char,
}

impl Cutter<'_> {
    fn word(&self, range: Range<usize>) -> Word {
        Word::new(&self.line.text[range.clone()], self.line.span(range))
    }

    /// `range` holds an instruction; `outer` unless it is a trigger of `ONBUILD`.
    fn head(&self, range: Range<usize>, outer: bool) -> Result<Head, RawError> {
        let text = &self.line.text;
        let range = tokens::trim(text, range);
        let name_end = text[range.clone()].find(tokens::is_blank).map_or(range.end, |at| range.start + at);
        let name = self.word(range.start..name_end);
        let (flags, rest) = tokens::take_flags(text, name_end..range.end, self.escape);
        let flags = flags.into_iter().map(|flag| Word::new(flag.text, self.line.span(flag.range))).collect();
        let rest = tokens::trim(text, rest..range.end);
        let body = self.body(&name.to_lowercase(), rest, outer)?;
        Ok(Head { name, flags, body })
    }

    fn body(&self, keyword: &str, rest: Range<usize>, outer: bool) -> Result<Body, RawError> {
        let text = &self.line.text;
        let plain = |ranges: Vec<Range<usize>>| Body::Words {
            words: ranges.into_iter().map(|r| self.word(r)).collect(),
            json: false,
        };
        let whole = |range: Range<usize>| if range.is_empty() { vec![] } else { vec![range] };
        Ok(match keyword {
            "from" | "expose" => plain(tokens::split_blanks(text, rest)),
            "add" | "copy" | "volume" => match self.json(rest.clone())? {
                Some(words) => Body::Words { words, json: true },
                None => plain(tokens::split_blanks(text, rest)),
            },
            "run" | "cmd" | "entrypoint" | "shell" => match self.json(rest.clone())? {
                Some(words) => Body::Words { words, json: true },
                None => plain(whole(rest)),
            },
            "healthcheck" => self.healthcheck(rest)?,
            "env" | "label" => Body::Pairs(self.pairs(rest, &keyword.to_uppercase())?),
            "arg" => plain(tokens::split_quoted(text, rest, self.escape)),
            "maintainer" | "stopsignal" | "user" | "workdir" => plain(whole(rest)),
            "onbuild" if rest.is_empty() => Body::Trigger(None),
            // A chain of ONBUILDs is an error later on; going deeper would only cost stack.
            "onbuild" if !outer => Body::Trigger(None),
            "onbuild" => Body::Trigger(Some(Box::new(self.head(rest, false)?))),
            _ => Body::Unknown,
        })
    }

    /// The strings of an exec form; none if it is not valid JSON, which makes it a shell form.
    fn json(&self, rest: Range<usize>) -> Result<Option<Vec<Word>>, RawError> {
        match json::parse(&self.line.text[rest.clone()]) {
            Json::Strings(strings) => Ok(Some(
                strings
                    .into_iter()
                    .map(|(text, r)| Word::new(text, self.line.span(rest.start + r.start..rest.start + r.end)))
                    .collect(),
            )),
            Json::Others(r) => Err((
                "when using JSON array syntax, arrays must be comprised of strings only".into(),
                self.line.span(rest.start + r.start..rest.start + r.end),
            )),
            Json::Malformed => Ok(None),
        }
    }

    /// The type (`CMD` or `NONE`), then a command in either form.
    fn healthcheck(&self, rest: Range<usize>) -> Result<Body, RawError> {
        let text = &self.line.text;
        if rest.is_empty() {
            return Ok(Body::Words { words: vec![], json: false });
        }
        let end = text[rest.clone()].find(char::is_whitespace).map_or(rest.end, |at| rest.start + at);
        let mut words = vec![self.word(rest.start..end)];
        let command = tokens::trim(text, end..rest.end);
        match self.json(command.clone())? {
            Some(strings) => {
                words.extend(strings);
                Ok(Body::Words { words, json: true })
            }
            None => {
                if !command.is_empty() {
                    words.push(self.word(command));
                }
                Ok(Body::Words { words, json: false })
            }
        }
    }

    /// `NAME=value ...`, or the old `NAME value` when the first word has no `=`.
    fn pairs(&self, rest: Range<usize>, name: &str) -> Result<Vec<KeyValue>, RawError> {
        let text = &self.line.text;
        let words = tokens::split_quoted(text, rest.clone(), self.escape);
        let Some(first) = words.first() else {
            return Ok(vec![]);
        };
        if !text[first.clone()].contains('=') {
            let Some(at) = text[rest.clone()].find(tokens::is_blank) else {
                return Err((format!("{name} must have two arguments"), self.line.span(rest)));
            };
            let key_end = rest.start + at;
            let after = text[key_end..rest.end].trim_start_matches(tokens::is_blank);
            return Ok(vec![KeyValue {
                key: self.word(rest.start..key_end),
                value: self.word(rest.end - after.len()..rest.end),
                legacy: true,
            }]);
        }
        words
            .into_iter()
            .map(|word| match text[word.clone()].find('=') {
                Some(at) => Ok(KeyValue {
                    key: self.word(word.start..word.start + at),
                    value: self.word(word.start + at + 1..word.end),
                    legacy: false,
                }),
                None => Err((
                    format!(
                        "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                        &text[word.clone()]
                    ),
                    self.line.span(word),
                )),
            })
            .collect()
    }
}
