//! The config of a cache artifact: its directory.

use std::collections::{BTreeMap, BTreeSet};

use memobuild_image::{Descriptor, Manifest};
use memobuild_tree::{BundleId, ContentDigest, Sha256Digest};
use serde::{Deserialize, Serialize};

pub(crate) const CONFIG: &str = "application/vnd.memobuild.cache.config.v1+json";
pub(crate) const TABLE: &str = "application/vnd.memobuild.cache.table.v1+zstd";
pub(crate) const PACK: &str = "application/vnd.memobuild.cache.pack.v1+zstd";
pub(crate) const FILE: &str = "application/vnd.memobuild.cache.file.v1+zstd";
/// The version of all of the above, and of what records mean.
const VERSION: u32 = 1;
/// Generations kept in one artifact: as many builds of different branches profit from each other.
pub(crate) const MAX_GENERATIONS: usize = 8;
/// The longest directory that is read, in bytes.
pub(crate) const MAX_CONFIG: u64 = 256 << 20;

/// A blob of the artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    #[serde(with = "text")]
    pub(crate) digest: Sha256Digest,
    pub(crate) size: u64,
}

impl Blob {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        Self { digest: descriptor.digest, size: descriptor.size }
    }

    pub(crate) fn as_descriptor(self, media_type: &str) -> Descriptor {
        Descriptor::new(media_type, self.digest, self.size)
    }
}

/// Where a bundle's contents are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pack {
    pub(crate) blob: Blob,
    /// Bundles that hold the other small contents which its diff names.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "ids")]
    pub(crate) needs: Vec<BundleId>,
    /// Contents that are blobs of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) large: Vec<Large>,
}

/// A large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Large {
    #[serde(with = "content")]
    pub(crate) content: ContentDigest,
    pub(crate) blob: Blob,
}

/// What one build exported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// Seconds since the epoch.
    pub(crate) created: i64,
    /// A table.
    #[serde(with = "bytes")]
    pub(crate) records: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<Blob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trees: Option<Blob>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) packs: BTreeMap<Hex, Pack>,
    /// Bundles without contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "ids")]
    pub(crate) named: Vec<BundleId>,
}

/// The directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Directory {
    version: u32,
    pub(crate) generations: Vec<Generation>,
}

impl Directory {
    pub(crate) fn new(generations: Vec<Generation>) -> Self {
        Self { version: VERSION, generations }
    }

    /// What is wrong, if it can't be read.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let directory: Self = serde_json::from_slice(bytes).map_err(|e| format!("not a cache: {e}"))?;
        match directory.version {
            VERSION => Ok(directory),
            other => Err(format!("a cache of version {other}, which this memobuild does not know")),
        }
    }

    /// The manifest over it: each blob once.
    pub(crate) fn manifest(&self, config: Descriptor) -> Manifest {
        let mut seen = BTreeSet::new();
        let mut layers = Vec::new();
        let mut add = |media_type: &str, blob: Blob| {
            if seen.insert(blob.digest) {
                layers.push(blob.as_descriptor(media_type));
            }
        };
        for generation in &self.generations {
            generation.facts.iter().chain(&generation.trees).for_each(|blob| add(TABLE, *blob));
            for pack in generation.packs.values() {
                add(PACK, pack.blob);
                pack.large.iter().for_each(|large| add(FILE, large.blob));
            }
        }
        let mut manifest = Manifest::new(config, layers);
        manifest.artifact_type = Some(CONFIG.into());
        manifest
    }
}

/// A bundle's name as a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Hex(String);

impl From<&BundleId> for Hex {
    fn from(id: &BundleId) -> Self {
        Self(id.hex())
    }
}

impl Hex {
    pub(crate) fn id(&self) -> Option<BundleId> {
        BundleId::from_hex(&self.0).ok()
    }
}

mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    use super::Sha256Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Sha256Digest, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Sha256Digest, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

mod content {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    use super::ContentDigest;

    pub(super) fn serialize<S: Serializer>(digest: &ContentDigest, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&digest.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ContentDigest, D::Error> {
        ContentDigest::from_hex(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

pub(crate) mod ids {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    use super::BundleId;

    pub(crate) fn serialize<S: Serializer>(ids: &[BundleId], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(ids.iter().map(BundleId::hex))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<BundleId>, D::Error> {
        let all = Vec::<String>::deserialize(d)?;
        all.iter().map(|hex| BundleId::from_hex(hex).map_err(D::Error::custom)).collect()
    }
}

pub(crate) mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    use base64::{Engine as _, prelude::BASE64_STANDARD};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}
