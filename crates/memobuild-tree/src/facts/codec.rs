//! Bytes of glances, as records keep them.

use super::Glance;

impl Glance {
    /// Bytes of one.
    const SIZE: usize = 14;

    /// All of a path set's, each with whether the bytes of what is there were read.
    pub fn encode_all(glances: &[(Self, bool)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(glances.len() * Self::SIZE);
        for (glance, read) in glances {
            out.push(glance.kind);
            out.push(u8::from(*read));
            for part in [glance.meta, glance.content, glance.listing] {
                out.extend_from_slice(&part.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`Glance::encode_all`] wrote; `None` for anything else.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<(Self, bool)>> {
        let (chunks, rest) = bytes.as_chunks::<{ Self::SIZE }>();
        let one = |b: &[u8; Self::SIZE]| {
            let [kind, read, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *b;
            let glance = Self {
                kind,
                meta: u32::from_le_bytes([a0, a1, a2, a3]),
                content: u32::from_le_bytes([b0, b1, b2, b3]),
                listing: u32::from_le_bytes([c0, c1, c2, c3]),
            };
            (glance, read != 0)
        };
        rest.is_empty().then(|| chunks.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glances_round_trip() {
        let all = vec![
            (Glance { kind: 2, meta: 7, content: u32::MAX, listing: 0 }, true),
            (Glance { kind: 0, meta: 0, content: 1, listing: 9 }, false),
        ];
        let bytes = Glance::encode_all(&all);
        assert_eq!(Glance::decode_all(&bytes), Some(all));
        assert_eq!(Glance::decode_all(&bytes[1..]), None);
    }
}
