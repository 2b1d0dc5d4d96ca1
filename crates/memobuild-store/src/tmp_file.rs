//! A file being written: it has a name in `tmp/` until it gets its final one, and goes when it never does.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Result, StoreError},
    layout::{Layout, rename_in, rename_new},
    lease::ProcessLease,
    mark,
};

/// A temporary file of the store.
#[derive(Debug)]
pub(crate) struct TmpFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    kept: bool,
}

impl TmpFile {
    pub(crate) fn create(layout: &Layout, lease: &ProcessLease) -> Result<Self> {
        let path = layout.tmp().join(lease.tmp_name()?);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(StoreError::io("make", &path))?;
        Ok(Self { file, path, kept: false })
    }

    /// Renames it to where it belongs, readable by all and writable by none, marked as whole.
    pub(crate) fn keep(mut self, to: &Path) -> Result<()> {
        seal(&self.file).map_err(StoreError::io("write", &self.path))?;
        rename_in(&self.path, to).map_err(StoreError::io("write", to))?;
        self.kept = true;
        Ok(())
    }
}

impl TmpFile {
    /// As [`TmpFile::keep`], but what stands there already stays: then the file is given back.
    pub(crate) fn keep_if_new(mut self, to: &Path) -> Result<Option<Self>> {
        seal(&self.file).map_err(StoreError::io("write", &self.path))?;
        match rename_new(&self.path, to) {
            Ok(true) => {
                self.kept = true;
                Ok(None)
            }
            Ok(false) => Ok(Some(self)),
            Err(e) => Err(StoreError::io("write", to)(e)),
        }
    }

    /// Renames it to where it belongs as it is: for files that are replaced and whose times mean something.
    pub(crate) fn keep_plain(mut self, to: &Path) -> Result<()> {
        rename_in(&self.path, to).map_err(StoreError::io("write", to))?;
        self.kept = true;
        Ok(())
    }
}

/// Makes a file's bytes final: 0444 whatever the umask, and marked as written in this boot.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(0o444))?;
    mark::set_this_boot(file)
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads until the buffer is full or the end is reached; the number of bytes read.
pub(crate) fn read_full(reader: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
