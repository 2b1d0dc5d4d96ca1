//! Go's `filepath.Match`, and its `**` variant for `COPY`.

/// A pattern that is not well-formed. Displays as Go words it, with the pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
}

/// Go's `filepath.Match` for slash-separated names: `*` and `?` stop at `/`, `[a-z]`, `[^a]`,
/// backslash escapes; the whole name must match.
///
/// # Errors
/// The pattern is malformed, whether or not the name needed all of it.
pub fn gomatch(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let _ = (pattern, name);
    todo!()
}

/// As [`gomatch`], and a `**` component matches any number of components.
///
/// # Errors
/// The pattern is malformed.
pub fn gomatch_deep(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let _ = (pattern, name);
    todo!()
}
