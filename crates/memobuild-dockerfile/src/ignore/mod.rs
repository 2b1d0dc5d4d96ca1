//! Ignore files, moby's pattern semantics, and Go's `filepath.Match`.
//!
//! Called by the context scan (through the plan or engine), by `COPY --exclude` and by `COPY`
//! for wildcards. It judges paths; it walks nothing.

mod compile;
mod gomatch;
mod matcher;
mod read;
#[cfg(test)]
mod tests;

pub use gomatch::{BadPattern, gomatch, gomatch_deep};
pub use matcher::{IgnoreMatcher, MatchState};
pub use read::read_patterns;
