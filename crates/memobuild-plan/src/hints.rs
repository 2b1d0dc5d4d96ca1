//! `# memobuild: exact, stat=kind, max-age=24h` above an instruction: what it asks of the instruction's steps.

use std::time::Duration;

use memobuild_dockerfile::ast::Origin;
use memobuild_dockerfile::{Pos, SourceFile, Span};

use crate::error::Failure;
use crate::model::StepHints;

const EXPECTED: &str = "exact, stat=kind or max-age=DURATION (such as 24h)";

/// The hints in the comments above an instruction.
///
/// # Errors
/// A hint that is none; the place is the comment's line.
pub(crate) fn read(origin: &Origin, source: &SourceFile) -> Result<StepHints, Failure> {
    let mut hints = StepHints::default();
    for comment in &origin.comments {
        let Some(list) = comment.strip_prefix("memobuild:") else {
            continue;
        };
        let place = || comment_span(source, origin.span, comment);
        for hint in list.split(',').map(str::trim) {
            match hint.split_once('=').unwrap_or((hint, "")) {
                ("exact", "") => hints.exact = true,
                ("stat", "kind") => hints.stat_kind = true,
                ("max-age", age) => {
                    let age = duration(age).ok_or_else(|| {
                        Failure::new(place(), format!("memobuild: max-age={age:?} is no duration"))
                            .expected("a number and a unit of s, m, h or d, such as 24h or 1h30m")
                    })?;
                    hints.max_age = Some(age);
                }
                (name, _) => {
                    return Err(Failure::new(place(), format!("memobuild: unknown hint {hint:?}"))
                        .expected(EXPECTED)
                        .suggest(name, ["exact", "stat", "max-age"]));
                }
            }
        }
    }
    Ok(hints)
}

/// `90s`, `1h30m`, `7d`: whole numbers with units; nothing else.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let mut chars = after.chars();
        let unit = match chars.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = chars.as_str();
    }
    (!text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// Where a comment above an instruction stands; the instruction itself if it is not to be found.
fn comment_span(source: &SourceFile, instruction: Span, comment: &str) -> Span {
    let above = usize::try_from(instruction.first_line()).unwrap_or(1).saturating_sub(1);
    let lines: Vec<&str> = source.text().lines().take(above).collect();
    let found = lines
        .iter()
        .enumerate()
        .rev()
        .find(|(_, line)| line.trim_start().strip_prefix('#').is_some_and(|text| text.trim() == comment));
    let Some((at, line)) = found else {
        return instruction;
    };
    let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    let start = line.len() - line.trim_start().len();
    Span::new(Pos::new(number(at), number(start)), Pos::new(number(at), number(line.trim_end().len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_dockerfile::ast::Word;

    fn origin(comments: &[&str]) -> (Origin, SourceFile) {
        let span = Span::lines(3, 3);
        let text =
            format!("FROM x\n{}\nRUN y\n", comments.iter().map(|c| format!("# {c}")).collect::<Vec<_>>().join("\n"));
        let origin = Origin {
            name: Word::new("RUN", span),
            original: "RUN y".into(),
            span,
            comments: comments.iter().map(|&c| c.to_owned()).collect(),
        };
        (origin, SourceFile::new("Dockerfile", text))
    }

    #[test]
    fn all_hints() {
        let (origin, source) = origin(&["memobuild: exact, stat=kind,max-age=1d2h3m4s"]);
        let hints = read(&origin, &source).unwrap();
        assert!(hints.exact && hints.stat_kind);
        assert_eq!(hints.max_age, Some(Duration::from_secs(86400 + 7200 + 180 + 4)));
    }

    #[test]
    fn other_comments_say_nothing() {
        let (origin, source) = origin(&["see memobuild: exact"]);
        assert_eq!(read(&origin, &source).unwrap(), StepHints::default());
    }

    #[test]
    fn unknown_hints_are_errors_with_a_place() {
        let (origin, source) = origin(&["memobuild: exakt"]);
        let error = read(&origin, &source).unwrap_err();
        assert_eq!(error.span, Some(Span::new(Pos::new(2, 1), Pos::new(2, 19))));
        assert!(error.message.contains("did you mean exact?"), "{}", error.message);
        for bad in
            ["memobuild:", "memobuild: exact=1", "memobuild: max-age=5", "memobuild: max-age=", "memobuild: stat"]
        {
            let (origin, source) = self::origin(&[bad]);
            assert!(read(&origin, &source).is_err(), "{bad}");
        }
    }
}
