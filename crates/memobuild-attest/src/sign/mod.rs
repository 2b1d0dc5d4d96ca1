//! Signatures as cosign makes and finds them (sigstore/cosign, `specs/SIGNATURE_SPEC.md`): a payload that names the
//! image's digest, an ECDSA P-256 signature of it, and a manifest with both under a tag made from the digest.

mod encrypted;
mod key;
mod pem;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memobuild_image::{Descriptor, Manifest, json, media};
use memobuild_tree::Sha256Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attach::{self, Attachment};

pub use key::{KeyError, PrivateKey, PublicKey};

/// The media type of payloads.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a payload's descriptor that holds the signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The artifact type of signatures that are referrers.
pub const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

const PAYLOAD_TYPE: &str = "cosign container image signature";

/// What is signed (containers/image, `containers-signature.5.md`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// What makes the signature valid.
    pub critical: Critical,
    /// Claims of the signer's; `null` where there are none.
    #[serde(default)]
    pub optional: Option<BTreeMap<String, serde_json::Value>>,
}

/// The part of a payload that must be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Critical {
    /// As what the image was signed.
    pub identity: Identity,
    /// What was signed.
    pub image: Image,
    /// Always the same words.
    #[serde(rename = "type")]
    pub kind: String,
}

/// As what an image was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its repository, without tag or digest.
    #[serde(rename = "docker-reference")]
    pub docker_reference: String,
}

/// Which image was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its manifest or index.
    #[serde(rename = "docker-manifest-digest", alias = "Docker-manifest-digest")]
    pub docker_manifest_digest: String,
}

/// A signature and what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// The signature in ASN.1 DER, in base64.
    pub base64: String,
}

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// Not in base64 or not in ASN.1 DER.
    #[error("the signature is not base64 of an ECDSA signature")]
    Form,
    /// Made by another key, or of other bytes.
    #[error("the signature was not made with this key, or what it signs was changed")]
    Signature,
    /// Signed, but no payload of cosign's.
    #[error("what was signed is no image signature of cosign's: {0}")]
    Payload(String),
    /// Of another image.
    #[error("the signature is for {signed}, not for {expected}")]
    Digest {
        /// What the payload names.
        signed: String,
        /// What was asked about.
        expected: Sha256Digest,
    },
}

impl Signature {
    /// Signs an image's manifest or index. `reference` is its repository; equal arguments give equal bytes.
    ///
    /// # Errors
    /// When the key can't sign, or never in practice.
    pub fn new(
        key: &PrivateKey,
        reference: &str,
        digest: &Sha256Digest,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, KeyError> {
        let optional = annotations.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let payload = Payload {
            critical: Critical {
                identity: Identity { docker_reference: reference.into() },
                image: Image { docker_manifest_digest: digest.to_string() },
                kind: PAYLOAD_TYPE.into(),
            },
            optional: (!annotations.is_empty()).then_some(optional),
        };
        let payload = json::compact(&payload).map_err(|_| KeyError::Sign)?;
        let base64 = STANDARD.encode(key.sign(&payload)?);
        Ok(Self { payload, base64 })
    }

    /// Whether the signature was made with the key's private half, for that image. Hands back what was signed.
    ///
    /// # Errors
    /// Says why it does not hold.
    pub fn verify(&self, key: &PublicKey, expected: &Sha256Digest) -> Result<Payload, VerifyError> {
        let der = STANDARD.decode(&self.base64).map_err(|_| VerifyError::Form)?;
        key.verify(&self.payload, &der)?;
        let payload: Payload =
            serde_json::from_slice(&self.payload).map_err(|e| VerifyError::Payload(e.to_string()))?;
        if payload.critical.kind != PAYLOAD_TYPE {
            return Err(VerifyError::Payload(format!("its type is {:?}", payload.critical.kind)));
        }
        let signed = &payload.critical.image.docker_manifest_digest;
        if *signed != expected.to_string() {
            return Err(VerifyError::Digest { signed: signed.clone(), expected: *expected });
        }
        Ok(payload)
    }

    /// The signature that a layer of a signature manifest holds, given the layer's bytes; `None` if it is none.
    pub fn of_layer(layer: &Descriptor, bytes: Vec<u8>) -> Option<Self> {
        let base64 = layer.annotations.get(SIGNATURE_ANNOTATION)?.clone();
        (layer.media_type == SIMPLE_SIGNING).then_some(Self { payload: bytes, base64 })
    }

    fn layer(&self) -> (Descriptor, Vec<u8>) {
        let mut layer = Descriptor::of(SIMPLE_SIGNING, &self.payload);
        layer.annotations.insert(SIGNATURE_ANNOTATION.into(), self.base64.clone());
        (layer, self.payload.clone())
    }
}

/// The tag under which an image's signatures are found, in the image's repository.
pub fn tag(image: &Sha256Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// The manifest to be pushed under [`tag`]. All signatures of an image are in one: those of `existing` (what the tag
/// names now) stay, and their blobs are where they are.
///
/// # Errors
/// Never in practice: all keys are texts.
pub fn manifest(existing: Option<&Manifest>, signatures: &[Signature]) -> serde_json::Result<Attachment> {
    let kept = existing.map(|m| m.layers.clone()).unwrap_or_default();
    let new: Vec<_> = signatures.iter().map(Signature::layer).filter(|(d, _)| !kept.contains(d)).collect();
    let all: Vec<Descriptor> = kept.into_iter().chain(new.iter().map(|(d, _)| d.clone())).collect();
    // As cosign writes it: readers take it for an image.
    let diff_ids: Vec<String> = all.iter().map(|d| d.digest.to_string()).collect();
    let history: Vec<_> = all.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect();
    let config = json::compact(&json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "history": history, "os": "",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {},
    }))?;
    attach::assemble((Descriptor::of(media::CONFIG, &config), config), new, |manifest| manifest.layers = all)
}

/// The same as an OCI referrer of the image, for registries that list referrers.
///
/// # Errors
/// Never in practice: all keys are texts.
pub fn referrer(target: &Descriptor, signatures: &[Signature]) -> serde_json::Result<Attachment> {
    let layers = signatures.iter().map(Signature::layer).collect();
    let mut attachment = attach::artifact(target, SIGNATURE_ARTIFACT, layers, BTreeMap::new())?;
    attachment.descriptor.artifact_type = Some(SIGNATURE_ARTIFACT.into());
    Ok(attachment)
}

#[cfg(test)]
mod tests;
