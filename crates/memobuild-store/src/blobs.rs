//! Large files: one blob each, named by BLAKE3, taken in by rename and never written again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use memobuild_tree::ContentDigest;

use crate::{
    Ref, Store,
    bundle::{copy_checked, corrupt},
    error::{Result, StoreError},
    layout::rename_in,
    mark,
    tmp_file::{TmpFile, seal},
};

impl Store {
    /// The path of a large file's blob, if it is there and whole. The first question after a restart of the machine
    /// may read the blob through, see the module docs on marks.
    pub fn blob_path(&self, digest: &ContentDigest) -> Option<PathBuf> {
        // Damage has been set aside: it is not there any more.
        self.whole_blob(digest).ok().flatten().map(|(path, _)| path)
    }

    /// The path and length of a blob that is there and whole. One that is damaged is set aside.
    pub(crate) fn whole_blob(&self, digest: &ContentDigest) -> Result<Option<(PathBuf, u64)>> {
        let path = self.layout().blob(digest);
        self.process_lease().touch(&[Ref::Content(*digest)])?;
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("inspect", &path)(e)),
        };
        let known = self.whole_blobs().read().unwrap_or_else(PoisonError::into_inner).contains(digest);
        if !known && !mark::is_whole(&meta) {
            let file = File::open(&path).map_err(StoreError::io("open", &path))?;
            if hash_file(&file).map_err(StoreError::io("read", &path))?.0 != *digest {
                self.set_aside(&path);
                self.bundles().doubt();
                return Ok(None);
            }
            // Another user's blob can't be marked, and is verified by every process.
            let _ = mark::set_this_boot(&file);
        }
        if !known {
            self.whole_blobs().write().unwrap_or_else(PoisonError::into_inner).insert(*digest);
        }
        Ok(Some((path, meta.len())))
    }

    /// Reads a blob through. For who handed out its [path](Self::blob_path) and sees that the file is not what it was.
    ///
    /// # Errors
    /// It is gone, can't be read, or is damaged: then it is set aside.
    pub fn verify_blob(&self, digest: &ContentDigest) -> Result<()> {
        let path = self.layout().blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::MissingContent { digest: *digest, at: None });
            }
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        if hash_file(&file).map_err(StoreError::io("read", &path))?.0 == *digest {
            return Ok(());
        }
        self.whole_blobs().write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        self.set_aside(&path);
        self.bundles().doubt();
        Err(damaged(&path))
    }

    /// Gives a blob that this process wrote its name.
    pub(crate) fn keep_blob(&self, tmp: TmpFile, digest: &ContentDigest) -> Result<()> {
        let path = self.layout().blob(digest);
        self.process_lease().touch(&[Ref::Content(*digest)])?;
        tmp.keep(&path)?;
        self.blob_is_new(digest, path);
        Ok(())
    }

    fn blob_is_new(&self, digest: &ContentDigest, path: PathBuf) {
        self.whole_blobs().write().unwrap_or_else(PoisonError::into_inner).insert(*digest);
        self.note_unsettled(path);
    }

    /// Takes in a file from elsewhere in the same file system.
    pub(crate) fn adopt(&self, tmp: &Path, digest: &ContentDigest, size: u64) -> Result<()> {
        let path = self.layout().blob(digest);
        self.process_lease().touch(&[Ref::Content(*digest)])?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(tmp)
            .map_err(StoreError::io("open", tmp))?;
        let meta = file.metadata().map_err(StoreError::io("inspect", tmp))?;
        if !meta.is_file() || meta.len() != size {
            return Err(StoreError::ChangedWhileRead { path: tmp.to_path_buf() });
        }
        // A second name, or another owner, could still be used to write to it.
        let private = meta.nlink() == 1 && own(&file, &meta);
        if private && seal(&file).is_ok() {
            match rename_in(tmp, &path) {
                Ok(()) => {
                    self.blob_is_new(digest, path);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
                Err(e) => return Err(StoreError::io("write", &path)(e)),
            }
        }
        let mut copy = TmpFile::create(self.layout(), self.process_lease())?;
        copy_checked(&file, &mut copy.file, tmp, digest)?;
        self.keep_blob(copy, digest)?;
        fs::remove_file(tmp).map_err(StoreError::io("remove", tmp))
    }

    /// Syncs what this process has written and marks it so, so that it need not be read through after a restart of the
    /// machine. Slow on some disks: call it in the background, or not at all.
    pub fn settle(&self) -> Result<()> {
        for path in self.take_unsettled() {
            match File::open(&path) {
                Ok(file) => mark::settle(&file).map_err(StoreError::io("sync", &path))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("open", &path)(e)),
            }
        }
        Ok(())
    }
}

/// Makes a file our own if it is not.
fn own(file: &File, meta: &fs::Metadata) -> bool {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    meta.uid() == uid.as_raw() || rustix::fs::fchown(file, Some(uid), Some(gid)).is_ok()
}

/// Digest and length of all that a file holds.
pub(crate) fn hash_file(file: &File) -> io::Result<(ContentDigest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut reader = file;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let n = crate::tmp_file::read_full(&mut reader, &mut buffer)?;
        if n == 0 {
            return Ok((hasher.finalize().into(), hasher.count()));
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
    }
}

/// The error for a blob that is found damaged while it is read.
pub(crate) fn damaged(path: &Path) -> StoreError {
    corrupt("blob", path, "it does not hold the bytes that its name says".into())
}
