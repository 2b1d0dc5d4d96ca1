//! What can go wrong in the test itself.

use std::{io, path::PathBuf};

/// The test could not go on. This says nothing about what is tested.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// A file or directory of the test.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A base image could not be made.
    #[error("no base image: {0}")]
    Base(String),
    /// Steps can't be run on this machine: there is nothing to test with.
    #[error("this machine can't run steps: {0}")]
    NoSandbox(String),
    /// Not even a trivial build works.
    #[error("a build of `FROM base`, `RUN true` fails: {0}")]
    FirstBuild(String),
    /// An image that was built can't be read.
    #[error("{}: {what}", .path.display())]
    Image {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Says which file it was.
pub(crate) fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> SoakError + '_ {
    move |source| SoakError::Io { path: path.to_owned(), source }
}
