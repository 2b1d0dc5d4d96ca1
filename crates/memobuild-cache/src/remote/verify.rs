//! Nothing is taken on trust: what comes for a blob has its digest and size, or it is an error.

use std::{
    fs::File,
    io::{self, Write},
};

use memobuild_observe::log_cas_verify_fail;
use memobuild_tree::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::{Blob, Put, RecordName, Remote, RemoteError};

/// Compares blobs with their names.
pub(super) struct Verify<R>(pub(super) R);

impl<R: Remote> Remote for Verify<R> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.0.record(name)
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        self.0.record_put(name, value, blobs)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.0.list(name)
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.0.list_add(name, value, blobs)
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.0.missing(blobs)
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let mut checked = Checked { to, hasher: Sha256::new(), left: blob.size, over: false };
        let fetched = self.0.fetch(blob, &mut checked);
        let Checked { hasher, left, over, .. } = checked;
        if over {
            log_cas_verify_fail!(blob.digest, "more bytes than it has", blob.size);
            return Err(RemoteError::Damaged(blob.digest));
        }
        fetched?;
        let actual = Sha256Digest::from_bytes(hasher.finalize().into());
        if left == 0 && actual == blob.digest {
            return Ok(());
        }
        log_cas_verify_fail!(blob.digest, actual, blob.size - left);
        Err(RemoteError::Damaged(blob.digest))
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.0.send(blob, from)
    }
}

/// Lets no more through than there should be: an endless answer fills no disk.
struct Checked<'a> {
    to: &'a mut dyn Write,
    hasher: Sha256,
    left: u64,
    over: bool,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.over = true;
            return Err(io::Error::other("more bytes than the blob has"));
        }
        let count = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::{Fake, blob, file};

    #[test]
    fn what_is_something_else_is_refused() {
        let verify = Verify(Fake::default());
        let whole = blob(b"content");
        verify.send(&whole, &mut file(b"content")).unwrap();
        let mut got = Vec::new();
        verify.fetch(&whole, &mut got).unwrap();
        assert_eq!(got, b"content");
        for wrong in [b"contents".as_slice(), b"conten", b"Content", b""] {
            verify.0.replace(&whole, wrong);
            let error = verify.fetch(&whole, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, RemoteError::Damaged(digest) if digest == whole.digest), "{error}");
        }
        // A digest that is right does not make up for a size that is not.
        verify.0.replace(&whole, b"content");
        assert!(verify.fetch(&Blob { size: 8, ..whole }, &mut Vec::new()).is_err());
    }
}
