//! How a file is known to be whole without an fsync for every step.
//!
//! The page cache is coherent: however a process dies, what it wrote and renamed is what others read, until the
//! machine itself goes down. Only then can a file that was renamed into place lack data that was never written back.
//! So a file is written without fsync, and its mtime, which means nothing to the store, carries a mark:
//!
//! - *this boot*: written (or verified) since the machine was started: whole.
//! - *settled*: synced to disk, then marked: whole for ever. The mark can't reach the disk before the data.
//! - anything else: written before the machine went down. It is hashed once, when it is first used, and marked again
//!   or thrown away.
//!
//! Bundles need no mark: their tables are checksummed and their contents verified on first use in any case.

use std::{fs::File, io, os::unix::fs::MetadataExt, sync::OnceLock};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

/// The mark of a file that was synced.
const SETTLED: (i64, i64) = (1, 0);

/// The mark of this boot: 61 bits of the hash of the kernel's boot id, as a time. Never that of settled files.
fn this_boot() -> (i64, i64) {
    static MARK: OnceLock<(i64, i64)> = OnceLock::new();
    *MARK.get_or_init(|| {
        let hash = match std::fs::read("/proc/sys/kernel/random/boot_id") {
            Ok(id) if id.len() > 8 => blake3::hash(&id),
            // No boot id: nothing written by another process is trusted unread.
            _ => blake3::hash(&std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0).to_le_bytes()),
        };
        let mut numbers = [0; 8];
        numbers.copy_from_slice(hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        let number = u64::from_le_bytes(numbers);
        // Seconds stay positive and within 32 bits signed, which every file system can store.
        let secs = (number & 0x7fff_ffff) as i64;
        let nanos = (number >> 32) % 1_000_000_000;
        (secs.max(2), nanos as i64)
    })
}

/// Whether a file of this metadata is known to be whole.
pub(crate) fn is_whole(meta: &std::fs::Metadata) -> bool {
    let mark = (meta.mtime(), meta.mtime_nsec());
    mark == this_boot() || mark == SETTLED
}

/// Marks a file as written or verified in this boot.
pub(crate) fn set_this_boot(file: &File) -> io::Result<()> {
    set(file, this_boot())
}

/// Syncs a file to disk and marks it as settled.
pub(crate) fn settle(file: &File) -> io::Result<()> {
    file.sync_data()?;
    set(file, SETTLED)
}

fn set(file: &File, (secs, nanos): (i64, i64)) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos },
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_files_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        let whole = || is_whole(&std::fs::metadata(&path).unwrap());
        assert!(!whole());
        set_this_boot(&file).unwrap();
        assert!(whole());
        settle(&file).unwrap();
        assert!(whole());
        set(&file, (this_boot().0 ^ 4, 5)).unwrap();
        assert!(!whole());
    }
}
