//! Small files that a scan has just read. What is new in a context is likely to be copied, and need not be opened again.

use std::{
    collections::hash_map::Entry,
    sync::atomic::{AtomicUsize, Ordering},
};

use memobuild_tree::ContentDigest;

use crate::{LARGE_FILE, digest_map::DigestMap};

/// Bytes of files that lie together.
const CHUNK: usize = 1 << 20;
/// Chunks that all threads of a scan may fill.
const CHUNKS: usize = 32;

/// Room for chunks that is left.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(CHUNKS))
    }
}

impl Room {
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Where a file's bytes are: number of the chunk, offset, length.
type Place = (u32, u32, u32);

/// What one thread has kept, and in the end all together.
#[derive(Debug, Default)]
pub(super) struct Kept {
    chunks: Vec<Vec<u8>>,
    places: DigestMap<ContentDigest, Place>,
}

impl Kept {
    /// Keeps a file if it is small and there is room.
    pub(super) fn keep(&mut self, digest: &ContentDigest, bytes: &[u8], room: &Room) {
        if bytes.is_empty() || bytes.len() as u64 > LARGE_FILE {
            return;
        }
        let Entry::Vacant(place) = self.places.entry(*digest) else { return };
        let fits = self.chunks.last().is_some_and(|chunk| chunk.len() + bytes.len() <= CHUNK);
        if !fits {
            if !room.take() {
                return;
            }
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let number = self.chunks.len() as u32 - 1;
        if let Some(chunk) = self.chunks.last_mut() {
            place.insert((number, chunk.len() as u32, bytes.len() as u32));
            chunk.extend_from_slice(bytes);
        }
    }

    /// Takes over what another thread kept.
    pub(super) fn add(&mut self, other: Self) {
        let before = self.chunks.len() as u32;
        self.chunks.extend(other.chunks);
        let moved = |(digest, (number, at, len))| (digest, (number + before, at, len));
        self.places.extend(other.places.into_iter().map(moved));
    }

    /// A file's bytes.
    pub(super) fn get(&self, digest: &ContentDigest) -> Option<&[u8]> {
        let (number, at, len) = *self.places.get(digest)?;
        self.chunks.get(number as usize)?.get(at as usize..at as usize + len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_has_a_limit() {
        let room = Room::default();
        let file = |n: u32| n.to_le_bytes().repeat(4 << 10);
        let digest = |n| ContentDigest::of(&file(n));
        let mut all = Kept::default();
        for thread in 0..4 {
            let mut kept = Kept::default();
            (0..1024).for_each(|n| kept.keep(&digest(thread * 1024 + n), &file(thread * 1024 + n), &room));
            all.add(kept);
        }
        let found = (0..4096).filter(|n| all.get(&digest(*n)).inspect(|bytes| assert_eq!(*bytes, file(*n))).is_some());
        assert_eq!(found.count(), CHUNKS * CHUNK / (16 << 10));
        all.keep(&ContentDigest::of(b"x"), &vec![0; LARGE_FILE as usize + 1], &Room::default());
        assert!(all.get(&ContentDigest::of(b"x")).is_none(), "large ones are not kept");
    }
}
