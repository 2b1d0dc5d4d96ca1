//! Here-documents: which words of a line announce one.

use crate::words::{Env, Lexer};

/// What a word such as `3<<-"EOF"` announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) name: String,
    pub(crate) fd: u64,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
}

struct NoEnv;

impl Env for NoEnv {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Delimiters are shell syntax, whatever the file's own escape character is.
const LEXER: Lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };

/// All heredocs that a logical line announces, in order. A line that is no valid sequence of
/// shell words announces none.
///
/// # Errors
/// A delimiter that can't be read as a word.
pub(crate) fn announced_in(line: &str) -> Result<Vec<Announced>, String> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, ..LEXER };
    let words = match lexer.expand(line, &NoEnv) {
        Ok(expansion) => expansion.words,
        Err(_) => Vec::new(),
    };
    let mut all = Vec::new();
    for word in words {
        all.extend(announced_by(&word)?);
    }
    Ok(all)
}

/// The heredoc that one word announces, if it does.
///
/// # Errors
/// A delimiter that can't be read as a word.
pub(crate) fn announced_by(word: &str) -> Result<Option<Announced>, String> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (fd, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\u{c}', '\r']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = LEXER.expand(rest, &NoEnv).map_err(|e| e.to_string())?;
    let [name] = plain.words.as_slice() else {
        return Ok(None);
    };
    let raw_lexer = Lexer { raw_quotes: true, ..LEXER };
    let raw = raw_lexer.expand(rest, &NoEnv).map_err(|e| e.to_string())?;
    let [raw] = raw.words.as_slice() else {
        return Err(format!("heredoc delimiter {rest:?} is not a single word"));
    };
    // Some quote was taken off: the content is literal.
    let quotes = |s: &str| s.matches(['\'', '"']).count();
    Ok(Some(Announced {
        name: name.clone(),
        // As in the shell grammar a number that is too big is still a number.
        fd: if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u64::MAX) },
        expand: quotes(name) == quotes(raw),
        chomp,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(word: &str) -> (String, u64, bool, bool) {
        let a = announced_by(word).unwrap().unwrap();
        (a.name, a.fd, a.expand, a.chomp)
    }

    #[test]
    fn forms() {
        assert_eq!(one("<<EOF"), ("EOF".into(), 0, true, false));
        assert_eq!(one("<<-EOF"), ("EOF".into(), 0, true, true));
        assert_eq!(one("3<<'E'"), ("E".into(), 3, false, false));
        assert_eq!(one("<<\"a b\""), ("a b".into(), 0, false, false));
        assert_eq!(one("<<- EOF"), ("EOF".into(), 0, true, true));
        assert_eq!(one("<<E\"O\"F"), ("EOF".into(), 0, false, false));
        assert_eq!(one("<<$X"), ("$X".into(), 0, true, false));
        for none in ["EOF", "<EOF", "<<", "<<-", "a<<EOF", "<<<EOF", "<<a<b", "<<a b"] {
            assert_eq!(announced_by(none).unwrap(), None, "{none}");
        }
    }

    #[test]
    fn several_in_a_line() {
        let names = |line: &str| -> Vec<String> { announced_in(line).unwrap().into_iter().map(|a| a.name).collect() };
        assert_eq!(names("COPY <<a <<-\"b\" /x/"), ["a", "b"]);
        assert_eq!(names("RUN 3<<EOF cat <&3"), ["EOF"]);
        assert_eq!(names("RUN cat << EOF"), ["EOF"]);
        assert!(names("RUN echo \"<<EOF\"").is_empty());
        assert!(names("RUN echo it's <<EOF").is_empty());
        assert!(names("RUN echo $((1<<2))").is_empty());
    }
}
