//! Where contents are cut into chunks, and the checksums that only these formats use.

/// No chunk is longer, in bytes: so much of a file is held in memory at once. eStargz's usual size.
pub(super) const CHUNK: usize = 4 << 20;
/// Zeros from which on they are a chunk of their own (containers/storage's `holesThreshold`).
const HOLE: usize = 1 << 10;
/// A chunk ends where so many bits of the sum are ones: after 64 KiB on average (containers/storage's `RollsumBits`).
const SPLIT: u32 = (1 << 16) - 1;
/// Bytes that the sum looks back on.
const WINDOW: usize = 64;
const CHAR_OFFSET: u32 = 31;

/// How a file's contents are cut.
pub(super) enum Cutter {
    /// Each [`CHUNK`] bytes.
    Even,
    /// By content, so that equal stretches of two versions of a file are equal chunks.
    Rolling(Box<Rolling>),
}

impl Cutter {
    pub(super) fn rolling() -> Self {
        Self::Rolling(Box::new(Rolling::new()))
    }

    /// Room for the first piece of a file of that many bytes, with what usually stands behind its contents.
    pub(super) fn capacity(&self, size: u64) -> usize {
        match self {
            Self::Even => usize::try_from(size).unwrap_or(CHUNK).min(CHUNK) + (4 << 10),
            Self::Rolling(_) => usize::try_from(size).unwrap_or(CHUNK).min(128 << 10),
        }
    }

    /// For another file: the sum starts anew.
    pub(super) fn restart(&mut self) {
        if let Self::Rolling(rolling) = self {
            **rolling = Rolling::new();
        }
    }

    /// The first chunk of what lacks a cut yet, as its length and whether it is zeros alone; `None`: more is needed to
    /// say. To be asked again with the same bytes and more behind them; after a cut, with what is left.
    pub(super) fn cut(&mut self, bytes: &[u8], end: bool) -> Option<(usize, bool)> {
        match self {
            Self::Even if bytes.len() >= CHUNK => Some((CHUNK, false)),
            Self::Even => (end && !bytes.is_empty()).then_some((bytes.len(), false)),
            Self::Rolling(rolling) => rolling.cut(bytes, end),
        }
    }
}

/// The rolling sum of rsync's kin (bup, Perkeep), with the parameters of containers/storage, so that what is cut here
/// and there is cut in the same places.
pub(super) struct Rolling {
    s1: u32,
    s2: u32,
    window: [u8; WINDOW],
    at: usize,
    /// Bytes of the present chunk that the sum has seen.
    seen: usize,
    /// Zeros at the begin of the present chunk that are known to be a hole; none of them has been seen.
    hole: usize,
}

impl Rolling {
    fn new() -> Self {
        let window = WINDOW as u32;
        let (s1, s2) = (window * CHAR_OFFSET, window * (window - 1) * CHAR_OFFSET);
        Self { s1, s2, window: [0; WINDOW], at: 0, seen: 0, hole: 0 }
    }

    fn cut(&mut self, bytes: &[u8], end: bool) -> Option<(usize, bool)> {
        if self.hole == 0 {
            let rest = bytes.get(self.seen..).unwrap_or_default();
            let hole = find_hole(rest);
            // Zeros at the end may be the begin of a hole.
            let data = match hole {
                Some(start) => start,
                None if end => rest.len(),
                None => rest.len() - rest.iter().rev().take_while(|b| **b == 0).count(),
            };
            if self.roll(rest.get(..data).unwrap_or_default()) || self.seen > 0 && (hole.is_some() || end) {
                // A hole ends the chunk before it, too.
                return Some((std::mem::take(&mut self.seen), false));
            }
            hole?;
            // The sum is one of the window alone, which has nothing but zeros behind a hole, as in the beginning.
            *self = Self::new();
        }
        let more = bytes.get(self.hole..).unwrap_or_default();
        self.hole += more.iter().position(|b| *b != 0).unwrap_or(more.len());
        let whole = end || self.hole < bytes.len() || self.hole >= CHUNK;
        whole.then(|| (std::mem::take(&mut self.hole).min(CHUNK), true))
    }

    /// Takes bytes in, up to the end of the chunk if it is among them; says whether it is.
    fn roll(&mut self, bytes: &[u8]) -> bool {
        let (mut s1, mut s2, mut at) = (self.s1, self.s2, self.at);
        let room = CHUNK.saturating_sub(self.seen);
        let mut split = false;
        let mut count = 0;
        for byte in bytes.iter().take(room) {
            let slot = &mut self.window[at % WINDOW];
            let dropped = u32::from(std::mem::replace(slot, *byte));
            at = at.wrapping_add(1);
            s1 = s1.wrapping_add(u32::from(*byte)).wrapping_sub(dropped);
            s2 = s2.wrapping_add(s1).wrapping_sub(WINDOW as u32 * (dropped + CHAR_OFFSET));
            count += 1;
            if s2 & SPLIT == SPLIT {
                split = true;
                break;
            }
        }
        (self.s1, self.s2, self.at) = (s1, s2, at);
        self.seen += count;
        split || self.seen >= CHUNK
    }
}

