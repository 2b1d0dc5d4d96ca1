//! `memobuild inspect`.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, ValueEnum};
use memobuild_image::ImageConfig;
use memobuild_observe::FailureKind;
use memobuild_store::Store;
use serde_json::{Value, json};

use super::{CliResult, Failure, export, image, text};

/// Show an image: its configuration, layers and history
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Name or ID of an image in memobuild's store
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Print the config (or the manifest) byte for byte
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "config")]
    raw: Option<Raw>,

    /// List the layers and the commands that made them
    #[arg(long, conflicts_with = "raw")]
    layers: bool,
}

/// What `--raw` prints.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Raw {
    /// The image's config
    Config,
    /// The manifest, which is made now if the image was never written out
    Manifest,
}

pub(crate) fn run(args: &InspectArgs) -> CliResult {
    let store = image::store_with(&args.image)?;
    let named = image::find(&store, &args.image)?;
    let bytes = image::blob(&store, &named.image.config.digest)?;
    let shown = match args.raw {
        Some(Raw::Config) => bytes,
        Some(Raw::Manifest) => {
            let manifest =
                export::assemble(&store, &named, &*export::base(&store, &named)?, &BTreeMap::new(), None, &|_| {})?;
            image::blob(&store, &manifest.digest)?
        }
        None => {
            let config: ImageConfig =
                serde_json::from_slice(&bytes).map_err(|e| Failure::caused(FailureKind::Cache, &e))?;
            let shown = if args.layers { layers(&store, &named, &config)? } else { whole(&named, &bytes)? };
            shown.into_bytes()
        }
    };
    text::bytes_to_stdout(&shown)?;
    Ok(ExitCode::SUCCESS)
}

/// What is known of the image, the config under its own names.
fn whole(named: &image::Named, config: &[u8]) -> Result<String, Failure> {
    let config: Value = serde_json::from_slice(config).map_err(|e| Failure::caused(FailureKind::Cache, &e))?;
    let layers: Vec<Value> = named
        .image
        .layers
        .iter()
        .map(|layer| {
            let blob = layer.blob.as_ref();
            json!({
                "diffId": layer.diff_id.to_string(),
                "digest": blob.map(|b| b.digest.to_string()),
                "mediaType": blob.map(|b| b.media_type.clone()),
                "size": blob.map(|b| b.size),
            })
        })
        .collect();
    let shown = json!({
        "name": named.name.to_string(),
        "id": named.image.config.digest.to_string(),
        "manifest": named.image.manifest.as_ref().map(|m| m.digest.to_string()),
        "layers": layers,
        "config": config,
    });
    Ok(format!("{shown:#}\n"))
}

/// One line for each entry of the history; layers with what they hold.
fn layers(store: &Store, named: &image::Named, config: &ImageConfig) -> Result<String, Failure> {
    let mut rows = vec![["LAYER", "SIZE", "MADE BY"].map(str::to_owned)];
    let mut layers = named.image.layers.iter();
    for entry in &config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let size = match layer.and_then(|l| l.bundle) {
            Some(bundle) => image::bundle_size(store, &bundle)?.map(text::bytes),
            None => None,
        };
        let made_by = entry.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        rows.push([
            layer.map_or_else(|| "-".into(), |l| image::short(&l.diff_id)),
            size.unwrap_or_else(|| "-".into()),
            made_by,
        ]);
    }
    Ok(text::table(&rows))
}
