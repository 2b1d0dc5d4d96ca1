use super::*;
use proptest::prelude::*;

fn ignored(patterns: &[&str], path: &str) -> bool {
    IgnoreMatcher::new(patterns).unwrap().matches(path.as_bytes())
}

#[test]
fn single_patterns() {
    for (pattern, path, want) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file/", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt2", "dir/file.txt", false),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("docs", "docs/README.md", true),
        ("docs", "docs2", false),
        ("docs/*", "docs/a/b", true),
        ("*.md", "x/README.md", false),
        ("a?", "aé", true),
        ("[à-é]x", "éx", true),
        ("[a&&b]", "&", true),
        ("/", "a", false),
        (".", "a", false),
    ] {
        assert_eq!(ignored(&[pattern], path), want, "{pattern} {path}");
    }
}

#[test]
fn order_and_exceptions() {
    assert!(!ignored(&["*", "!README.md"], "README.md"));
    assert!(ignored(&["!README.md", "*"], "README.md"));
    assert!(!ignored(&["docs", "!docs/README.md"], "docs/README.md"));
    assert!(ignored(&["docs", "!docs/README.md"], "docs/x.md"));
    assert!(!ignored(&["docs", "!docs"], "docs/x/y"));
    assert!(ignored(&["*.md", "!README*.md", "README-secret.md"], "README-secret.md"));
    assert!(!ignored(&["**", "!util/docker/web"], "util/docker/web/foo"));
    assert!(ignored(&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo"));
    assert!(!ignored(&[], "a"));
}

#[test]
fn malformed() {
    for bad in ["[", "a[", "[a-", "[]a]", "a\\", "!", "![x", "[^", "[z-a]"] {
        let error = IgnoreMatcher::new(&[bad]).map(|_| ());
        assert!(error.is_err(), "{bad}");
    }
    let error = IgnoreMatcher::new(&["[a"]).unwrap_err();
    assert_eq!(error.to_string(), "syntax error in pattern \"[a\"");
}

#[test]
fn bytes_that_are_no_text() {
    let matcher = IgnoreMatcher::new(&["a?"]).unwrap();
    assert!(matcher.matches(b"a\xff"));
    assert!(!matcher.matches(b"a\xff\xfe"));
}

#[test]
fn walk_enters_only_what_exceptions_need() {
    let matcher = IgnoreMatcher::new(&["*", "!src/main/**", "!a/*/keep", "node_modules"]).unwrap();
    let root = matcher.root();
    let below = |dir: &str| {
        let mut state = root.clone();
        for (at, _) in dir.match_indices('/') {
            state = matcher.enter(&state, &dir.as_bytes()[..at]);
        }
        state = matcher.enter(&state, dir.as_bytes());
        matcher.may_match_below(&state, dir.as_bytes())
    };
    assert!(below("src"));
    assert!(below("src/main/x"));
    assert!(!below("src/test"));
    assert!(below("a/b"));
    assert!(!below("b"));
    assert!(!below("node_modules"));
    let plain = IgnoreMatcher::new(&["a"]).unwrap();
    assert!(!plain.may_match_below(&plain.enter(&plain.root(), b"a"), b"a"));
}

fn pattern() -> impl Strategy<Value = String> {
    "!?[ab*?/]{1,7}|!?\\*\\*/[ab*]{1,3}|!?[ab]/[\\[]\\^?a[\\]]|!?a/\\*\\*"
}

proptest! {
    #[test]
    fn never_panics(patterns in proptest::collection::vec(r"!?[ab*?\[\]^\\/. -]{0,10}", 0..5), path in proptest::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(matcher) = IgnoreMatcher::new(&patterns) {
            matcher.matches(&path);
            let state = matcher.enter(&matcher.root(), &path);
            matcher.may_match_below(&state, &path);
        }
        let _ = read_patterns(patterns.join("\n").as_bytes());
        let _ = read_patterns(&path);
    }

    /// A walk that stays out of directories without hope finds what a full walk finds.
    #[test]
    fn pruning_loses_nothing(patterns in proptest::collection::vec(pattern(), 1..5)) {
        let Ok(matcher) = IgnoreMatcher::new(&patterns) else { return Ok(()) };
        for a in ["a", "b"] {
            for b in ["a", "b", "ab"] {
                for c in ["a", "ba"] {
                    let dirs = [a.to_owned(), format!("{a}/{b}")];
                    let file = format!("{a}/{b}/{c}");
                    let mut state = matcher.root();
                    let mut pruned = false;
                    for dir in &dirs {
                        state = matcher.enter(&state, dir.as_bytes());
                        pruned |= state.ignored && !matcher.may_match_below(&state, dir.as_bytes());
                    }
                    let wanted = !matcher.matches_in(&state, file.as_bytes());
                    prop_assert!(!(pruned && wanted), "{patterns:?} {file}");
                }
            }
        }
    }
}
