//! Hashing of structures, length-framed and typed, so that no two different values can feed the hasher the same bytes.

use crate::digest::KeyDigest;

/// Feeds structured values to BLAKE3. Variable-length values are preceded by their length, and every key starts with
/// the name and version of what it is a key *of* ([`KeyHasher::new`]).
///
/// Values are gathered and hashed [`GATHER`] bytes at a time: most are a few bytes long, and BLAKE3 is several times
/// faster on many chunks at once.
pub struct KeyHasher {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

/// 16 chunks of BLAKE3, as many as its widest code hashes side by side.
const GATHER: usize = 16 << 10;

/// A value with one canonical way of being hashed.
pub trait ContentHash {
    /// Feeds the whole value.
    fn hash(&self, h: &mut KeyHasher);
}

impl KeyHasher {
    /// Starts a key of the given type; `domain` names the type and its version, like `memobuild.step.exact.v1`.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self { hasher: blake3::Hasher::new(), gathered: Vec::with_capacity(256) };
        hasher.bytes(domain.as_bytes());
        hasher
    }

    /// Feeds bytes whose number is the same for every value of the type.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        if self.gathered.len() + bytes.len() > GATHER {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        if bytes.len() > GATHER {
            self.hasher.update(bytes);
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        self
    }

    /// Feeds bytes of any length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).fixed(bytes)
    }

    /// Feeds an integer; also used for lengths and for the tags of enum variants.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.fixed(&value.to_le_bytes())
    }

    /// Feeds any value that knows how.
    pub fn value<T: ContentHash + ?Sized>(&mut self, value: &T) -> &mut Self {
        value.hash(self);
        self
    }

    /// The raw 32 bytes.
    pub fn finish_bytes(&self) -> [u8; 32] {
        *self.hasher.clone().update(&self.gathered).finalize().as_bytes()
    }

    /// The finished key.
    pub fn finish(&self) -> KeyDigest {
        KeyDigest::from_bytes(self.finish_bytes())
    }
}

impl ContentHash for [u8] {
    fn hash(&self, h: &mut KeyHasher) {
        h.bytes(self);
    }
}

impl ContentHash for str {
    fn hash(&self, h: &mut KeyHasher) {
        h.bytes(self.as_bytes());
    }
}

impl ContentHash for String {
    fn hash(&self, h: &mut KeyHasher) {
        h.bytes(self.as_bytes());
    }
}

impl ContentHash for bool {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(u64::from(*self));
    }
}

impl ContentHash for u32 {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(u64::from(*self));
    }
}

impl ContentHash for u64 {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(*self);
    }
}

impl ContentHash for i64 {
    fn hash(&self, h: &mut KeyHasher) {
        h.fixed(&self.to_le_bytes());
    }
}

impl<T: ContentHash> ContentHash for Option<T> {
    fn hash(&self, h: &mut KeyHasher) {
        match self {
            None => h.u64(0),
            Some(value) => h.u64(1).value(value),
        };
    }
}

impl<T: ContentHash> ContentHash for Vec<T> {
    fn hash(&self, h: &mut KeyHasher) {
        h.u64(self.len() as u64);
        self.iter().for_each(|value| value.hash(h));
    }
}

impl<A: ContentHash, B: ContentHash> ContentHash for (A, B) {
    fn hash(&self, h: &mut KeyHasher) {
        h.value(&self.0).value(&self.1);
    }
}

impl<T: ContentHash + ?Sized> ContentHash for &T {
    fn hash(&self, h: &mut KeyHasher) {
        (**self).hash(h);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> KeyDigest {
        let mut h = KeyHasher::new("test.v1");
        parts.iter().for_each(|p| {
            h.value(*p);
        });
        h.finish()
    }

    #[test]
    fn framing_keeps_neighbours_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", ""]), key(&["a"]));
        assert_ne!(KeyHasher::new("test.v1").finish(), KeyHasher::new("test.v2").finish());
    }

    #[test]
    fn an_absent_value_differs_from_an_empty_one() {
        let hash = |v: &Option<String>| KeyHasher::new("t").value(v).finish();
        assert_ne!(hash(&None), hash(&Some(String::new())));
    }

    #[test]
    fn gathering_changes_no_digest() {
        let mut h = KeyHasher::new("t");
        let mut all = [&1u64.to_le_bytes()[..], b"t"].concat();
        for length in [0, 1, GATHER - 9, GATHER, 3, GATHER + 1, 7, 40_000, 100] {
            let part: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            h.fixed(&part);
            all.extend(part);
            assert_eq!(h.finish_bytes(), *blake3::hash(&all).as_bytes(), "{length}");
        }
    }
}
