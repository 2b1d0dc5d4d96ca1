//! Text to syntax tree.

use crate::ast::{Dockerfile, Instruction};
use crate::diagnostic::ParseError;

/// Parses a Dockerfile. `file` is the name to show in messages.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &[u8], file: &str) -> Result<Dockerfile, ParseError> {
    let _ = (text, file);
    todo!()
}

/// Parses one recorded `ONBUILD` trigger. `file` is the name to show in messages.
///
/// # Errors
/// The first thing that is wrong; `ONBUILD`, `FROM`, `MAINTAINER` and anything but one
/// instruction are errors too.
pub fn parse_trigger(text: &str, file: &str) -> Result<Instruction, ParseError> {
    let _ = (text, file);
    todo!()
}
