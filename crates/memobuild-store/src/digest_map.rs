//! Hash maps keyed by digests: these are uniform already, so eight of their bytes are the hash.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// Takes the first eight bytes of a digest for its hash.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A digest is the last (or only) thing hashed of any key here; a short tag before it is mixed in.
        match bytes.first_chunk::<8>() {
            Some(chunk) => self.0 ^= u64::from_le_bytes(*chunk),
            None => bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b)),
        }
    }

    /// Lengths of fixed-size arrays say nothing.
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type DigestMap<K, V> = HashMap<K, V, BuildHasherDefault<DigestHasher>>;
pub(crate) type DigestSet<K> = HashSet<K, BuildHasherDefault<DigestHasher>>;
