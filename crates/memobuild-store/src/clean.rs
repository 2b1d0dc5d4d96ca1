//! What killed processes and power cuts leave in a store's directory, and its removal: behind `memobuild doctor
//! --clean`.
//!
//! GC sweeps most of it too; this says what went. What a living process holds is never touched: everything here belongs
//! to a process by a lock that the kernel lets go with it.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::mount::{UnmountFlags, unmount};

use crate::{
    Store,
    error::{Result, StoreError},
    gc::remove_unused,
    inventory::{list, tree_bytes, written},
    layout::Layout,
    lease::{leftovers, remove_dead},
    records::now,
    scratch::remove_tree,
};

const MOMENT: Duration = Duration::from_millis(300);

/// What kind of thing was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Remnant {
    /// A mount in a scratch directory.
    Mount,
    /// A scratch directory, or a file half written.
    Scratch,
    /// A lease.
    Lease,
    /// A download with which nobody goes on.
    Download,
    /// The file of a lock that nobody holds, a day old.
    Lock,
    /// The file that says how the store is laid out, without its name or without what it says.
    Format,
}

impl Remnant {
    /// Its name for a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "a mount of a process that is gone",
            Self::Scratch => "scratch space of a process that is gone",
            Self::Lease => "the lease of a process that is gone",
            Self::Download => "a download that nobody went on with for a day",
            Self::Lock => "the file of a lock that nobody holds",
            Self::Format => "a format file that was not written to its end",
        }
    }
}

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Where it was.
    pub path: PathBuf,
    /// What it was.
    pub what: Remnant,
    /// Bytes that it took on disk.
    pub bytes: u64,
}

/// What was removed, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// What is gone now.
    pub removed: Vec<Removed>,
    /// What is still there, and why.
    pub failed: Vec<(PathBuf, String)>,
}

impl Cleaned {
    fn note(&mut self, path: PathBuf, what: Remnant, bytes: u64, result: io::Result<()>) {
        match result {
            Ok(()) => self.removed.push(Removed { path, what, bytes }),
            Err(e) => self.failed.push((path, e.to_string())),
        }
    }
}

impl Store {
    /// Removes what processes that are gone have left. `help` is called with each scratch directory before it is
    /// removed, once nothing is mounted in it: it may do what this user's own rights are not enough for.
    pub fn clean(&self, help: &dyn Fn(&Path)) -> Result<Cleaned> {
        let layout = self.layout();
        let mut out = Cleaned::default();
        // As the sweep of a GC: two at once would only get in each other's way.
        let _one = self.lock("sweep", true)?;
        // Before what they hold is asked for: their removal is what ends a dead process's claim.
        let (_, leases) = remove_dead(layout)?;
        for path in leases {
            out.note(path, Remnant::Lease, 0, Ok(()));
        }
        for path in leftovers(layout)? {
            for mount in mounts_below(&path) {
                let result = unmount(&mount, UnmountFlags::DETACH).map_err(io::Error::from);
                out.note(mount, Remnant::Mount, 0, result);
            }
            let bytes = tree_bytes(&path);
            if path.is_dir() && mounts_below(&path).is_empty() {
                help(&path);
            }
            // What was started by a process that was just killed takes a moment to end, and may write until then.
            let result = remove_unmounted(&path).or_else(|_| {
                thread::sleep(MOMENT);
                remove_unmounted(&path)
            });
            out.note(path, Remnant::Scratch, bytes, result);
        }
        let files =
            |dir: &Path| -> Result<Vec<PathBuf>> { Ok(list(dir)?.into_iter().filter(|p| p.is_file()).collect()) };
        for (dir, what) in [(layout.oci_partials(), Remnant::Download), (layout.locks(), Remnant::Lock)] {
            for path in remove_unused(files(&dir)?.into_iter(), false)? {
                out.note(path, what, 0, Ok(()));
            }
        }
        for path in files(&layout.dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("format.") && is_half_format(&path) {
                let result = fs::remove_file(&path);
                out.note(path, Remnant::Format, 0, result);
            }
        }
        Ok(out)
    }

    /// Removes the `format` file of a store if it is empty, so that the next opening writes it: nothing is ever written
    /// so, but a store that was made just before a power cut can have one. Says whether it did.
    pub fn mend_format(dir: &Path) -> Result<Option<Removed>> {
        let path = dir.join("format");
        let empty = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        // A directory of someone else's may have a file of that name, too.
        if !empty || !dir.join("leases").is_dir() || !dir.join("bundles").is_dir() {
            return Ok(None);
        }
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        Ok(Some(Removed { path, what: Remnant::Format, bytes: 0 }))
    }
}

/// Whether a `format` file on its way to its name will never get it: making one takes no time, and a minute has passed.
pub(crate) fn is_half_format(path: &Path) -> bool {
    now() - written(path) > 60
}

/// Removes a dead process's scratch space. What something is mounted on is not entered: it would be emptied, whatever
/// it is.
pub(crate) fn remove_unmounted(path: &Path) -> io::Result<()> {
    match mounts_below(path).first() {
        Some(mount) => Err(io::Error::other(format!("something is mounted on {}", mount.display()))),
        None => remove_tree(path),
    }
}

/// Removes what a dead process left in `tmp/`, as the sweep does.
pub(crate) fn remove_leftover(layout: &Layout, path: &Path) -> io::Result<()> {
    let still = leftovers(layout).map_err(io::Error::other)?;
    if still.iter().any(|left| left == path) { remove_unmounted(path) } else { Ok(()) }
}

/// Where something is mounted at or below a path, as this process sees it; the innermost first.
fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut out: Vec<PathBuf> = table.split(|b| *b == b'\n').filter_map(mount_point).collect();
    // The table has them as they were mounted, and the path may lead through links.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    out.retain(|mount| mount.starts_with(&real));
    out.reverse();
    out
}

/// The fifth field of a line of mountinfo: blanks and the like are three octal digits there.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut field = line.split(|b| *b == b' ').nth(4)?;
    let mut out = Vec::with_capacity(field.len());
    while let Some((first, rest)) = field.split_first() {
        let digits = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                field = rest.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                field = rest;
            }
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_may_have_blanks() {
        let line = br"36 35 98:0 /mnt1 /a/b\040c\134d rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/a/b c\d")));
        assert_eq!(mount_point(b""), None);
        assert!(mounts_below(Path::new("/")).contains(&PathBuf::from("/")));
    }
}
