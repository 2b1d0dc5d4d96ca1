//! `type=inline`: an image that carries its cache. Records and diffs are a field of its config; contents are those of its
//! layers.

use std::fs::File;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memobuild_image::{Descriptor, ImageConfig, Manifest};
use memobuild_oci::layer::{Expected, import_layer};
use memobuild_store::Store;
use memobuild_tree::{BundleId, KeyDigest, Sha256Digest, codec};
use serde::{Deserialize, Serialize};

use crate::{
    CacheError, Collected, Entry,
    depot::Depot,
    directory::{Blob, bytes, ids},
    import::DIFFS,
    table,
};

/// The field of the image config.
pub const FIELD: &str = "memobuild.cache.v1";
/// Above this many bytes an image goes without what only misses read: everybody who runs it has to fetch its config.
const MAX_FACTS: usize = 4 << 20;

/// The field.
#[derive(Serialize, Deserialize)]
pub(crate) struct Inline {
    #[serde(with = "bytes")]
    pub(crate) records: Vec<u8>,
    #[serde(with = "bytes")]
    pub(crate) facts: Vec<u8>,
    #[serde(with = "bytes")]
    pub(crate) trees: Vec<u8>,
    /// Of each layer, lowest first, the bundle that it was made of.
    #[serde(skip)]
    pub(crate) bundles: Vec<Option<BundleId>>,
    /// Bundles that no layer is made of: known by their results alone.
    #[serde(with = "ids")]
    pub(crate) named: Vec<BundleId>,
    layers: Vec<Option<String>>,
}

/// A layer that holds the contents of a bundle.
pub(crate) struct Layer {
    pub(crate) bundle: BundleId,
    blob: Descriptor,
    diff_id: Sha256Digest,
}

/// The value of [`FIELD`] for an image of these layers, lowest first; bundles of those that the build made.
pub fn inline(
    store: &Store,
    collected: &Collected,
    layers: &[Option<BundleId>],
) -> Result<serde_json::Value, CacheError> {
    let pack = |entries: &[Entry]| table::encode(entries).map_err(CacheError::io("a table"));
    let diffs = |ids: &mut dyn Iterator<Item = &BundleId>| -> Result<Vec<Entry>, CacheError> { diffs(store, ids) };
    let mut named: Vec<BundleId> = collected.bundles.iter().chain(&collected.named).copied().collect();
    named.retain(|id| !layers.contains(&Some(*id)));
    let own = diffs(&mut layers.iter().flatten())?;
    let others = diffs(&mut named.iter())?;
    let all: Vec<Entry> = own.iter().chain(&others).chain(&collected.trees).cloned().collect();
    let (mut facts, mut trees) = (pack(&collected.facts)?, pack(&all)?);
    if facts.len() + trees.len() > MAX_FACTS {
        (facts, trees) = (pack(&[])?, pack(&own)?);
    }
    let field = serde_json::json!({
        "records": BASE64_STANDARD.encode(pack(&collected.records)?),
        "facts": BASE64_STANDARD.encode(facts),
        "trees": BASE64_STANDARD.encode(trees),
        "named": named.iter().map(BundleId::hex).collect::<Vec<_>>(),
        "layers": layers.iter().map(|id| id.map(|id| id.hex())).collect::<Vec<_>>(),
    });
    Ok(field)
}

/// The diffs of bundles as entries of a table. Those that are gone are left out.
pub(crate) fn diffs(store: &Store, ids: &mut dyn Iterator<Item = &BundleId>) -> Result<Vec<Entry>, CacheError> {
    let mut out = Vec::new();
    for id in ids {
        if let Some(diff) = store.load_bundle(id)? {
            out.push(Entry {
                ns: DIFFS.into(),
                key: KeyDigest::from_bytes(*id.as_bytes()),
                value: codec::encode(&diff),
            });
        }
    }
    Ok(out)
}

/// Reads the field of a config, if it has one.
pub(crate) fn parse(config: &[u8]) -> Result<Option<Inline>, String> {
    let mut config: serde_json::Value = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    let Some(field) = config.get_mut(FIELD) else { return Ok(None) };
    let mut inline: Inline = serde_json::from_value(field.take()).map_err(|e| format!("its cache is damaged: {e}"))?;
    let id = |hex: &Option<String>| hex.as_ref().and_then(|hex| BundleId::from_hex(hex).ok());
    inline.bundles = inline.layers.iter().map(id).collect();
    Ok(Some(inline))
}

/// The layers of the image that bundles are made of.
pub(crate) fn layers(inline: &Inline, manifest: &Manifest, config: &ImageConfig) -> Vec<Layer> {
    let all = inline.bundles.iter().zip(&manifest.layers).zip(&config.rootfs.diff_ids);
    all.filter_map(|((bundle, blob), diff_id)| {
        Some(Layer { bundle: (*bundle)?, blob: blob.clone(), diff_id: *diff_id })
    })
    .collect()
}

/// Brings the contents of a bundle, out of its layer.
pub(crate) fn bring(layers: &[Layer], id: &BundleId, depot: &dyn Depot, store: &Store) -> Result<bool, CacheError> {
    let Some(layer) = layers.iter().find(|layer| layer.bundle == *id) else { return Ok(false) };
    let path = depot.fetch(Blob::of(&layer.blob), store)?;
    let file = File::open(&path).map_err(CacheError::io(path))?;
    let expected = Expected { diff_id: Some(layer.diff_id), blob: None };
    import_layer(file, &expected, false, store)?;
    Ok(true)
}
