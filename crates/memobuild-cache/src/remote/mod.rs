//! A cache on a server, asked for one record at a time: what [`RemoteCache`] is made of.
//!
//! [`Remote`] is what a protocol has to offer: blobs by SHA-256 with their sizes, and small records by name. Around it
//! stand, from the inside out, [`metrics`], [`verify`], [`breaker`], [`retry`] and [`memory`], each a `Remote` itself.

mod breaker;
mod delta;
mod envelope;
mod error;
mod flight;
mod grpc;
mod http;
mod memory;
mod metrics;
mod options;
mod packing;
mod retry;
#[cfg(test)]
mod testing;
mod tier;
mod upload;
mod verify;

use std::{fmt, fs::File, io::Write};

use memobuild_tree::KeyDigest;

pub(crate) use crate::directory::Blob;
pub use error::RemoteError;
pub use options::RemoteOptions;
pub use tier::{Namespace, RemoteCache};
pub use upload::{Finished, RemoteReport};

/// Blobs that one record may name.
pub(crate) const MAX_BLOBS: usize = 4096;
/// Bytes of a record's value.
pub(crate) const MAX_VALUE: usize = 256 << 10;
/// Blobs in one question for those that are missing.
pub(crate) const MAX_ASKED: usize = 10_000;

/// The name of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RecordName {
    /// 1 to 32 of `a-z`, `0-9`, `-` and `_`.
    pub(crate) ns: String,
    pub(crate) key: KeyDigest,
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ns, self.key.hex())
    }
}

/// What became of a record that was to be the first of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is.
    Stored,
    /// Another one is, with this value.
    Existing(Vec<u8>),
    /// These blobs that it names are not there; nothing was stored.
    Missing(Vec<Blob>),
}

/// A server, by any protocol. Functions block; time-outs are the implementation's.
pub(crate) trait Remote: Send + Sync {
    /// The value of a record; none: there is no such record.
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError>;

    /// Stores a record unless there is one. `blobs` are those without which it is useless, at most [`MAX_BLOBS`].
    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError>;

    /// The newest values of a list, newest first.
    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError>;

    /// Puts a value at the head of a list. Returns the blobs that are not there: if there are any, nothing was stored.
    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError>;

    /// Those of at most [`MAX_ASKED`] blobs that are not there.
    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError>;

    /// Writes a blob's bytes. After an error what was written is worth nothing.
    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError>;

    /// Stores a blob, read from the start of a file.
    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError>;
}

impl Remote for Box<dyn Remote> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        (**self).record(name)
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        (**self).record_put(name, value, blobs)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        (**self).list(name)
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        (**self).list_add(name, value, blobs)
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        (**self).missing(blobs)
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        (**self).fetch(blob, to)
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        (**self).send(blob, from)
    }
}
