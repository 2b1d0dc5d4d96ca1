//! Ignore files, moby's pattern semantics, and Go's `filepath.Match`.

mod gomatch;
mod matcher;
mod read;

pub use gomatch::{BadPattern, gomatch, gomatch_deep};
pub use matcher::{IgnoreMatcher, MatchState};
pub use read::read_patterns;
