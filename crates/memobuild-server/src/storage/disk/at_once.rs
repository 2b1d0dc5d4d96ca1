//! Short answers: what takes a few system calls on memory that the kernel has anyway is not worth a change of threads.

use std::{
    fs::{self, File},
    io::{ErrorKind, IoSliceMut},
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{Inner, MOST_UNWRITTEN, index::Used, now};
use crate::{BlobId, storage::AtOnce};

impl Inner {
    /// What must wait for the disk is [`AtOnce::Unknown`], and so is every failure: the functions that block tell of it.
    pub(super) fn at_once(&self, id: BlobId, most: u64) -> AtOnce {
        let found = if most == 0 { self.length(id) } else { self.content(id, most) };
        match found {
            // Blobs are looked at before their use is noted, as elsewhere. Where noting it would mean writing it down,
            // somebody who may block has to.
            AtOnce::Size(_) | AtOnce::Whole(_) if !self.note(id) => AtOnce::Unknown,
            found => found,
        }
    }

    fn length(&self, id: BlobId) -> AtOnce {
        match fs::metadata(self.path(id)) {
            Ok(metadata) => AtOnce::Size(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => AtOnce::Absent,
            Err(_) => AtOnce::Unknown,
        }
    }

    fn content(&self, id: BlobId, most: u64) -> AtOnce {
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return AtOnce::Absent,
            Err(_) => return AtOnce::Unknown,
        };
        let Ok(size) = file.metadata().map(|m| m.len()) else { return AtOnce::Unknown };
        let Some(length) = usize::try_from(size).ok().filter(|_| size <= most) else { return AtOnce::Size(size) };
        let mut bytes = vec![0; length];
        if length == 0 || read_cached(&file, &mut bytes) == Ok(length) { AtOnce::Whole(bytes) } else { AtOnce::Unknown }
    }

    /// Remembers a use; `false` if too many wait to be written down.
    fn note(&self, id: BlobId) -> bool {
        let mut used = self.used();
        let room = used.len() < MOST_UNWRITTEN - 1;
        if room {
            used.insert(Used::Blob(id), now());
        }
        room
    }
}

/// Reads what is in the page cache. A file system that can't tell (`EOPNOTSUPP`) is as one that would have to wait.
fn read_cached(file: &File, bytes: &mut [u8]) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(bytes)], 0, ReadWriteFlags::NOWAIT)
}
