//! Reading `.dockerignore`.

use crate::path::clean;

/// The patterns of an ignore file: comments and blank lines dropped, blanks trimmed, paths
/// cleaned, leading slashes removed. Bytes that are not UTF-8 become replacement characters.
pub fn read_patterns(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let mut patterns = Vec::new();
    for line in text.split('\n') {
        // A comment has its # in the first column.
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            if !mark.is_empty() {
                patterns.push(mark.to_owned());
            }
            continue;
        }
        let cleaned = clean(pattern);
        let relative = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        patterns.push(format!("{mark}{relative}"));
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines() {
        let text = "\u{feff}# a\n#b\n a/ \r\n\n!  /c/../d\n/e\n/\n!\n # no comment\n*.[ch]";
        assert_eq!(read_patterns(text.as_bytes()), ["a", "!d", "e", "/", "!", "# no comment", "*.[ch]"]);
        assert!(read_patterns(b"").is_empty());
        assert_eq!(read_patterns(b"\xffa"), ["\u{fffd}a"]);
    }
}
