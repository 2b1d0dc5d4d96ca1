//! What the value of a record holds on a server: the record as it is in a store, and where the contents are of the bundle
//! that it names.
//!
//! ```text
//! "memobuild remote"  sum (32)  length of the head (u32)  head (JSON)  value
//! ```
//! The sum is over name, head and value: what came under another name, or changed on its way, is nothing.

use memobuild_tree::{BundleId, KeyHasher};
use serde::{Deserialize, Serialize};

use super::{Blob, RecordName};
use crate::directory::{Pack, bytes};

const MAGIC: &[u8; 16] = b"memobuild remote";

/// A record's value, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) head: Head,
    pub(super) value: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The value, where it is too long to stand in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Blob>,
    /// The bundle that the record names, then those that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bundles: Vec<Described>,
}

/// A bundle, as a server has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    #[serde(with = "id")]
    pub(super) id: BundleId,
    pub(super) diff: DiffAt,
    /// The diff is packed with that of one of the bundles that this one needs as a dictionary: of many files, few are
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) like: Option<Like>,
    pub(super) pack: Pack,
}

/// What a diff is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Like {
    #[serde(with = "id")]
    pub(super) id: BundleId,
    /// Diffs that have to be read first.
    pub(super) depth: u32,
}

/// Where its diff is, packed with zstd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DiffAt {
    Here(#[serde(with = "bytes")] Vec<u8>),
    Blob(Blob),
}

impl Described {
    /// All blobs that it consists of.
    pub(super) fn blobs(&self) -> impl Iterator<Item = Blob> {
        let diff = match &self.diff {
            DiffAt::Here(_) => None,
            DiffAt::Blob(blob) => Some(*blob),
        };
        diff.into_iter().chain([self.pack.blob]).chain(self.pack.large.iter().map(|large| large.blob))
    }
}

impl Envelope {
    /// The blobs without which the record is useless, each once.
    pub(super) fn blobs(&self) -> Vec<Blob> {
        let mut seen = std::collections::HashSet::new();
        let all = self.head.value.into_iter().chain(self.head.bundles.iter().flat_map(Described::blobs));
        all.filter(|blob| seen.insert(blob.digest)).collect()
    }

    pub(super) fn encode(&self, name: &RecordName) -> Option<Vec<u8>> {
        let head = serde_json::to_vec(&self.head).ok()?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&sum(name, &head, &self.value));
        out.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.value);
        Some(out)
    }

    /// `None`: something else, of another version, or damaged.
    pub(super) fn decode(name: &RecordName, bytes: &[u8]) -> Option<Self> {
        let (stored, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (head, value) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        (*stored == sum(name, head, value)).then_some(())?;
        Some(Self { head: serde_json::from_slice(head).ok()?, value: value.to_vec() })
    }
}

fn sum(name: &RecordName, head: &[u8], value: &[u8]) -> [u8; 32] {
    let mut h = KeyHasher::new("memobuild.remote.record.v1");
    h.value(name.ns.as_str()).value(&name.key).bytes(head).bytes(value);
    *h.finish().as_bytes()
}

mod id {
    use memobuild_tree::BundleId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &BundleId, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&id.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BundleId, D::Error> {
        BundleId::from_hex(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::{blob, name};

    #[test]
    fn envelopes_round_trip_and_anything_else_is_nothing() {
        let pack = Pack { blob: blob(b"pack"), needs: vec![BundleId::from_bytes([2; 32])], large: Vec::new() };
        let here = Described { id: BundleId::from_bytes([1; 32]), diff: DiffAt::Here(vec![1, 2]), like: None, pack };
        let like = Some(Like { id: BundleId::from_bytes([2; 32]), depth: 1 });
        let apart = Described { diff: DiffAt::Blob(blob(b"diff")), like, ..here.clone() };
        let head = Head { value: Some(blob(b"value")), bundles: vec![here, apart] };
        let envelope = Envelope { head, value: b"inline".to_vec() };
        assert_eq!(envelope.blobs(), [blob(b"value"), blob(b"pack"), blob(b"diff")]);
        let bytes = envelope.encode(&name(1)).unwrap();
        assert_eq!(Envelope::decode(&name(1), &bytes), Some(envelope));
        // Under another name it is somebody else's result.
        assert_eq!(Envelope::decode(&name(2), &bytes), None);
        for at in 0..bytes.len() {
            assert_eq!(Envelope::decode(&name(1), &bytes[..at]), None);
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(Envelope::decode(&name(1), &other), None);
        }
    }
}
