//! Why an image can't be written.

use std::{io, path::PathBuf};

use memobuild_store::StoreError;
use memobuild_tree::{Sha256Digest, path::display};

use crate::{layer::LayerError, registry::RegistryError};

/// An output that failed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry failed or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A root file system can't be written as tar.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A document can't be written as JSON.
    #[error("could not write JSON")]
    Json(#[from] serde_json::Error),
    /// A file can't be written.
    #[error("could not write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("could not write to standard output")]
    Stdout(#[source] io::Error),
    /// A blob of the image is not in the store.
    #[error("no blob {0} in the store")]
    NoBlob(Sha256Digest),
    /// `type=docker` of several platforms.
    #[error("a docker archive holds one platform only")]
    ManyPlatforms,
    /// A directory that holds something stands where something else must go.
    #[error("{} is a directory that is not empty; it would have to make way for {what}", path.display())]
    InTheWay {
        /// The directory.
        path: PathBuf,
        /// What the image has there.
        what: &'static str,
    },
    /// A path of the image can't be made.
    #[error("could not write {}", display(path))]
    Node {
        /// The path in the image.
        path: Vec<u8>,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This kind of output goes to a file or standard output.
    #[error("{} is a directory: name a file, or - for standard output", .0.display())]
    IsDirectory(PathBuf),
}

impl OutputError {
    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::ManyPlatforms => Some("use --output type=oci, or one --platform".into()),
            Self::InTheWay { .. } => Some("take it away, or choose an empty directory".into()),
            _ => None,
        }
    }
}
