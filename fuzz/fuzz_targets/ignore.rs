//! Any ignore file and any path: no exception is lost because a walk did not enter a directory; and without exceptions,
//! asking for the whole path and walking down to it give one answer (with them moby's two ways differ, and so do ours).
#![no_main]

use libfuzzer_sys::fuzz_target;
use memobuild_dockerfile::ignore::{IgnoreMatcher, gomatch, gomatch_deep, read_patterns};

/// As Go's `filepath.Clean` leaves a relative path: what a walk asks for.
fn is_clean(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (text, path) = input;
    let patterns = read_patterns(text);
    for pattern in &patterns {
        let (flat, deep) = (gomatch(pattern.as_bytes(), path), gomatch_deep(pattern.as_bytes(), path));
        if !pattern.contains("**") && let (Ok(flat), Ok(deep)) = (flat, deep) {
            assert!(!deep || flat, "{pattern:?}");
        }
    }
    let Ok(matcher) = IgnoreMatcher::new(&patterns) else { return };
    if !is_clean(path) {
        let _ = matcher.matches(path);
        return;
    }
    let mut state = matcher.root();
    let mut entered = true;
    for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let dir = &path[..at];
        state = matcher.enter(&state, dir);
        entered &= !state.ignored || matcher.may_match_below(&state, dir);
    }
    let ignored = matcher.matches_in(&state, path);
    if !matcher.has_exceptions() {
        assert_eq!(ignored, matcher.matches(path), "{patterns:?}");
    }
    assert!(entered || ignored, "never looked at, but not ignored: {patterns:?}");
});
