//! Short answers: what is in memory, or takes a few system calls on what the kernel has in its own, is not worth a change
//! of threads.

use std::{
    fs::{self, File},
    io::{ErrorKind, IoSliceMut},
};

use axum::body::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

use super::{Inner, MOST_UNWRITTEN, index::Used, now, recent::Entry};
use crate::{BlobId, storage::AtOnce};

impl Inner {
    /// What must wait for the disk is [`AtOnce::Unknown`], and so is every failure: the functions that block tell of it.
    pub(super) fn at_once(&self, id: BlobId, most: u64) -> AtOnce {
        let now = now();
        let mut shard = self.recent.shard(id);
        if let Some(entry) = shard.get(id)
            && let Some(known) = known(entry, most)
        {
            // Uses are told apart by seconds.
            if entry.noted != now {
                if !self.note(id, now) {
                    return AtOnce::Unknown;
                }
                entry.noted = now;
            }
            return known;
        }
        let before = shard.forgotten;
        drop(shard);
        let Some(found) = (if most == 0 { self.length(id) } else { self.content(id, most) }) else {
            return AtOnce::Unknown;
        };
        let Some((size, content)) = found else { return AtOnce::Absent };
        // Where noting its use would mean writing it down, somebody who may block has to.
        if !self.note(id, now) {
            return AtOnce::Unknown;
        }
        let entry = Entry { size, content, noted: now };
        let known = known(&entry, most).unwrap_or(AtOnce::Unknown);
        self.recent.shard(id).put(id, entry, before);
        known
    }

    /// `None`: it can't be told. `Some(None)`: there is none.
    fn length(&self, id: BlobId) -> Option<Option<(u64, Option<Bytes>)>> {
        match fs::metadata(self.path(id)) {
            Ok(metadata) => Some(Some((metadata.len(), None))),
            Err(error) => (error.kind() == ErrorKind::NotFound).then_some(None),
        }
    }

    /// The same, with the bytes if there are at most `most`.
    fn content(&self, id: BlobId, most: u64) -> Option<Option<(u64, Option<Bytes>)>> {
        let file = match File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) => return (error.kind() == ErrorKind::NotFound).then_some(None),
        };
        let size = file.metadata().ok()?.len();
        if size > most {
            return Some(Some((size, None)));
        }
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        // Only what is in the page cache. A file system that can't tell (`EOPNOTSUPP`) is as one that would have to wait.
        if !bytes.is_empty() {
            let read = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT).ok()?;
            if read != bytes.len() {
                return None;
            }
        }
        Some(Some((size, Some(Bytes::from(bytes)))))
    }

    /// Remembers a use; `false` if too many wait to be written down.
    fn note(&self, id: BlobId, now: i64) -> bool {
        let mut used = self.used();
        let room = used.len() < MOST_UNWRITTEN - 1;
        if room {
            used.insert(Used::Blob(id), now);
        }
        room
    }
}

/// What an entry says to who asks for so much; `None` if the file must be looked at.
fn known(entry: &Entry, most: u64) -> Option<AtOnce> {
    match &entry.content {
        _ if most == 0 || entry.size > most => Some(AtOnce::Size(entry.size)),
        Some(content) => Some(AtOnce::Whole(content.clone())),
        None => None,
    }
}
