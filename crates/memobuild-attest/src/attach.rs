//! Manifests that attach statements to an image: BuildKit's attestation manifests, which stand in the image's index
//! (BuildKit's `docs/attestations/attestation-storage.md`), and OCI referrers, which point to the image
//! (image-spec 1.1, manifest.md, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;

use memobuild_image::{Descriptor, Manifest, Platform, json, media};
use serde_json::json;

use crate::statement::Statement;

/// The media type of statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The artifact type of BuildKit's attestation manifests.
pub const ATTESTATION_MANIFEST: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// The media type of a config that says nothing.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// A manifest and all that it names, to be stored by the caller: first the blobs, then the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// What names the manifest: for the image's index, or to push it by.
    pub descriptor: Descriptor,
    /// Config and layers.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

/// How an attestation manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// As an OCI artifact with a subject: BuildKit's default since 0.31.
    #[default]
    Artifact,
    /// With an image config, for registries and readers that know no artifacts (`oci-artifact=false`).
    Image,
}

/// BuildKit's attestation manifest for the image manifest `target`. The descriptor belongs into the same index, after
/// the images: its platform, `unknown/unknown`, keeps it from being run.
///
/// # Errors
/// Never in practice: all keys are texts.
pub fn attestation_manifest(
    target: &Descriptor,
    statements: &[Statement],
    form: Form,
) -> serde_json::Result<Attachment> {
    let layers = layers(statements);
    let mut attachment = match form {
        Form::Artifact => artifact(target, ATTESTATION_MANIFEST, layers, BTreeMap::new())?,
        Form::Image => {
            let diff_ids: Vec<String> = layers.iter().map(|(d, _)| d.digest.to_string()).collect();
            let config = json::compact(&json!({
                "architecture": "unknown", "os": "unknown", "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }))?;
            let config = (Descriptor::of(media::CONFIG, &config), config);
            assemble(config, layers, |_| {})?
        }
    };
    let descriptor = &mut attachment.descriptor;
    descriptor.annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
    descriptor.annotations.insert(REFERENCE_DIGEST.into(), target.digest.to_string());
    descriptor.platform = Some(unknown_platform());
    Ok(attachment)
}

/// An OCI referrer of `target` (an image manifest or an index) that carries statements. In a list of referrers the
/// descriptor shows the artifact type, and the predicate type if there is one statement.
///
/// # Errors
/// Never in practice: all keys are texts.
pub fn referrer(target: &Descriptor, statements: &[Statement]) -> serde_json::Result<Attachment> {
    let mut annotations = BTreeMap::new();
    if let [statement] = statements {
        annotations.insert(PREDICATE_TYPE.to_owned(), statement.predicate_type.clone());
    }
    let mut attachment = artifact(target, IN_TOTO, layers(statements), annotations.clone())?;
    attachment.descriptor.artifact_type = Some(IN_TOTO.into());
    attachment.descriptor.annotations = annotations;
    Ok(attachment)
}

pub(crate) fn artifact(
    target: &Descriptor,
    artifact_type: &str,
    layers: Vec<(Descriptor, Vec<u8>)>,
    annotations: BTreeMap<String, String>,
) -> serde_json::Result<Attachment> {
    let mut empty = Descriptor::of(EMPTY, b"{}");
    empty.data = Some("e30=".into());
    assemble((empty, b"{}".to_vec()), layers, |manifest| {
        manifest.artifact_type = Some(artifact_type.into());
        manifest.subject = Some(Box::new(Descriptor::new(&target.media_type, target.digest, target.size)));
        manifest.annotations = annotations;
    })
}

pub(crate) fn assemble(
    config: (Descriptor, Vec<u8>),
    layers: Vec<(Descriptor, Vec<u8>)>,
    edit: impl FnOnce(&mut Manifest),
) -> serde_json::Result<Attachment> {
    let mut manifest = Manifest::new(config.0.clone(), layers.iter().map(|(d, _)| d.clone()).collect());
    edit(&mut manifest);
    let bytes = json::pretty(&manifest)?;
    let mut blobs = vec![config];
    blobs.extend(layers);
    Ok(Attachment { descriptor: Descriptor::of(media::MANIFEST, &bytes), manifest: bytes, blobs })
}

fn layers(statements: &[Statement]) -> Vec<(Descriptor, Vec<u8>)> {
    let layer = |statement: &Statement| {
        let mut descriptor = Descriptor::of(IN_TOTO, &statement.bytes);
        descriptor.annotations.insert(PREDICATE_TYPE.into(), statement.predicate_type.clone());
        (descriptor, statement.bytes.clone())
    };
    statements.iter().map(layer).collect()
}

fn unknown_platform() -> Platform {
    Platform {
        architecture: "unknown".into(),
        os: "unknown".into(),
        os_version: String::new(),
        os_features: Vec::new(),
        variant: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use memobuild_tree::Sha256Digest;
    use serde_json::Value;

    use super::*;

    fn statements() -> Vec<Statement> {
        let statement = |kind: &str| Statement::new(kind, &[], b"{}").unwrap();
        vec![statement("https://spdx.dev/Document"), statement("https://slsa.dev/provenance/v1")]
    }

    fn target() -> Descriptor {
        let mut target = Descriptor::of(media::MANIFEST, b"image");
        target.annotations.insert("x".into(), "y".into());
        target
    }

    fn check(attachment: &Attachment) -> Value {
        assert_eq!(Sha256Digest::of(&attachment.manifest), attachment.descriptor.digest);
        for (descriptor, bytes) in &attachment.blobs {
            assert_eq!((descriptor.digest, descriptor.size), (Sha256Digest::of(bytes), bytes.len() as u64));
        }
        serde_json::from_slice(&attachment.manifest).unwrap()
    }

    #[test]
    fn artifacts_are_what_buildkits_docs_show() {
        let attachment = attestation_manifest(&target(), &statements(), Form::Artifact).unwrap();
        let manifest = check(&attachment);
        assert_eq!(manifest["artifactType"], ATTESTATION_MANIFEST);
        let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(manifest["config"], json!({"mediaType": EMPTY, "digest": empty, "size": 2, "data": "e30="}));
        assert_eq!(manifest["layers"][1]["mediaType"], IN_TOTO);
        assert_eq!(manifest["layers"][1]["annotations"], json!({PREDICATE_TYPE: "https://slsa.dev/provenance/v1"}));
        let digest = target().digest.to_string();
        assert_eq!(manifest["subject"], json!({"mediaType": media::MANIFEST, "digest": digest, "size": 5}));
        let descriptor = serde_json::to_value(&attachment.descriptor).unwrap();
        let annotations = json!({REFERENCE_DIGEST: digest, REFERENCE_TYPE: "attestation-manifest"});
        assert_eq!(descriptor["annotations"], annotations);
        assert_eq!(descriptor["platform"], json!({"architecture": "unknown", "os": "unknown"}));
        assert!(attachment.descriptor.is_attestation());
    }

    #[test]
    fn the_older_form_has_an_image_config() {
        let attachment = attestation_manifest(&target(), &statements(), Form::Image).unwrap();
        let manifest = check(&attachment);
        assert_eq!(manifest.get("artifactType"), None);
        assert_eq!(manifest.get("subject"), None);
        let config: Value = serde_json::from_slice(&attachment.blobs[0].1).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(manifest["config"]["mediaType"], media::CONFIG);
    }

    #[test]
    fn referrers_say_what_they_are() {
        let attachment = referrer(&target(), &statements()[..1]).unwrap();
        let manifest = check(&attachment);
        assert_eq!(manifest["artifactType"], IN_TOTO);
        assert_eq!(manifest["annotations"], json!({PREDICATE_TYPE: "https://spdx.dev/Document"}));
        assert_eq!(attachment.descriptor.artifact_type.as_deref(), Some(IN_TOTO));
        assert_eq!(attachment.descriptor.platform, None);
    }
}
