//! What can go wrong in a storage.

use std::{io, path::Path};

use crate::BlobId;

/// A storage that could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Reading or writing failed.
    #[error("cannot {what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The database failed.
    #[error("the database of records failed")]
    Database(#[source] rusqlite::Error),
    /// The shared database refused a statement.
    #[error("the database of records failed")]
    Postgres(#[from] tokio_postgres::Error),
    /// The object store refused a request: no such bucket, no permission.
    #[error("the object store refused a request")]
    Objects(#[from] object_store::Error),
    /// A database or an object store that may be back soon does not answer, or not in time.
    #[error("{what} does not answer")]
    Unavailable {
        /// Which.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address of a storage or a database can't be used.
    #[error("{what}: {reason}")]
    Address {
        /// The address, without any password.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The object store and the database don't belong together.
    #[error("{0}")]
    Mismatch(String),
    /// Another server uses the directory.
    #[error("another server uses {0}")]
    InUse(String),
    /// The directory was written by a version with another layout.
    #[error("{path} has format {found:?}, this version reads {expected:?}")]
    Format {
        /// The directory.
        path: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// There is no room, even after removing what may be removed.
    #[error("the storage is full")]
    Full,
    /// A blob is longer than allowed.
    #[error("longer than {limit} bytes")]
    TooLarge {
        /// The most bytes that a blob may have.
        limit: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("expected {expected}, got {actual} ({size} bytes)")]
    Integrity {
        /// What they were announced as.
        expected: BlobId,
        /// What they are.
        actual: BlobId,
        /// How many came.
        size: u64,
    },
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Database(error),
        }
    }
}

impl StorageError {
    /// Adds what was being done to which path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| match source.kind() {
            // A full disk and a full storage are one thing to a client.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { what, source },
        }
    }
}
