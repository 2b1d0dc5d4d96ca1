//! The one way in: bytes are compared with the digest that names them before a storage shows them to anybody.

use std::io;

use memobuild_tree::{ContentDigest, Sha256Digest};
use sha2::Digest as _;

use super::{BlobWriter, Committed, Result, StorageError};
use crate::BlobId;

enum Hasher {
    Content(Box<blake3::Hasher>),
    Layer(sha2::Sha256),
}

impl Hasher {
    fn digest(self) -> BlobId {
        match self {
            Self::Content(hasher) => BlobId::Content(ContentDigest::from(hasher.finalize())),
            Self::Layer(hasher) => BlobId::Layer(Sha256Digest::from_bytes(hasher.finalize().into())),
        }
    }
}

/// Writes a blob, and commits it only if its bytes have the digest and the length allowed.
pub struct CheckedWriter {
    expected: BlobId,
    hasher: Hasher,
    size: u64,
    limit: u64,
    inner: Option<Box<dyn BlobWriter>>,
}

impl CheckedWriter {
    /// A writer for `expected`, of at most `limit` bytes. Without `inner` the bytes are compared and not kept: of a blob
    /// that is there.
    pub fn new(expected: BlobId, limit: u64, inner: Option<Box<dyn BlobWriter>>) -> Self {
        let hasher = match expected {
            BlobId::Content(_) => Hasher::Content(Box::new(blake3::Hasher::new())),
            BlobId::Layer(_) => Hasher::Layer(sha2::Sha256::new()),
        };
        Self { expected, hasher, size: 0, limit, inner }
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let size = self.size.saturating_add(bytes.len() as u64);
        if size > self.limit {
            return Err(StorageError::TooLarge { limit: self.limit });
        }
        self.size = size;
        match &mut self.hasher {
            Hasher::Content(hasher) => drop(hasher.update(bytes)),
            Hasher::Layer(hasher) => hasher.update(bytes),
        }
        self.inner.as_mut().map_or(Ok(()), |inner| inner.write(bytes))
    }

    /// Compares, then commits. [`StorageError::Integrity`] if the digest differs: then nothing is stored.
    pub fn finish(self) -> Result<Committed> {
        let actual = self.hasher.digest();
        if actual != self.expected {
            return Err(StorageError::Integrity { expected: self.expected, actual, size: self.size });
        }
        self.inner.map_or(Ok(Committed::Existed), BlobWriter::commit)
    }
}

/// For decoders. The [`StorageError`] is inside the error.
impl io::Write for CheckedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_and_too_many_are_refused() {
        let good = BlobId::Content(ContentDigest::of(b"hello"));
        let layer = BlobId::Layer(Sha256Digest::of(b"hello"));
        for id in [good, layer] {
            let mut writer = CheckedWriter::new(id, 5, None);
            writer.take(b"hel").and_then(|()| writer.take(b"lo")).ok();
            assert!(matches!(writer.finish(), Ok(Committed::Existed)));
            let mut writer = CheckedWriter::new(id, 5, None);
            writer.take(b"hell").ok();
            assert!(
                matches!(writer.finish(), Err(StorageError::Integrity { expected, size: 4, .. }) if expected == id)
            );
            let mut writer = CheckedWriter::new(id, 4, None);
            assert!(matches!(writer.take(b"hello"), Err(StorageError::TooLarge { limit: 4 })));
        }
    }
}
