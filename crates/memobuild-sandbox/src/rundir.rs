//! A directory of its own for each process, in a scratch directory that several may share; and the removal of what killed
//! processes left there.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{error::SandboxError, launch::ServerHandle, layout::roots::Roots};

/// The names below scratch: `run-PID-N`, with a lock beside it that its process holds.
const RUN_PREFIX: &str = "run-";
const LOCK_SUFFIX: &str = ".lock";

/// A directory of this process's own in scratch, which several processes may share.
#[derive(Debug)]
pub(crate) struct RunDir {
    /// The directory.
    pub(crate) path: PathBuf,
    lock_path: PathBuf,
    /// Held as long as this lives, and let go by the kernel when the process dies.
    _lock: std::fs::File,
}

/// Has ext4 put the directories made in this one far from each other; other file systems don't know the flag. Each step
/// has a directory and frees what was in it, and an ext4 without a journal looks at every inode freed lately in the
/// neighbourhood, one by one, for each file that is made there: 50 steps in one place cost twice the time.
fn spread(dir: &Path) {
    use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};
    let opened = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // A matter of speed only.
    let _ = opened.and_then(|dir| ioctl_setflags(&dir, ioctl_getflags(&dir)? | IFlags::TOPDIR));
}

impl RunDir {
    /// Makes one.
    pub(crate) fn create(scratch: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(scratch)?;
        let pid = std::process::id();
        for number in 0u64.. {
            let path = scratch.join(format!("{RUN_PREFIX}{pid}-{number}"));
            let lock_path = scratch.join(format!("{RUN_PREFIX}{pid}-{number}{LOCK_SUFFIX}"));
            let lock = match std::fs::File::create_new(&lock_path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            // Another process may have taken it for one that a dead process left.
            if lock.try_lock().is_err() || std::fs::create_dir(&path).is_err() {
                continue;
            }
            spread(&path);
            return Ok(Self { path, lock_path, _lock: lock });
        }
        Err(std::io::ErrorKind::AlreadyExists.into())
    }

    /// Removes what processes left that were killed.
    pub(crate) fn remove_leftovers(scratch: &Path, server: &ServerHandle) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Scratch { path: scratch.to_owned(), source };
        for entry in std::fs::read_dir(scratch).map_err(failed)? {
            let lock_path = entry.map_err(failed)?.path();
            let name = lock_path.file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
            let Some(run) = name.strip_suffix(LOCK_SUFFIX.as_bytes()) else { continue };
            if !run.starts_with(RUN_PREFIX.as_bytes()) {
                continue;
            }
            let Ok(lock) = std::fs::File::open(&lock_path) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let run = scratch.join(std::ffi::OsStr::from_bytes(run));
            if run.exists() {
                Roots::rescue(&run).map_err(failed)?;
            }
            server.remove(&run)?;
            server.finish_removals()?;
            let _ = std::fs::remove_file(&lock_path);
        }
        Ok(())
    }

    /// Removes the directory. What cannot be removed now is found by the next process that uses the same scratch
    /// directory.
    pub(crate) fn remove(&self, server: &ServerHandle) {
        // Two removals at once would take things from under each other.
        let _ = server.finish_removals();
        let asked = server.remove(&self.path);
        if asked.and_then(|()| server.finish_removals()).is_ok() {
            let _ = std::fs::remove_file(&self.lock_path);
        }
    }
}
