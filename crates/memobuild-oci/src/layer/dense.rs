//! Which parts of a block are as dense as they can be: images, archives, keys, whatever was compressed before. Looking
//! for something to save in them takes longer than in any other data, and finds nothing.
//!
//! Everything is counted in whole numbers, so that every machine says the same.

/// What is judged at once.
const PIECE: usize = 32 * 1024;
/// Pieces shorter than this say too little.
const LEAST: usize = 16 * 1024;
/// Looked at first: so many bytes of each [`STRIDE`].
const SAMPLE: usize = 64;
const STRIDE: usize = 1024;

/// Cuts a block into stretches that are dense and stretches that are not.
pub(super) fn stretches(block: &[u8]) -> Vec<(bool, &[u8])> {
    let mut out: Vec<(bool, &[u8])> = Vec::new();
    let (mut from, mut kind) = (0, None);
    let mut at = 0;
    for piece in block.chunks(PIECE) {
        let dense = is_dense(piece);
        if let Some(before) = kind.filter(|before| *before != dense) {
            out.push((before, block.get(from..at).unwrap_or_default()));
            from = at;
        }
        kind = Some(dense);
        at += piece.len();
    }
    out.push((kind.unwrap_or(false), block.get(from..).unwrap_or_default()));
    out
}

fn is_dense(piece: &[u8]) -> bool {
    let samples = piece.chunks(STRIDE).map(|part| part.get(..SAMPLE).unwrap_or(part));
    piece.len() >= LEAST && is_even(samples) && is_even(std::iter::once(piece)) && !repeats(piece)
}

/// Whether all byte values are about as frequent as each other: two bytes drawn are the same in at most 1.06 of 256
/// cases, which leaves at most 1% for any code to save.
fn is_even<'b>(parts: impl Iterator<Item = &'b [u8]>) -> bool {
    // Four tables, since counting equal bytes in one of them waits for each other.
    let mut counts = [[0_u32; 256]; 4];
    let mut count = |four: &[u8]| {
        for (byte, counts) in four.iter().zip(&mut counts) {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    };
    for part in parts {
        let fours = part.chunks_exact(4);
        count(fours.remainder());
        fours.for_each(&mut count);
    }
    let [a, b, c, d] = counts;
    let (mut all, mut same) = (0, 0);
    for (((a, b), c), d) in a.into_iter().zip(b).zip(c).zip(d) {
        let count = u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d);
        all += count;
        same += count * count.saturating_sub(1);
    }
    same * 256 * 100 <= all * all.saturating_sub(1) * 106
}

/// Whether stretches of it come again, which bytes that are evenly spread can do: more than one place in 128, of those
/// looked at, begins eight bytes that stood, at a multiple of 16, before.
fn repeats(piece: &[u8]) -> bool {
    const BITS: u32 = 12;
    let mut seen = [0_u64; 1 << BITS];
    let value = |at: usize| piece.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes);
    let slot = |value: u64| (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as usize;
    let (mut looked, mut found) = (0, 0);
    for from in (0..piece.len().saturating_sub(STRIDE)).step_by(STRIDE) {
        for at in from..from + STRIDE / 8 {
            let value = value(at);
            looked += 1;
            found += usize::from(seen.get(slot(value)) == Some(&value));
        }
        for at in (from..from + STRIDE).step_by(16) {
            let value = value(at);
            if let Some(seen) = seen.get_mut(slot(value)) {
                *seen = value;
            }
        }
    }
    found * 128 > looked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern, the same at every call.
    fn noise(length: usize) -> Vec<u8> {
        (0_u64..).flat_map(|n| *blake(n).as_bytes()).take(length).collect()
    }

    fn blake(n: u64) -> memobuild_tree::ContentDigest {
        memobuild_tree::ContentDigest::of(&n.to_le_bytes())
    }

    #[test]
    fn only_what_nothing_can_be_saved_in_is_dense() {
        let noise = noise(PIECE);
        assert!(is_dense(&noise));
        assert!(!is_dense(&noise[..LEAST - 1]), "too short to tell");
        assert!(!is_dense(&[0; PIECE]));
        // All values are equally frequent here, but it comes again.
        let counting: Vec<u8> = (0..PIECE).map(|n| n as u8).collect();
        assert!(!is_dense(&counting));
        let twice = [&noise[..PIECE / 2], &noise[..PIECE / 2]].concat();
        assert!(!is_dense(&twice));
        // So does this, at distances that are no multiples of anything.
        assert!(!is_dense(&noise[..1789].repeat(18)));
        // The samples at the head of each stride are noise; the rest is not.
        let mut hidden = vec![b'x'; PIECE];
        for (to, from) in hidden.chunks_mut(STRIDE).zip(noise.chunks(STRIDE)) {
            to[..SAMPLE].copy_from_slice(&from[..SAMPLE]);
        }
        assert!(!is_dense(&hidden));
        let seven_bits: Vec<u8> = noise.iter().map(|byte| byte & 0x7f).collect();
        assert!(!is_dense(&seven_bits));
    }

    #[test]
    fn stretches_are_the_block() {
        let noise = noise(3 * PIECE);
        let block = [&[b'a'; PIECE][..], &noise, &[b'b'; 2 * PIECE + 5]].concat();
        let found = stretches(&block);
        assert_eq!(
            found.iter().map(|(dense, part)| (*dense, part.len())).collect::<Vec<_>>(),
            [(false, PIECE), (true, 3 * PIECE), (false, 2 * PIECE + 5)]
        );
        assert!(found.iter().flat_map(|(_, part)| *part).eq(&block));
        assert_eq!(stretches(b""), [(false, &b""[..])]);
    }
}
