//! `--chmod`: octal, or symbolic as chmod(1) takes it.

use crate::model::Chmod;

/// Reads a mode.
///
/// # Errors
/// It is neither octal nor symbolic.
pub(crate) fn parse(text: &str) -> Result<Chmod, String> {
    let bad = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777);
        return mode.map(Chmod::Octal).ok_or_else(bad);
    }
    if !text.is_empty() && text.split(',').all(is_clause) {
        return Ok(Chmod::Symbolic(text.to_owned()));
    }
    Err(format!(
        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic such as u=rwX,go=rX"
    ))
}

/// `[ugoa]*` and one or more of `[+-=][rwxXstugo]*`.
fn is_clause(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some(permissions) = rest.strip_prefix(['+', '-', '=']) else {
            return false;
        };
        rest = permissions.trim_start_matches(['r', 'w', 'x', 'X', 's', 't', 'u', 'g', 'o']);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse("755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(parse("07777"), Ok(Chmod::Octal(0o7777)));
        for yes in ["u+x", "go-w", "a=rX,u+w", "=", "+t", "u=g-w"] {
            assert_eq!(parse(yes), Ok(Chmod::Symbolic(yes.into())), "{yes}");
        }
        for no in ["999", "17777", "", "u", "rwx", "u+x,", "u+y", "0x1", "-"] {
            assert_eq!(parse(no).is_ok(), no == "-", "{no}");
        }
        assert!(parse("999").unwrap_err().starts_with("invalid chmod parameter: '999'. it should be octal"));
    }
}
