//! Diffs as they travel: packed with zstd, with a similar diff as the dictionary where there is one.
//!
//! A COPY of 10,000 files names 10,000 digests, which nothing makes shorter. After an edit of one file all others stand in
//! the diff before, and what is left is about as long as the name of one.

use std::io::{self, Read as _};

/// zstd level.
const LEVEL: i32 = 3;
/// The longest diff, in bytes.
pub(super) const MAX_DIFF: u64 = 1 << 30;

/// Packs the encoding of a diff.
pub(super) fn pack(bytes: &[u8], like: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let mut encoder = match like {
        Some(like) => zstd::Encoder::with_dictionary(Vec::new(), LEVEL, like)?,
        None => zstd::Encoder::new(Vec::new(), LEVEL)?,
    };
    if like.is_some() {
        encoder.window_log(window(bytes.len(), like.map_or(0, <[u8]>::len)))?;
    }
    encoder.include_checksum(false)?;
    io::copy(&mut &*bytes, &mut encoder)?;
    encoder.finish()
}

/// Unpacks it; whether it is the right one is for the caller to see.
pub(super) fn unpack(packed: &[u8], like: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut decoder = zstd::Decoder::with_dictionary(packed, like.unwrap_or_default())?;
    decoder.window_log_max(MAX_WINDOW)?;
    decoder.take(MAX_DIFF).read_to_end(&mut out)?;
    Ok(out)
}

/// The longest window, as a power of two: what a decoder has to keep in memory.
const MAX_WINDOW: u32 = 27;

/// A window that reaches from the end of a diff to the begin of its dictionary.
fn window(len: usize, like: usize) -> u32 {
    (len.saturating_add(like).max(1).ilog2() + 1).clamp(19, MAX_WINDOW)
}

#[cfg(test)]
mod tests {
    use memobuild_tree::KeyHasher;

    use super::*;

    fn digests(changed: Option<usize>) -> Vec<u8> {
        let one = |n: usize| KeyHasher::new("test").u64(n as u64).u64(u64::from(changed == Some(n))).finish_bytes();
        (0..10_000).flat_map(|n| [format!("/dir/file{n}").into_bytes(), one(n).to_vec()].concat()).collect()
    }

    #[test]
    fn a_small_change_is_small() {
        let (before, after) = (digests(None), digests(Some(7000)));
        let alone = pack(&after, None).unwrap();
        assert!(alone.len() > 300_000);
        assert_eq!(unpack(&alone, None).unwrap(), after);
        let packed = pack(&after, Some(&before)).unwrap();
        assert!(packed.len() < 2_000, "{}", packed.len());
        assert_eq!(unpack(&packed, Some(&before)).unwrap(), after);
        // With another dictionary it is something else, or nothing.
        assert!(!unpack(&packed, Some(&digests(Some(3)))).is_ok_and(|bytes| bytes == after));
        assert!(!unpack(&packed, None).is_ok_and(|bytes| bytes == after));
    }
}
