//! What can go wrong with the store, and what a person can do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use memobuild_observe::MemoBuildError;
use memobuild_tree::{BundleId, ContentDigest, Sha256Digest, path};

/// The result of every store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Every failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("could not {op} {}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The disk (or the quota) is full.
    #[error("no space left to {op} {}", path.display())]
    NoSpace {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Permission was refused: most often the directory of another user.
    #[error("not allowed to {op} {}", path.display())]
    Permission {
        /// What was tried, as a verb phrase.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Bytes on disk are not what was written. What was damaged has been set aside where that was possible, so that
    /// the next attempt makes it anew: to callers it is a miss.
    #[error("damaged {what} {}: {detail}", path.display())]
    Corrupt {
        /// What kind of thing: `bundle`, `blob`, `file in bundle`.
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// How it shows.
        detail: String,
    },
    /// The SQLite index can neither be read nor set aside.
    #[error("damaged index {}", path.display())]
    CorruptIndex {
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite failed for a reason other than damage, such as another process holding the lock for too long.
    #[error("could not {op} the index {}", path.display())]
    Index {
        /// What was tried, as a verb.
        op: &'static str,
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// A blob's bytes do not have the digest that was announced.
    #[error("digest mismatch: expected {expected}, got {actual} ({size} bytes)")]
    DigestMismatch {
        /// What was announced.
        expected: Sha256Digest,
        /// What the bytes have.
        actual: Sha256Digest,
        /// How many bytes there were.
        size: u64,
    },
    /// A diff names contents that were never given to the store.
    #[error("no content {digest} in the store{}", at.as_ref().map(|p| format!(" (for {})", path::display(p))).unwrap_or_default())]
    MissingContent {
        /// What lacks.
        digest: ContentDigest,
        /// The path in the diff that names it.
        at: Option<Vec<u8>>,
    },
    /// A content that lies elsewhere can't be brought here.
    #[error("content {digest} could not be fetched")]
    Fetch {
        /// Which.
        digest: ContentDigest,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A bundle that another one refers to is gone.
    #[error("no bundle {0} in the store")]
    MissingBundle(BundleId),
    /// The directory was made by a version that stores things differently, or is no store at all.
    #[error("{} has store format {found:?}, this version reads {supported:?}", dir.display())]
    Format {
        /// The store's directory.
        dir: PathBuf,
        /// What its `format` file says.
        found: String,
        /// What it would have to say.
        supported: &'static str,
    },
    /// A file changed while it was being read, so that its digest means nothing.
    #[error("{} changed while it was being read", path.display())]
    ChangedWhileRead {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// For `map_err`: sorts a system error by its kind.
    pub fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.as_ref().to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { op, path, source },
                io::ErrorKind::PermissionDenied => Self::Permission { op, path, source },
                _ => Self::Io { op, path, source },
            }
        }
    }

    /// As [`StoreError::io`], for the error type of direct system calls.
    pub(crate) fn sys(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::io(op, path)(errno.into())
    }

    /// Whether asking again later gives a miss rather than this error: damage is set aside when it is found.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::MissingContent { .. } | Self::MissingBundle(_))
    }

    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSpace { .. } => {
                "free some space with `memobuild prune`, or set MEMOBUILD_CACHE_DIR to another disk".into()
            }
            Self::Permission { path, .. } => format!(
                "{} may belong to another user (was memobuild run with sudo?); change its owner or set MEMOBUILD_CACHE_DIR",
                path.display()
            ),
            Self::Corrupt { .. } | Self::MissingBundle(_) | Self::MissingContent { .. } => {
                "build again: what is damaged counts as not cached; repeated damage points to a failing disk".into()
            }
            Self::CorruptIndex { path, .. } => {
                format!("move {} and its -wal and -shm files away: the cache then starts empty", path.display())
            }
            Self::Index { .. } => {
                "another memobuild may be stuck while it holds the index; see `ps` and try again".into()
            }
            Self::DigestMismatch { .. } => {
                "the source sent other bytes than it announced; try again or check the image".into()
            }
            Self::Format { .. } => {
                "use the memobuild version that made it, or set MEMOBUILD_CACHE_DIR to another directory".into()
            }
            Self::ChangedWhileRead { .. } => "build again when nothing writes to it".into(),
            Self::Io { .. } | Self::Fetch { .. } => return None,
        })
    }
}

impl From<StoreError> for MemoBuildError {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for MemoBuildError {
    fn from(error: &StoreError) -> Self {
        let storage = |operation: String, reason: String| Self::StorageError { operation, reason };
        let damaged = |hash: String, reason: &str| Self::CacheCoherencyError { hash, reason: reason.into() };
        match error {
            StoreError::DigestMismatch { expected, actual, size } => Self::CASIntegrityFailure {
                expected: expected.to_string(),
                actual: actual.to_string(),
                data_size: *size,
            },
            StoreError::Io { op, path, source } | StoreError::NoSpace { op, path, source } => {
                storage(format!("{op} {}", path.display()), source.to_string())
            }
            StoreError::Permission { op, path, source } => {
                storage(format!("{op} {}", path.display()), source.to_string())
            }
            StoreError::Index { op, path, source } => {
                storage(format!("{op} the index {}", path.display()), source.to_string())
            }
            StoreError::Corrupt { what, path, detail } => damaged(format!("{what} {}", path.display()), detail),
            StoreError::CorruptIndex { path, source } => {
                damaged(format!("index {}", path.display()), &source.to_string())
            }
            StoreError::MissingContent { digest, .. } => damaged(digest.to_string(), "it is not there"),
            StoreError::MissingBundle(id) => damaged(id.to_string(), "it is not there"),
            StoreError::Fetch { source, .. } => {
                Self::NetworkError { message: format!("{error}: {source}"), retryable: false, attempt: 1 }
            }
            StoreError::Format { dir, .. } => storage(format!("use {}", dir.display()), error.to_string()),
            StoreError::ChangedWhileRead { path } => storage(format!("read {}", path.display()), error.to_string()),
        }
    }
}
