//! Room for a step's own files, gone when the step is done.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    Store,
    error::{Result, StoreError},
};

/// A directory of its own below the store, on the same file system as the blobs (so that files can be renamed into
/// them). Removed when dropped; what a killed process leaves is removed by GC.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
}

impl ScratchDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // Directories of subordinate ids can stay behind: GC tells of them.
        let _ = remove_tree(&self.path);
    }
}

impl Store {
    /// Makes a scratch directory, mode 0755.
    pub fn scratch_dir(&self) -> Result<ScratchDir> {
        let path = self.layout().tmp().join(self.process_lease().tmp_name()? + ".d");
        fs::create_dir(&path).map_err(StoreError::io("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(StoreError::io("make", &path))?;
        Ok(ScratchDir { path })
    }
}

/// Removes a file or a whole directory. Directories without permission bits (overlayfs leaves such) get them first.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let remove = || match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match remove() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_removable(path);
            remove()
        }
        other => other,
    }
}

/// Best effort: nobody writes there any more, so nothing can be swapped for a link meanwhile.
fn make_removable(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            make_removable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_without_permissions_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let scratch = store.scratch_dir().unwrap();
        let path = scratch.path().to_path_buf();
        fs::create_dir_all(path.join("work/work/x")).unwrap();
        fs::write(path.join("work/work/x/f"), "x").unwrap();
        fs::set_permissions(path.join("work/work"), fs::Permissions::from_mode(0o000)).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
