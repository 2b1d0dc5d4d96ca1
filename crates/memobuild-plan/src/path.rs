//! Paths of images as text: slash-separated, cleaned as Go's package `path` does. Pure; nothing is looked up.

pub(crate) use memobuild_dockerfile::path::clean;

/// The path taken from the root: `a`, `/a` and `../a` are `/a`.
pub(crate) fn absolute(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// The path taken from `dir`, unless it is absolute itself.
pub(crate) fn within(dir: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { absolute(&format!("{dir}/{path}")) }
}

/// Whether a path written in a Dockerfile names a directory by its form: a slash or `.` at the end, or nothing at all.
pub(crate) fn is_dir_form(path: &str) -> bool {
    path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.")
}

/// The last component; `/` of the root, `.` of nothing (Go's `path.Base`).
pub(crate) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (false, true) => "/",
        (false, false) => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Whether a pattern holds an unescaped `*`, `?` or `[`.
pub(crate) fn has_wildcards(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// A pattern that matches just this name, whatever is in it.
pub(crate) fn literal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '*' | '?' | '[' => out.extend(['[', c, ']']),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_a_directory_or_the_root() {
        assert_eq!(within("/w", "x/"), "/w/x");
        assert_eq!(within("/w", "../../x"), "/x");
        assert_eq!(within("/w", "/x/"), "/x");
        assert_eq!(absolute("../etc"), "/etc");
    }

    #[test]
    fn forms() {
        assert_eq!((base("/a/b/"), base("/"), base(""), base("a")), ("b", "/", ".", "a"));
        assert!(has_wildcards("a*") && has_wildcards("a\\\\[b]") && !has_wildcards("a\\*b"));
        assert_eq!(literal("a*[b]\\"), "a[*][[]b]\\\\");
        assert!(is_dir_form("") && is_dir_form("a/.") && is_dir_form("a/") && !is_dir_form("a.") && !is_dir_form("a"));
    }
}
