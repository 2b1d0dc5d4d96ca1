//! Tables: many records in one blob, compressed, read without trusting them.
//!
//! ```text
//! "memobuild table\0"  then of each record: namespace length (u8), namespace, key (32), value length (u32), value
//! ```
//! all of it as one zstd frame.

use std::{collections::HashMap, io::Read};

use memobuild_tree::KeyDigest;

const MAGIC: &[u8; 16] = b"memobuild table\0";
/// The longest table that is unpacked, in bytes.
const MAX_UNPACKED: u64 = 2 << 30;

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its namespace in the store.
    pub ns: String,
    /// Its key.
    pub key: KeyDigest,
    /// Its value.
    pub value: Vec<u8>,
}

/// Records by namespace and key.
#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<(String, KeyDigest), Vec<u8>>);

impl Table {
    pub(crate) fn get(&self, ns: &str, key: &KeyDigest) -> Option<&Vec<u8>> {
        self.0.get(&(ns.to_owned(), *key))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &(String, KeyDigest)> {
        self.0.keys()
    }
}

/// Equal records in any order give equal bytes.
pub(crate) fn encode(entries: &[Entry]) -> std::io::Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| (&a.ns, a.key.as_bytes()).cmp(&(&b.ns, b.key.as_bytes())));
    sorted.dedup_by(|a, b| a.ns == b.ns && a.key == b.key);
    let mut out = MAGIC.to_vec();
    for Entry { ns, key, value } in sorted {
        let (Ok(ns_len), Ok(len)) = (u8::try_from(ns.len()), u32::try_from(value.len())) else { continue };
        out.push(ns_len);
        out.extend_from_slice(ns.as_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(value);
    }
    zstd::bulk::compress(&out, 3)
}

/// `None`: not a table, or damaged.
pub(crate) fn decode(packed: &[u8]) -> Option<Table> {
    let mut bytes = Vec::new();
    zstd::Decoder::new(packed).ok()?.take(MAX_UNPACKED).read_to_end(&mut bytes).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut out = HashMap::new();
    while let Some((len, after)) = rest.split_first() {
        let (ns, after) = after.split_at_checked(usize::from(*len))?;
        let (key, after) = after.split_first_chunk::<32>()?;
        let (len, after) = after.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        let ns = std::str::from_utf8(ns).ok()?.to_owned();
        out.insert((ns, KeyDigest::from_bytes(*key)), value.to_vec());
        rest = after;
    }
    Some(Table(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ns: &str, key: u8, value: &[u8]) -> Entry {
        Entry { ns: ns.into(), key: KeyDigest::from_bytes([key; 32]), value: value.to_vec() }
    }

    #[test]
    fn tables_round_trip_whatever_the_order() {
        let all = [entry("a", 1, b"x"), entry("b", 1, b""), entry("a", 2, &[7; 100_000])];
        let packed = encode(&all).unwrap();
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(encode(&reversed).unwrap(), packed);
        let table = decode(&packed).unwrap();
        assert_eq!(table.keys().count(), 3);
        for Entry { ns, key, value } in &all {
            assert_eq!(table.get(ns, key), Some(value));
        }
        assert_eq!(table.get("b", &KeyDigest::from_bytes([2; 32])), None);
    }

    #[test]
    fn damage_is_no_table() {
        let packed = encode(&[entry("a", 1, b"value")]).unwrap();
        assert!((0..packed.len()).all(|cut| decode(&packed[..cut]).is_none()));
        let unpacked = zstd::bulk::decompress(&packed, 1000).unwrap();
        for cut in 17..unpacked.len() {
            assert!(decode(&zstd::bulk::compress(&unpacked[..cut], 3).unwrap()).is_none(), "{cut}");
        }
    }
}
