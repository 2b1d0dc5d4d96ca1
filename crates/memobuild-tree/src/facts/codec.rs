//! Bytes of path sets and glances, as records keep them. Paths rise, so each is written as what it shares with the one
//! before and what follows. Integers are LEB128.

use super::{Glance, Look, PathSet};
use crate::codec::{put_bytes, put_int};

const VERSION: u8 = 1;
/// More than any file system has in one step's sight; keeps damaged lengths from asking for memory.
const MAX_PATHS: u64 = 50_000_000;

impl PathSet {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_int(&mut out, self.trees.len() as u64);
        for tree in &self.trees {
            put_int(&mut out, tree.len() as u64);
            let mut last: &[u8] = b"";
            for (path, look) in tree {
                let same = last.iter().zip(&**path).take_while(|(a, b)| a == b).count();
                put_int(&mut out, same as u64);
                put_bytes(&mut out, path.get(same..).unwrap_or_default());
                out.push(look.0);
                last = path;
            }
        }
        out
    }

    /// Reads what [`PathSet::encode`] wrote; `None` for anything else. Whoever has the digest checks it.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes.strip_prefix(&[VERSION])?;
        let mut trees = Vec::new();
        for _ in 0..int(&mut input).filter(|n| *n <= 4096)? {
            let count = int(&mut input).filter(|n| *n <= MAX_PATHS)?;
            let mut tree: Vec<(Box<[u8]>, Look)> = Vec::new();
            let mut path = Vec::new();
            for index in 0..count {
                let same = usize::try_from(int(&mut input)?).ok().filter(|n| *n <= path.len())?;
                let length = usize::try_from(int(&mut input)?).ok()?;
                let (rest, after) = input.split_at_checked(length)?;
                let (look, after) = after.split_first()?;
                input = after;
                path.truncate(same);
                path.extend_from_slice(rest);
                if index > 0 && tree.last().is_some_and(|(last, _)| **last >= *path) {
                    return None;
                }
                tree.push((path.as_slice().into(), Look(*look)));
            }
            trees.push(tree);
        }
        input.is_empty().then_some(Self { trees })
    }
}

fn int(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

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
    use crate::facts::Looks;

    #[test]
    fn path_sets_round_trip_and_damage_is_none() {
        let mut looks = Looks::default();
        for (path, look) in [("/", Look::NODE), ("/a", Look::LISTED), ("/a/bc", Look::NODE), ("/a/bd", Look::KIND)] {
            looks.add(path.as_bytes(), look);
        }
        let set = PathSet::of(&[looks, Looks::default()]);
        let bytes = set.encode();
        assert_eq!(PathSet::decode(&bytes), Some(set));
        for cut in 0..bytes.len() {
            assert_eq!(PathSet::decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(PathSet::decode(&[bytes, vec![0]].concat()), None);
    }

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
