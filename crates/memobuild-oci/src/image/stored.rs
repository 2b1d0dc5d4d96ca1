//! Images in the store under tags: what a build without `--output` leaves, and what `images`, `inspect` and `export`
//! read.
//!
//! A tag's value is a record in JSON: the config's blob, and of each layer the diff ID with its bundle, its blob, or
//! both. The manifest is made when the image is exported, since it names compressed layers.

use memobuild_image::Descriptor;
use memobuild_store::{Ref, Store};
use memobuild_tree::BundleId;
use serde::{Deserialize, Serialize};

use super::{BaseLayer, ImageError};
use crate::reference::Reference;

/// Tags of images among the store's tags.
const PREFIX: &str = "image:";
const VERSION: u32 = 1;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredImage {
    /// The config's blob in the store; its digest is the image's id.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<BaseLayer>,
    /// The manifest's blob, once one has been made.
    pub manifest: Option<Descriptor>,
    /// When it was put here, in seconds since the epoch.
    pub created_secs: i64,
    /// Shared caches that hold bundles which are not here.
    pub caches: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    config: Descriptor,
    layers: Vec<LayerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Descriptor>,
    created: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    caches: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    diff_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
}

impl StoredImage {
    /// Gives the image these names; what had them before loses them. The store then keeps all that it is made of.
    pub fn tag(&self, store: &Store, names: &[Reference]) -> Result<(), ImageError> {
        let mut refs = vec![Ref::Oci(self.config.digest)];
        refs.extend(self.manifest.iter().map(|m| Ref::Oci(m.digest)));
        let mut layers = Vec::new();
        for layer in &self.layers {
            // What is still where the base image came from, or in a shared cache, is not the store's to keep.
            refs.extend(layer.bundle.filter(|bundle| store.holds_bundle(bundle)).map(Ref::Bundle));
            refs.extend(
                layer.blob.iter().filter(|b| store.oci_blob_path(&b.digest).is_some()).map(|b| Ref::Oci(b.digest)),
            );
            layers.push(LayerRecord {
                diff_id: layer.diff_id.to_string(),
                bundle: layer.bundle.map(|b| b.hex()),
                blob: layer.blob.clone(),
                origin: layer.origin.as_ref().map(Reference::to_string),
            });
        }
        let record = Record {
            version: VERSION,
            config: self.config.clone(),
            layers,
            manifest: self.manifest.clone(),
            created: self.created_secs,
            caches: self.caches.clone(),
        };
        let value = serde_json::to_vec(&record).map_err(|e| invalid("the record", e))?;
        for name in names {
            store.tag_set(&key(name), &value, &refs)?;
        }
        Ok(())
    }

    /// The image of that name (`latest` where it names no tag).
    pub fn by_tag(store: &Store, name: &Reference) -> Result<Option<Self>, ImageError> {
        store.tag_get(&key(name))?.map(|value| parse(&key(name), &value)).transpose()
    }

    /// Every name and its image, by name.
    pub fn all(store: &Store) -> Result<Vec<(Reference, Self)>, ImageError> {
        let mut out = Vec::new();
        for (key, value) in store.tags()? {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            let name: Reference = name.parse().map_err(|e| invalid(&key, e))?;
            out.push((name, parse(&key, &value)?));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Takes a name away; whether it was there.
    pub fn untag(store: &Store, name: &Reference) -> Result<bool, ImageError> {
        Ok(store.tag_remove(&key(name))?)
    }
}

fn key(name: &Reference) -> String {
    format!("{PREFIX}{}", name.clone().with_default_tag())
}

fn parse(what: &str, value: &[u8]) -> Result<StoredImage, ImageError> {
    let record: Record = serde_json::from_slice(value).map_err(|e| invalid(what, e))?;
    if record.version != VERSION {
        return Err(invalid(what, format!("format {} is not known", record.version)));
    }
    let layer = |layer: LayerRecord| {
        Ok(BaseLayer {
            diff_id: layer.diff_id.parse().map_err(|e| invalid(what, e))?,
            bundle: layer.bundle.map(|b| BundleId::from_hex(&b).map_err(|e| invalid(what, e))).transpose()?,
            blob: layer.blob,
            origin: layer.origin.map(|o| o.parse().map_err(|e| invalid(what, e))).transpose()?,
        })
    };
    let layers = record.layers.into_iter().map(layer).collect::<Result<_, ImageError>>()?;
    let Record { config, manifest, created, caches, .. } = record;
    Ok(StoredImage { config, layers, manifest, created_secs: created, caches })
}

fn invalid(what: &str, why: impl std::fmt::Display) -> ImageError {
    ImageError::Invalid { image: "the store".into(), what: what.into(), why: why.to_string() }
}
