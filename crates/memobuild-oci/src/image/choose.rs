//! Finds the one manifest that is meant: by tag, by digest, by platform, through indexes in indexes.

use memobuild_image::{Descriptor, ImageConfig, Index, Manifest, Platform, media};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use super::{ImageError, Pick, place::Place};
use crate::reference::Reference;

/// Indexes in indexes, at most.
const MAX_DEPTH: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The entry of a layout's `index.json` that is meant, or the list itself (with its bytes, since it is no blob) where it
/// holds one image for several platforms.
pub(super) fn from_layout(place: &Place, index: &Index, pick: &Pick, store: &Store) -> Result<Candidate, ImageError> {
    let images: Vec<_> = index.manifests.iter().filter(|d| !d.is_attestation()).collect();
    let have = || {
        let mut names: Vec<_> = images.iter().filter_map(|d| d.annotations.get(REF_NAME).cloned()).collect();
        names.sort();
        names.dedup();
        names
    };
    let not_found = |wanted: String| ImageError::NotFound { image: place.shown(), wanted, have: have() };
    match pick {
        Pick::Digest(digest) => match images.iter().find(|d| d.digest == *digest) {
            Some(found) => Ok(((*found).clone(), None)),
            None => by_digest(place, *digest, store).map(|d| (d, None)).map_err(|_| not_found(digest.to_string())),
        },
        Pick::Tag(tag) => tagged(&images, tag).map(|d| (d, None)).ok_or_else(|| not_found(format!("tag {tag}"))),
        Pick::Any => {
            let first = images.first().ok_or_else(|| not_found("an image".into()))?;
            if images.len() == 1 || images.iter().all(|d| d.digest == first.digest) {
                return Ok(((*first).clone(), None));
            }
            // A plain list of one image for several platforms is as good as an index; so is one called latest.
            if images
                .iter()
                .all(|d| d.platform.is_some() && d.annotations.get(REF_NAME) == first.annotations.get(REF_NAME))
            {
                let bytes =
                    memobuild_image::json::compact(index).map_err(|e| place.invalid("index.json", &e.to_string()))?;
                return Ok((Descriptor::of(media::INDEX, &bytes), Some(bytes)));
            }
            tagged(&images, "latest")
                .map(|d| (d, None))
                .ok_or_else(|| ImageError::Ambiguous { image: place.shown(), have: have() })
        }
    }
}

fn tagged(images: &[&Descriptor], tag: &str) -> Option<Descriptor> {
    let means = |d: &&&Descriptor| {
        let is = |name: &String| {
            name == tag
                || name.parse::<Reference>().is_ok_and(|r| {
                    r.tag.as_deref() == Some(tag) || tag.parse::<Reference>().is_ok_and(|t| t.with_default_tag() == r)
                })
        };
        [REF_NAME, CONTAINERD_NAME].iter().filter_map(|key| d.annotations.get(*key)).any(is)
    };
    images.iter().find(means).map(|d| (*d).clone())
}

/// A manifest or index that no list names.
fn by_digest(place: &Place, digest: Sha256Digest, store: &Store) -> Result<Descriptor, ImageError> {
    let bytes = place.document(&Descriptor::new("", digest, 0), store)?;
    Ok(Descriptor::of(&media_type(place, &digest.to_string(), &bytes)?, &bytes))
}

/// What a document says it is, or looks like.
fn media_type(place: &Place, what: &str, bytes: &[u8]) -> Result<String, ImageError> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| place.invalid(what, &e.to_string()))?;
    let own = value.get("mediaType").and_then(|m| m.as_str()).unwrap_or_default();
    Ok(match own {
        "" if value.get("manifests").is_some() => media::INDEX.into(),
        "" => media::MANIFEST.into(),
        own => own.into(),
    })
}

/// The image of a platform under a manifest or index.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) digest: Sha256Digest,
    pub(super) config: ImageConfig,
    pub(super) config_bytes: Vec<u8>,
}

/// Goes down from a descriptor to the manifest that suits the platform best.
pub(super) fn for_platform(
    place: &Place,
    root: &Descriptor,
    root_bytes: Option<Vec<u8>>,
    wanted: &Platform,
    store: &Store,
) -> Result<Chosen, ImageError> {
    let mut candidates = Vec::new();
    collect(place, root, root_bytes, store, 0, &mut candidates)?;
    // A single manifest is taken whatever it is for, as BuildKit takes it.
    if !media::is_index(&root.media_type)
        && let Some((descriptor, bytes)) = candidates.pop()
    {
        return read(place, &descriptor, bytes, store);
    }
    let mut best: Option<(u32, Descriptor, Option<Vec<u8>>)> = None;
    let mut have = Vec::new();
    for (descriptor, bytes) in candidates {
        let platform = match &descriptor.platform {
            Some(platform) => platform.clone(),
            None => read(place, &descriptor, bytes.clone(), store)?.config.platform,
        };
        have.push(platform.to_string());
        if let Some(fitness) = platform.fitness(wanted)
            && best.as_ref().is_none_or(|(f, ..)| fitness > *f)
        {
            best = Some((fitness, descriptor, bytes));
        }
    }
    let no_platform = || ImageError::NoPlatform { image: place.shown(), wanted: Box::new(wanted.clone()), have };
    let (_, descriptor, bytes) = best.ok_or_else(no_platform)?;
    read(place, &descriptor, bytes, store)
}

/// A descriptor, with the bytes it stands for where they are at hand.
pub(super) type Candidate = (Descriptor, Option<Vec<u8>>);

fn collect(
    place: &Place,
    at: &Descriptor,
    bytes: Option<Vec<u8>>,
    store: &Store,
    depth: usize,
    out: &mut Vec<Candidate>,
) -> Result<(), ImageError> {
    let what = at.digest.to_string();
    if at.is_attestation() {
        return Ok(());
    }
    if !media::is_index(&at.media_type) {
        if media::is_manifest(&at.media_type) || at.media_type.is_empty() {
            out.push((at.clone(), bytes));
            return Ok(());
        }
        return match depth {
            0 => Err(place.invalid(&what, &format!("{} is no image", at.media_type))),
            // Other artefacts may stand in an index beside images.
            _ => Ok(()),
        };
    }
    if depth >= MAX_DEPTH {
        return Err(place.invalid(&what, "indexes nested too deep"));
    }
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => place.document(at, store)?,
    };
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| place.invalid(&what, &e.to_string()))?;
    for entry in &index.manifests {
        collect(place, entry, None, store, depth + 1, out)?;
    }
    Ok(())
}

fn read(place: &Place, at: &Descriptor, bytes: Option<Vec<u8>>, store: &Store) -> Result<Chosen, ImageError> {
    let what = at.digest.to_string();
    let manifest_bytes = match bytes {
        Some(bytes) => bytes,
        None => place.document(at, store)?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&manifest_bytes).map_err(|e| place.invalid(&what, &e.to_string()))?;
    let kind = manifest.config.media_type.as_str();
    if !matches!(kind, media::CONFIG | media::DOCKER_CONFIG) {
        return Err(place.invalid(&what, &format!("it holds {kind}, which is no image config")));
    }
    let config_bytes = place.document(&manifest.config, store)?;
    let config: ImageConfig = serde_json::from_slice(&config_bytes)
        .map_err(|e| place.invalid(&manifest.config.digest.to_string(), &e.to_string()))?;
    Ok(Chosen { manifest, manifest_bytes, digest: at.digest, config, config_bytes })
}
