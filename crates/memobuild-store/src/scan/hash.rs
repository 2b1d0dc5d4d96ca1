//! When a digest from the last scan still stands for a file, and finding it anew when not.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use memobuild_tree::ContentDigest;
use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, fstatfs, openat},
    io::Errno,
    time::{ClockId, clock_gettime},
};

use crate::error::{Result, StoreError};

/// What must be unchanged for a file to be taken as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) mtime_nanos: u32,
    pub(super) ctime: i64,
    pub(super) ctime_nanos: u32,
    pub(super) inode: u64,
    pub(super) device: u64,
}

impl Fingerprint {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: stat.st_mtime,
            mtime_nanos: stat.st_mtime_nsec as u32,
            ctime: stat.st_ctime,
            ctime_nanos: stat.st_ctime_nsec as u32,
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }
}

/// How finely a file system tells times apart, and with what lag, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granularity {
    device: u64,
    local: bool,
}

/// The kernel stamps files with the time of its last tick, at most 10 ms ago.
const TICK: i128 = 50_000_000;
/// For file systems that know only seconds (FAT: two), or whose clock is another machine's.
const COARSE: i128 = 2_500_000_000;

impl Granularity {
    pub(super) fn of(root: BorrowedFd<'_>, stat: &Stat) -> Self {
        // Magic numbers of statfs(2): ext2-4, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs, bcachefs.
        const LOCAL: [u64; 8] =
            [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010, 0xCA45_1A4E];
        let local = fstatfs(root).is_ok_and(|s| LOCAL.contains(&(s.f_type as u64 & 0xFFFF_FFFF)));
        Self { device: stat.st_dev, local }
    }

    /// Whether a later write to the file could leave its times as they are, as seen from the moment of reading it (as
    /// git's index asks it): then the digest is not to be trusted at the next scan.
    fn is_racy(&self, seen: &Fingerprint, read_at: i128) -> bool {
        let fine = self.local && self.device == seen.device && seen.ctime_nanos != 0;
        let margin = if fine { TICK } else { COARSE };
        let nanos = |secs: i64, nanos: u32| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let newest = nanos(seen.mtime, seen.mtime_nanos).max(nanos(seen.ctime, seen.ctime_nanos));
        newest + margin >= read_at
    }
}

/// A file that was read.
pub(super) struct Hashed {
    pub(super) stat: Stat,
    pub(super) digest: ContentDigest,
    pub(super) racy: bool,
    /// Its length, if all of it is in the buffer.
    pub(super) held: Option<usize>,
}

/// Attempts at reading a file that changes meanwhile.
const ATTEMPTS: usize = 3;

/// Reads and hashes a file. `None` if it is gone, or no regular file any more.
pub(super) fn hash(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mut stat: Stat,
    granularity: Granularity,
    buffer: &mut [u8],
    path: &dyn Fn() -> PathBuf,
) -> Result<Option<Hashed>> {
    for _ in 0..ATTEMPTS {
        let now = clock_gettime(ClockId::Realtime);
        let read_at = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        // A pipe that took the file's name must not block the open.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(StoreError::sys("open", path())(e)),
        };
        let read = digest_of(&file, stat.st_size as u64, buffer);
        let (digest, held) = read.map_err(|e| StoreError::io("read", path())(e))?;
        let after = fstat(file.as_fd()).map_err(|e| StoreError::sys("inspect", path())(e))?;
        if FileType::from_raw_mode(after.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let seen = Fingerprint::of(&after);
        if seen == Fingerprint::of(&stat) {
            return Ok(Some(Hashed { stat: after, digest, racy: granularity.is_racy(&seen, read_at), held }));
        }
        stat = after;
    }
    Err(StoreError::ChangedWhileRead { path: path() })
}

/// Reads a file of an expected size; what it holds beyond that shows in its metadata afterwards. Also gives the length of
/// what the buffer holds, if that is the whole file.
fn digest_of(mut file: &File, size: u64, buffer: &mut [u8]) -> std::io::Result<(ContentDigest, Option<usize>)> {
    let mut hasher = blake3::Hasher::new();
    let (mut total, mut reads, mut held) = (0, 0, 0);
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(buffer.get(..n).unwrap_or_default());
                (total, reads, held) = (total + n as u64, reads + 1, n);
                if total == size {
                    break;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((hasher.finalize().into(), (reads <= 1).then_some(held)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_new_as_its_reading_is_racy() {
        let granularity = Granularity { device: 1, local: true };
        let seen = |ctime, ctime_nanos| Fingerprint {
            size: 1,
            mtime: 100,
            mtime_nanos: 5,
            ctime,
            ctime_nanos,
            inode: 1,
            device: 1,
        };
        let at = |millis: i128| millis * 1_000_000;
        assert!(granularity.is_racy(&seen(100, 6), at(100_020)));
        assert!(!granularity.is_racy(&seen(100, 6), at(100_060)));
        // An old mtime set by hand does not hide a new ctime.
        assert!(granularity.is_racy(&seen(200, 6), at(200_000)));
        // Whole seconds only: the file system may know no finer ones.
        assert!(granularity.is_racy(&seen(100, 0), at(101_000)));
        assert!(!granularity.is_racy(&seen(100, 0), at(103_000)));
        // Times in the future never settle.
        assert!(granularity.is_racy(&seen(500, 1), at(103_000)));
    }
}
