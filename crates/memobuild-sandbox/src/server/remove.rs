//! Removes a step's scratch directory from within the user namespace, where its files' owners have meaning.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::{During, Failure};

/// Removes a directory and all below it; nothing there is fine, and so is another process that does the same. No path is ever longer than one name, and the depth
/// costs one descriptor at a time.
pub(crate) fn remove_all(at: &[u8]) -> Result<(), Failure> {
    remove_at(rustix::fs::CWD, at)
}

/// The same, from a directory on.
pub(crate) fn remove_at(from: BorrowedFd<'_>, at: &[u8]) -> Result<(), Failure> {
    let what = || format!("removing {}", String::from_utf8_lossy(at));
    let top = match open_dir(from, at) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.during(what)?,
    };
    empty(&top).during(what)?;
    gone(rustix::fs::unlinkat(from, OsStr::from_bytes(at), AtFlags::REMOVEDIR)).during(what)
}

/// Whether something is gone now: by this process or another.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Empties a directory by lifting what lies deep to the top, so that neither recursion nor descriptors grow with depth.
fn empty(top: &OwnedFd) -> Result<(), Errno> {
    let mut lifted = 0u64;
    loop {
        let subdirectories = unlink_files(top, top, &mut lifted)?;
        if subdirectories.is_empty() {
            return Ok(());
        }
        for name in subdirectories {
            let dir = match open_dir(top, &name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            unlink_files(&dir, top, &mut lifted)?;
            drop(dir);
            gone(rustix::fs::unlinkat(top, OsStr::from_bytes(&name), AtFlags::REMOVEDIR))?;
        }
    }
}

/// overlayfs leaves `work/work` with no permissions at all, and steps can do so, too.
fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let name = OsStr::from_bytes(name);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o700), AtFlags::empty())?;
            rustix::fs::openat(&parent, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// Unlinks all that is no directory; gives the directories of `top` itself, and moves those of others up into `top`.
fn unlink_files(dir: &OwnedFd, top: &OwnedFd, lifted: &mut u64) -> Result<Vec<Vec<u8>>, Errno> {
    use std::os::fd::AsRawFd;
    let is_top = dir.as_raw_fd() == top.as_raw_fd();
    let mut names = Vec::new();
    let mut entries = Dir::read_from(dir.as_fd())?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        names.push((name.to_owned(), entry.file_type()));
    }
    let mut subdirectories = Vec::new();
    for (name, kind) in names {
        let directory = match kind {
            FileType::Directory => true,
            FileType::Unknown => match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => FileType::from_raw_mode(stat?.st_mode).is_dir(),
            },
            _ => false,
        };
        if !directory {
            gone(rustix::fs::unlinkat(dir, &name, AtFlags::empty()))?;
        } else if is_top {
            subdirectories.push(name.into_bytes());
        } else if gone(rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR)).is_err() {
            // A directory without permissions cannot be renamed to another parent.
            match open_dir(dir, name.to_bytes()) {
                Err(Errno::NOENT) => continue,
                opened => drop(opened?),
            }
            loop {
                *lifted += 1;
                let to = format!(".remove.{lifted}");
                match rustix::fs::renameat_with(dir, &name, top, to.as_str(), rustix::fs::RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => {}
                    other => break gone(other)?,
                }
            }
        }
    }
    Ok(subdirectories)
}
