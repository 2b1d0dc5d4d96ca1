//! Blobs of images as registries and layouts know them: by SHA-256, compressed or not, kept as they came.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::PathBuf,
    sync::PoisonError,
};

use memobuild_tree::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::{
    Ref, Store,
    error::{Result, StoreError},
    layout::rename_in,
    lock::FileLock,
    mark,
    tmp_file::{TmpFile, seal},
};

impl Store {
    /// Starts a blob whose digest is known when all of it is written.
    pub fn oci_blob_writer(&self) -> Result<OciBlobWriter> {
        let tmp = TmpFile::create(self.layout(), self.process_lease())?;
        Ok(OciBlobWriter { store: self.clone(), tmp, hasher: Sha256::new(), size: 0 })
    }

    /// The path of a blob, if it is there and whole.
    pub fn oci_blob_path(&self, digest: &Sha256Digest) -> Option<PathBuf> {
        let path = self.layout().oci_blob(digest);
        self.process_lease().touch(&[Ref::Oci(*digest)]).ok()?;
        let meta = fs::metadata(&path).ok()?;
        let known = self.whole_oci_blobs().read().unwrap_or_else(PoisonError::into_inner).contains(digest);
        if !known && !mark::is_whole(&meta) {
            let file = File::open(&path).ok()?;
            if sha256_file(&file).ok()? != *digest {
                self.set_aside(&path);
                return None;
            }
            let _ = mark::set_this_boot(&file);
        }
        self.oci_blob_is_whole(digest);
        Some(path)
    }

    /// Takes a blob away that nothing names: one that only passed through. Whoever else wants it makes or fetches it again.
    pub fn oci_blob_remove(&self, digest: &Sha256Digest) {
        self.whole_oci_blobs().write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        // What stays is garbage to GC.
        let _ = fs::remove_file(self.layout().oci_blob(digest));
    }

    fn oci_blob_is_whole(&self, digest: &Sha256Digest) {
        self.whole_oci_blobs().write().unwrap_or_else(PoisonError::into_inner).insert(*digest);
    }

    /// Stores a blob that is in memory, such as a manifest.
    pub fn oci_blob_put(&self, bytes: &[u8]) -> Result<Sha256Digest> {
        let digest = Sha256Digest::of(bytes);
        if self.oci_blob_path(&digest).is_none() {
            let mut writer = self.oci_blob_writer()?;
            writer.write_all(bytes).map_err(StoreError::io("write", &writer.tmp.path))?;
            writer.finish(Some(digest))?;
        }
        Ok(digest)
    }

    /// A download that goes on where an earlier attempt ended. Waits while another process downloads the same blob;
    /// `None` if the blob is there by then.
    pub fn partial(&self, digest: &Sha256Digest) -> Result<Option<Partial>> {
        let path = self.layout().oci_partials().join(digest.hex());
        let Some(lock) = FileLock::take(&path, true, true)? else { return Ok(None) };
        if self.oci_blob_path(digest).is_some() {
            lock.remove();
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        let size = feed(&lock.file, &mut hasher).map_err(StoreError::io("read", &path))?;
        Ok(Some(Partial { store: self.clone(), digest: *digest, lock, path, hasher, size }))
    }
}

/// A blob being written. Dropped without [`OciBlobWriter::finish`] it leaves nothing.
#[derive(Debug)]
pub struct OciBlobWriter {
    store: Store,
    tmp: TmpFile,
    hasher: Sha256,
    size: u64,
}

impl Write for OciBlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.tmp.file.write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OciBlobWriter {
    /// Gives the blob its name. With an expected digest, another one is an error and nothing is stored.
    pub fn finish(self, expected: Option<Sha256Digest>) -> Result<(Sha256Digest, u64)> {
        let digest = Sha256Digest::from_bytes(self.hasher.finalize().into());
        if let Some(expected) = expected.filter(|e| *e != digest) {
            return Err(StoreError::DigestMismatch { expected, actual: digest, size: self.size });
        }
        let path = self.store.layout().oci_blob(&digest);
        self.store.process_lease().touch(&[Ref::Oci(digest)])?;
        self.tmp.keep(&path)?;
        self.store.oci_blob_is_whole(&digest);
        self.store.note_unsettled(path);
        Ok((digest, self.size))
    }
}

/// A download under way. What is written is appended; dropped, it keeps what it has for the next attempt.
#[derive(Debug)]
pub struct Partial {
    store: Store,
    digest: Sha256Digest,
    lock: FileLock,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl Partial {
    /// Bytes that are there: ask the registry for those that follow.
    pub fn offset(&self) -> u64 {
        self.size
    }

    /// Throws away what is there: the registry starts from the beginning.
    pub fn restart(&mut self) -> Result<()> {
        self.lock.file.set_len(0).map_err(StoreError::io("empty", &self.path))?;
        io::Seek::rewind(&mut &self.lock.file).map_err(StoreError::io("empty", &self.path))?;
        self.hasher = Sha256::new();
        self.size = 0;
        Ok(())
    }

    /// Checks the digest and gives the blob its name; its size in bytes. On a mismatch what was downloaded is thrown
    /// away.
    pub fn finish(self) -> Result<u64> {
        let actual = Sha256Digest::from_bytes(self.hasher.finalize().into());
        if actual != self.digest {
            self.lock.remove();
            return Err(StoreError::DigestMismatch { expected: self.digest, actual, size: self.size });
        }
        let path = self.store.layout().oci_blob(&actual);
        self.store.process_lease().touch(&[Ref::Oci(actual)])?;
        rename_in(&self.path, &path).map_err(StoreError::io("write", &path))?;
        // After the rename: a sealed partial could not be opened for appending, should this end in between.
        seal(&self.lock.file).map_err(StoreError::io("write", &path))?;
        self.store.oci_blob_is_whole(&actual);
        self.store.note_unsettled(path);
        Ok(self.size)
    }
}

impl Write for Partial {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = (&self.lock.file).write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of all that a file holds.
pub(crate) fn sha256_file(file: &File) -> io::Result<Sha256Digest> {
    let mut hasher = Sha256::new();
    feed(file, &mut hasher)?;
    Ok(Sha256Digest::from_bytes(hasher.finalize().into()))
}

/// Hashes what follows in a file; the number of bytes.
fn feed(mut file: &File, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(n) => {
                hasher.update(buffer.get(..n).unwrap_or_default());
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
