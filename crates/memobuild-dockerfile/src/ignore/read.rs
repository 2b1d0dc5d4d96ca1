//! Reading `.dockerignore`.

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

/// Go's `filepath.Clean` for slash-separated paths.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, want) in [
            ("", "."),
            ("a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("../../x/..", "../.."),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    #[test]
    fn reads_lines() {
        let text = "\u{feff}# a\n#b\n a/ \r\n\n!  /c/../d\n/e\n/\n!\n # no comment\n*.[ch]";
        assert_eq!(read_patterns(text.as_bytes()), ["a", "!d", "e", "/", "!", "# no comment", "*.[ch]"]);
        assert!(read_patterns(b"").is_empty());
        assert_eq!(read_patterns(b"\xffa"), ["\u{fffd}a"]);
    }
}
