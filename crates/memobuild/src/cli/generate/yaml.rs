//! Scalars for YAML 1.2. Documents are written as text, so that they have comments and are read like those that people write;
//! what comes from the command line goes through here.

/// A scalar that is read as this string: as it is where nothing can be made of it but a string, else as JSON has it, which
/// YAML takes for a double-quoted scalar (section 7.3.1). The text has no control characters.
pub(super) fn string(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let first = text.strip_prefix("--").unwrap_or(text);
    let starts = first.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    // Words that some reader takes for a truth value or for nothing (YAML 1.1 has many).
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
    );
    if starts && !word && text.chars().all(plain) { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A list of strings in one line.
pub(super) fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| string(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// Lines moved to the right, empty ones left empty.
pub(super) fn indent(text: &str, spaces: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', spaces));
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for plain in ["app", "ghcr.io/a/b", "/var/x", "a-b_c", "--push"] {
            assert_eq!(string(plain), plain);
        }
        for quoted in
            ["yes", "No", "1.5", "-x", "---", "a: b", "a #b", "{x}", "a\"b", "", "*x", "0x1", "registry:5000/a", "~"]
        {
            assert!(string(quoted).starts_with('"'), "{quoted}");
        }
        assert_eq!(string("a\"b\\"), r#""a\"b\\""#);
        assert_eq!(list(&["a", "b c"]), r#"[a, "b c"]"#);
        assert_eq!(indent("a\n\nb\n", 2), "  a\n\n  b\n");
    }
}
