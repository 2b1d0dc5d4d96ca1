//! Dockerfile text to a syntax tree with spans; word expansion; ignore patterns; lint checks.
//!
//! In: the bytes of a Dockerfile or of an ignore file. Out: a [`Dockerfile`], expanded words, an
//! [`ignore::IgnoreMatcher`], lint findings, and [`Diagnostic`]s with a marked source excerpt.
//! Called by `memobuild-plan` and by the binary's `check` command. It follows the published
//! behaviour of BuildKit's Dockerfile frontend. It never reads a file, an environment variable
//! or a clock, and never panics on any input.
#![forbid(unsafe_code)]

pub mod ast;
pub mod diagnostic;
mod directives;
pub mod dump;
mod flags;
mod heredoc;
pub mod ignore;
mod instructions;
mod json;
mod lines;
pub mod lint;
mod mounts;
mod parse;
pub mod path;
pub mod ports;
mod raw;
pub mod span;
#[cfg(test)]
mod tests;
mod tokens;
pub mod values;
pub mod words;

pub use ast::Dockerfile;
pub use diagnostic::{Diagnostic, ParseError, Severity};
pub use parse::{parse, parse_trigger};
pub use span::{Pos, SourceFile, Span};
