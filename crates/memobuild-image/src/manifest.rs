//! Descriptors, manifests and indexes (image-spec: descriptor.md, manifest.md, image-index.md).

use std::collections::BTreeMap;

use memobuild_tree::Sha256Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Platform, media};

/// Points to a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub digest: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where else it may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub urls: Vec<String>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// In an index: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Artifact type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A bare descriptor.
    pub fn new(media_type: &str, digest: Sha256Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Sha256Digest::of(bytes), bytes.len() as u64)
    }

    /// Whether it lists an attestation, which is no image (BuildKit's `attestation-storage.md`).
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`] or Docker's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Artifact type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// What this is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media::MANIFEST.into(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The same manifest under Docker's media types (`oci-mediatypes=false`), which know no annotations.
    pub fn into_docker(mut self) -> Self {
        self.media_type = media::DOCKER_MANIFEST.into();
        self.config.media_type = media::DOCKER_CONFIG.into();
        for layer in &mut self.layers {
            layer.media_type = media::docker_layer(&layer.media_type).into();
            layer.annotations.clear();
        }
        self.annotations.clear();
        self
    }
}

/// An image index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::INDEX`] or Docker's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What it lists.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::INDEX.into(), manifests, annotations: BTreeMap::new() }
    }
}

fn write_digest<S: Serializer>(digest: &Sha256Digest, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(digest)
}

fn read_digest<'de, D: Deserializer<'de>>(d: D) -> Result<Sha256Digest, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

/// Other builders write `null` where a field is empty.
fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}
