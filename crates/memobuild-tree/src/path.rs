//! Paths inside a tree: bytes, separated by `/`, always meant from the root.

/// The components of a path after lexical cleaning: empty ones and `.` go, `..` takes the one before it away and stays
/// within the root (as Go's `path.Clean("/" + p)`).
pub fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            name => out.push(name),
        }
    }
    out
}

/// The path as cleaned by [`components`], absolute, without a trailing slash; the root is `/`.
pub fn clean(path: &[u8]) -> Vec<u8> {
    from_components(&components(path))
}

/// Joins components to an absolute path; none give `/`.
pub fn from_components<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.push(b'/');
        out.extend_from_slice(part.as_ref());
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// `base` and `path` joined: an absolute `path` stands alone. Cleaned.
pub fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') {
        return clean(path);
    }
    clean(&[base, b"/", path].concat())
}

/// The path as a person reads it: lossy UTF-8.
pub fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_never_leaves_the_root() {
        assert_eq!(clean(b"/a/./b//../c/"), b"/a/c");
        assert_eq!(clean(b"../../etc"), b"/etc");
        assert_eq!(clean(b""), b"/");
        assert_eq!(join(b"/a/b", b"../c"), b"/a/c");
        assert_eq!(join(b"/a", b"/b"), b"/b");
    }
}