/// Where [`HOLE`] or more zeros start.
fn find_hole(bytes: &[u8]) -> Option<usize> {
    // Any such run has a whole block of half the length in it.
    const BLOCK: usize = HOLE / 2;
    let mut from = 0;
    for (index, block) in bytes.chunks_exact(BLOCK).enumerate() {
        if index * BLOCK < from || block.iter().any(|b| *b != 0) {
            continue;
        }
        let (before, after) = bytes.split_at_checked(index * BLOCK)?;
        let start = before.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let zeros = after.iter().take(HOLE).take_while(|b| **b == 0).count();
        if before.len() - start + zeros >= HOLE {
            return Some(start);
        }
        from = index * BLOCK + zeros;
    }
    None
}

/// CRC-64 with ISO 3309's polynomial, as Go's `crc64.ISO` computes it: what tar-split checks contents by.
#[derive(Default)]
pub(super) struct Crc64(u64);

const TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut out = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u64, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
            bit += 1;
        }
        out[0][i] = crc;
        i += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut i = 0;
        while i < 256 {
            let before = out[table - 1][i];
            out[table][i] = out[0][(before & 0xff) as usize] ^ before >> 8;
            i += 1;
        }
        table += 1;
    }
    out
}

impl Crc64 {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut crc = !self.0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mixed = (crc ^ u64::from_le_bytes(*eight)).to_le_bytes();
            crc = mixed.iter().zip(TABLES.iter().rev()).fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)]);
        }
        for byte in rest {
            crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8;
        }
        self.0 = !crc;
    }

    /// The sum, and a new beginning.
    pub(super) fn take(&mut self) -> [u8; 8] {
        std::mem::take(&mut self.0).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc64_is_that_of_iso_3309() {
        let sum = |bytes: &[u8]| {
            let mut crc = Crc64::default();
            crc.update(bytes);
            crc.take()
        };
        // The check value of CRC-64/GO-ISO.
        assert_eq!(sum(b"123456789"), 0xb909_56c7_75a4_1001_u64.to_be_bytes());
        let long: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let mut pieces = Crc64::default();
        long.chunks(13).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.take(), sum(&long));
    }

    /// Cuts a file that arrives in pieces.
    fn cuts(file: &[u8], piece: usize) -> Vec<(usize, bool)> {
        let mut cutter = Cutter::rolling();
        let (mut start, mut out) = (0, Vec::new());
        for end in (piece..file.len() + piece).step_by(piece).map(|end| end.min(file.len())) {
            while let Some((length, zeros)) = cutter.cut(&file[start..end], end == file.len()) {
                out.push((length, zeros));
                start += length;
            }
        }
        assert_eq!(start, file.len());
        out
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive_and_come_together_again_behind_a_change() {
        let mut file = noise(1_000_000);
        file[300_000..302_000].fill(0);
        file[500_000..500_900].fill(0);
        let whole = cuts(&file, file.len());
        assert!((8..40).contains(&whole.len()), "{whole:?}");
        assert_eq!(whole.iter().filter(|(_, zeros)| *zeros).count(), 1);
        assert!(whole.contains(&(2000, true)), "{whole:?}");
        for piece in [1000, 65_536, 333_333] {
            assert_eq!(cuts(&file, piece), whole);
        }
        file.insert(10, 7);
        let changed = cuts(&file, 65_536);
        assert_eq!(changed[changed.len() - 5..], whole[whole.len() - 5..]);
    }

    /// The rule as containers/storage states it, a byte at a time.
    #[test]
    fn cuts_are_where_the_plain_rule_has_them() {
        let mut file = noise(400_000);
        for (at, length) in
            [(0, 1024), (5000, 1023), (70_000, 1500), (71_600, 1024), (200_001, 40_000), (398_977, 1023)]
        {
            file[at..at + length].fill(0);
        }
        let window = WINDOW as u32;
        let (mut s1, mut s2, mut seen) =
            (window * CHAR_OFFSET, window * (window - 1) * CHAR_OFFSET, [0; WINDOW].to_vec());
        let (mut at, mut start, mut want) = (0, 0, Vec::new());
        while at < file.len() {
            let zeros = file[at..].iter().take_while(|b| **b == 0).count();
            if zeros >= HOLE && at > start {
                want.push((at - start, false));
                start = at;
                continue;
            }
            let hole = zeros >= HOLE;
            for _ in 0..if hole { zeros } else { 1 } {
                let dropped = u32::from(seen.remove(0));
                seen.push(file[at]);
                s1 = s1.wrapping_add(u32::from(file[at])).wrapping_sub(dropped);
                s2 = s2.wrapping_add(s1).wrapping_sub(window * (dropped + CHAR_OFFSET));
                at += 1;
            }
            if hole || s2 & SPLIT == SPLIT || at == file.len() {
                want.push((at - start, hole));
                start = at;
            }
        }
        assert_eq!(want.iter().filter(|(_, zeros)| *zeros).count(), 4, "{want:?}");
        for piece in [999, 131_072, file.len()] {
            assert_eq!(cuts(&file, piece), want);
        }
    }

    #[test]
    fn holes_and_files_that_never_split_are_cut_at_most_so_long() {
        let mut file = vec![0; 2 * CHUNK + 5000];
        assert_eq!(cuts(&file, 100_000), [(CHUNK, true), (CHUNK, true), (5000, true)]);
        file.fill(b'q');
        assert!(cuts(&file, 100_000).iter().all(|(length, zeros)| *length <= CHUNK && !zeros));
        assert_eq!(cuts(&[0; 1000], 10), [(1000, false)]);
        assert_eq!(cuts(&[0; 1024], 1024), [(1024, true)]);
        assert_eq!(cuts(b"x", 1), [(1, false)]);
    }
}
