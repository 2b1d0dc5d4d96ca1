//! Rendering with a marked excerpt, by the library that draws rustc's own.

use std::{borrow::Cow, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};
use crate::span::Span;

/// Longer spans are shown up to this many lines.
const MAX_LINES: usize = 6;
/// Longer lines are cut to about this many bytes.
const MAX_LINE_BYTES: usize = 200;
/// Longer messages, such as those that quote a word of the Dockerfile, are cut to about this many bytes.
const MAX_MESSAGE_BYTES: usize = 4000;

pub(super) fn render(diagnostic: &Diagnostic, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let message = shortened(&diagnostic.message);
    let mut title = level.primary_title(&*message);
    if let Some(code) = &diagnostic.code {
        title = title.id(code.as_str());
    }
    let name = diagnostic.source.name();
    let excerpt = diagnostic.span.and_then(|span| Excerpt::cut(diagnostic.source.text(), span));
    let mut group = match &excerpt {
        Some(excerpt) => {
            let mark = AnnotationKind::Primary.span(excerpt.mark.clone()).label(diagnostic.label.as_deref());
            title.element(
                Snippet::source(excerpt.text.as_str()).path(name).line_start(excerpt.first_line).annotation(mark),
            )
        }
        None => Group::with_title(title).element(annotate_snippets::Origin::path(name)),
    };
    if let Some(expected) = &diagnostic.expected {
        group = group.element(Level::NOTE.message(format!("expected {expected}")));
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

fn shortened(message: &str) -> Cow<'_, str> {
    let end = floor_char(message, MAX_MESSAGE_BYTES);
    match message.get(..end) {
        Some(start) if end < message.len() => Cow::Owned(format!("{start}... ({} bytes)", message.len())),
        _ => Cow::Borrowed(message),
    }
}

/// The lines of a span, cut to a size that can be shown.
struct Excerpt {
    text: String,
    first_line: usize,
    /// What to mark, in bytes of `text`.
    mark: Range<usize>,
}

impl Excerpt {
    fn cut(source: &str, span: Span) -> Option<Self> {
        let first_line = usize::try_from(span.first_line()).ok()?.max(1);
        let count = usize::try_from(span.last_line().saturating_sub(span.first_line())).ok()? + 1;
        let mut text = String::new();
        let mut mark = 0..0;
        for (index, line) in source.lines().skip(first_line - 1).take(count.min(MAX_LINES)).enumerate() {
            let column =
                |column: u32| floor_char(line, usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1));
            let from = if index == 0 { column(span.start.column) } else { 0 };
            let to = if index + 1 == count { column(span.end.column) } else { line.len() };
            // A window of a long line that holds the start of what is marked.
            let window_start = floor_char(line, from.saturating_sub(MAX_LINE_BYTES / 2));
            let window_start = if line.len() > MAX_LINE_BYTES { window_start } else { 0 };
            let window_end = floor_char(line, window_start + MAX_LINE_BYTES);
            let shown = line.get(window_start..window_end)?;
            if index == 0 {
                mark.start = text.len() + (from - window_start).min(shown.len());
            }
            let to = to.clamp(window_start, window_end);
            mark.end = (text.len() + (to - window_start)).max(mark.start);
            text.push_str(shown);
            text.push('\n');
        }
        (!text.is_empty()).then_some(Self { text, first_line, mark })
    }
}

/// The last character boundary at or before `at`.
fn floor_char(line: &str, at: usize) -> usize {
    let mut at = at.min(line.len());
    while !line.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{Pos, SourceFile};
    use proptest::prelude::*;

    fn show(text: &str, span: Span) -> String {
        let source = SourceFile::new("Dockerfile", text);
        Diagnostic::error(
            &source,
            span,
            "dockerfile parse error on line 2: unknown instruction: FRM (did you mean FROM?)",
        )
        .with_label("not an instruction")
        .with_expected("one of ADD, ARG")
        .with_hint("write FROM")
        .render(false)
    }

    #[test]
    fn marks_a_word() {
        insta::assert_snapshot!(show("# a\nFRM busybox\n", Span::new(Pos::new(2, 1), Pos::new(2, 4))));
    }

    #[test]
    fn marks_several_lines() {
        let text = "FROM a\nRUN a \\\n  b \\\n  c\nRUN d\n";
        insta::assert_snapshot!(show(text, Span::new(Pos::new(2, 1), Pos::new(4, 4))));
    }

    #[test]
    fn cuts_what_is_long() {
        let text = format!("FROM a\nRUN {}é{}\n", "x".repeat(3000), "y".repeat(3000));
        let out = show(&text, Span::new(Pos::new(2, 3005), Pos::new(2, 3006)));
        assert!(out.len() < 1500, "{}", out.len());
        assert!(out.contains('é'));
        let text = format!("FROM a\nRUN {}", "x \\\n".repeat(3000));
        assert!(show(&text, Span::lines(2, 3001)).len() < 1500);
    }

    #[test]
    fn needs_no_place() {
        let source = SourceFile::new("Dockerfile", "");
        let out = Diagnostic::warning(&source, None, "file with no instructions").with_code("X").render(false);
        insta::assert_snapshot!(out);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[aé\t\r\n]{0,40}", l1 in 0u32..6, c1 in 0u32..9, l2 in 0u32..6, c2 in 0u32..9) {
            let span = Span::new(Pos::new(l1, c1), Pos::new(l2, c2));
            show(&text, span);
        }
    }
}
