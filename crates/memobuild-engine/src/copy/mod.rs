//! `COPY` and `ADD` as edits of a tree in memory.
//!
//! [`select`] finds what the sources are (wildcards, `--exclude`, `--parents`) and gives it an identity for the key;
//! [`place`] puts it into the destination by the rules of BuildKit's file operations (fsutil `copy`). Neither reads a
//! file's bytes: a selected file carries its digest.

mod editor;
mod place;
mod select;

pub(crate) use editor::{Edited, Editor};
pub(crate) use place::{Attributes, place};
pub(crate) use select::{Pick, Query, SelectError, Selected, has_wildcards, select};

#[cfg(test)]
mod tests;
