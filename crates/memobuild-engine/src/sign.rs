//! Signatures of pushed images, in cosign's format: in a manifest under the tag `sha256-DIGEST.sig`, beside those of others.

use std::collections::BTreeMap;

use memobuild_attest::sign::{self, PrivateKey, PublicKey, Signature};
use memobuild_image::{Descriptor, Manifest, media};
use memobuild_observe::FailureKind;
use memobuild_oci::{
    reference::Reference,
    registry::{Registries, RegistryError},
};
use memobuild_tree::Sha256Digest;

use crate::EngineError;

/// The longest signed payload that is read, in bytes.
const MAX_PAYLOAD: u64 = 1 << 20;

fn failed(error: &RegistryError) -> EngineError {
    let out = EngineError::chain(FailureKind::Registry, error);
    match error.hint() {
        Some(hint) => out.with_hint(hint),
        None => out,
    }
}

fn unsound(error: &(dyn std::error::Error + 'static)) -> EngineError {
    EngineError::chain(FailureKind::Usage, error)
}

/// The repository of a name, and the tag at which an image's signatures are in it.
fn place(name: &Reference, image: &Sha256Digest) -> Reference {
    Reference { tag: Some(sign::tag(image)), digest: None, ..name.clone() }
}

/// Signs what was pushed under each of these names.
///
/// # Errors
/// The registry does not take it, or the key can't sign.
pub fn push(
    registries: &Registries,
    key: &PrivateKey,
    names: &[Reference],
    root: &Descriptor,
) -> Result<(), EngineError> {
    let mut done: Vec<Reference> = Vec::new();
    for name in names {
        let at = place(name, &root.digest);
        if done.contains(&at) {
            continue;
        }
        let repository = Reference { tag: None, digest: None, ..name.clone() };
        let signature = Signature::new(key, &repository.to_string(), &root.digest, &BTreeMap::new());
        let signature = signature.map_err(|e| unsound(&e))?;
        let there = existing(registries, &at)?;
        let made = sign::manifest(there.as_ref(), &[signature]).map_err(|e| unsound(&e))?;
        for (blob, bytes) in &made.blobs {
            registries.push_bytes(&at, &blob.media_type, bytes).map_err(|e| failed(&e))?;
        }
        registries.put_manifest(&at, media::MANIFEST, &made.manifest).map_err(|e| failed(&e))?;
        done.push(at);
    }
    Ok(())
}

/// The signatures that are there.
fn existing(registries: &Registries, at: &Reference) -> Result<Option<Manifest>, EngineError> {
    let found = registries.find_manifest(at).map_err(|e| failed(&e))?;
    // Anything else under that name is replaced.
    Ok(found.and_then(|found| serde_json::from_slice(&found.bytes).ok()))
}

/// Whether an image was signed with the private half of a key: the number of its signatures that hold.
///
/// # Errors
/// The registry can't be asked, or no signature holds.
pub fn check(
    registries: &Registries,
    key: &PublicKey,
    name: &Reference,
    image: &Sha256Digest,
) -> Result<usize, EngineError> {
    let at = place(name, image);
    let none = |why: String| EngineError::new(FailureKind::Step, format!("{name}: {why}"));
    let manifest = existing(registries, &at)?.ok_or_else(|| none(format!("no signature of {image}")))?;
    let (mut sound, mut why) = (0, "no signature is cosign's".to_owned());
    for layer in &manifest.layers {
        let bytes = registries.read_blob(&at, layer, MAX_PAYLOAD).map_err(|e| failed(&e))?;
        let Some(signature) = Signature::of_layer(layer, bytes) else { continue };
        match signature.verify(key, image) {
            Ok(_) => sound += 1,
            Err(error) => why = error.to_string(),
        }
    }
    if sound == 0 { Err(none(why)) } else { Ok(sound) }
}
