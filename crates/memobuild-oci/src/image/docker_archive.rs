//! What `docker save` writes: `manifest.json`, configs, and layers by path.

use memobuild_image::{ImageConfig, Platform};
use memobuild_tree::Sha256Digest;
use serde::Deserialize;

use super::{ImageError, Pick, place::Place};
use crate::reference::Reference;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image in the archive.
pub(super) struct Found {
    pub(super) config: ImageConfig,
    pub(super) config_bytes: Vec<u8>,
    /// Names of the layers' files, lowest first.
    pub(super) layers: Vec<String>,
}

/// The image that is meant. The archive has no digests but those in the configs, which guard the layers.
pub(super) fn find(place: &Place, pick: &Pick, wanted: &Platform) -> Result<Found, ImageError> {
    let bytes = place.read_file("manifest.json")?.ok_or_else(|| place.invalid("manifest.json", "it is not there"))?;
    let saved: Vec<Saved> =
        serde_json::from_slice(&bytes).map_err(|e| place.invalid("manifest.json", &e.to_string()))?;
    let mut have: Vec<String> = saved.iter().flat_map(|s| s.repo_tags.clone().unwrap_or_default()).collect();
    have.sort();
    let mut found = Vec::new();
    for image in saved {
        let config_bytes =
            place.read_file(&image.config)?.ok_or_else(|| place.invalid(&image.config, "it is not there"))?;
        let meant = match pick {
            Pick::Any => true,
            Pick::Digest(digest) => Sha256Digest::of(&config_bytes) == *digest,
            Pick::Tag(tag) => image.repo_tags.iter().flatten().any(|name| is(name, tag)),
        };
        if meant {
            let config: ImageConfig =
                serde_json::from_slice(&config_bytes).map_err(|e| place.invalid(&image.config, &e.to_string()))?;
            found.push(Found { config, config_bytes, layers: image.layers });
        }
    }
    if found.len() > 1 {
        // One image for several platforms, perhaps.
        found.sort_by_key(|f| std::cmp::Reverse(f.config.platform.fitness(wanted)));
        let fit = found.iter().filter(|f| f.config.platform.fitness(wanted).is_some()).count();
        if fit != 1 {
            return Err(ImageError::Ambiguous { image: place.shown(), have });
        }
        found.truncate(1);
    }
    let wanted = match pick {
        Pick::Any => "an image".into(),
        Pick::Digest(digest) => digest.to_string(),
        Pick::Tag(tag) => format!("tag {tag}"),
    };
    found.pop().ok_or(ImageError::NotFound { image: place.shown(), wanted, have })
}

fn is(name: &str, tag: &str) -> bool {
    let Ok(name) = name.parse::<Reference>() else { return false };
    name.tag.as_deref() == Some(tag) || tag.parse::<Reference>().is_ok_and(|t| t.with_default_tag() == name)
}
