//! `memobuild export`.

use std::{collections::BTreeMap, io::IsTerminal as _, path::Path, process::ExitCode};

use clap::Args;
use memobuild_engine::{CompressionMethod, Destination, Level, Output, OutputKind};
use memobuild_image::{Descriptor, ImageConfig, json, media};
use memobuild_observe::FailureKind;
use memobuild_oci::{
    image::{BaseImage, BaseLayer},
    layer::{self, Compression, ExportedLayer, TimestampPolicy},
    output::{self, Dest, OutputImage},
};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use super::{CliResult, Failure, image, text, values};

/// Write an image of memobuild's store to a file, a directory or standard output
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// Name or ID of an image in memobuild's store
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Where it goes: type=oci|docker|tar|local,dest=PATH; a bare path is a directory, - a tar on standard output
    #[arg(short, long, value_name = "OUTPUT", value_parser = values::output)]
    output: Output,
}

const EXAMPLES: &str = "\
Examples:
  An OCI archive:
    memobuild export app -o type=oci,dest=app.tar
  What `docker load` takes (`memobuild load` sends less):
    memobuild export app -o type=docker | docker load
  The root file system, in a directory:
    memobuild export app -o rootfs";

pub(crate) fn run(args: &ExportArgs) -> CliResult {
    let to_stdout =
        matches!(args.output.dest, None | Some(Destination::Stdout)) && args.output.kind != OutputKind::Image;
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage("the image would be written to the terminal")
            .with_hint("give --output a dest=FILE, or send standard output to a file or a pipe"));
    }
    let store = image::store_with(&args.image)?;
    let named = image::find(&store, &args.image)?;
    // What is being read must not be collected meanwhile.
    let _lease = store.lease()?;
    let dest = dest(&args.output)?;
    let epoch = None;
    match args.output.kind {
        OutputKind::Image => {
            return Err(Failure::usage("the image is in the store already: expected type=oci, docker, tar or local"));
        }
        OutputKind::Oci | OutputKind::Docker => {
            let base = base(&store, &named)?;
            let annotations = &args.output.annotations;
            let own = annotations.iter().filter(|a| a.level == Level::Manifest);
            let own = own.map(|a| (a.key.clone(), a.value.clone())).collect();
            let manifest = assemble(&store, &named, &base, &own, Some(&args.output), &|_| {})?;
            let config = config(&store, &named)?;
            let mut names = vec![named.name.clone().with_default_tag()];
            if !args.output.names.is_empty() {
                names = args
                    .output
                    .names
                    .iter()
                    .map(|n| n.parse())
                    .collect::<Result<_, _>>()
                    .map_err(|e: memobuild_oci::reference::ReferenceError| Failure::usage(e.to_string()))?;
            }
            let root = OutputImage { root: manifest, names, created: config.created };
            let written = match args.output.kind {
                OutputKind::Docker => output::write_docker(&store, &root, &dest),
                _ => output::write_oci(&store, &root, &dest),
            };
            written.map_err(output_failure)?;
        }
        OutputKind::Tar | OutputKind::Local => {
            // It brings contents for as long as it is there.
            let image = base(&store, &named)?;
            let tree = image.tree(&|_, _| {}).map_err(image::failure)?;
            match (&dest, args.output.kind) {
                (Dest::Dir(dir), OutputKind::Local) => {
                    for warning in output::write_local(&store, &tree, epoch, dir).map_err(output_failure)? {
                        text::to_stderr(&format!("warning: {warning}\n"));
                    }
                }
                _ => output::write_tar(&store, &tree, epoch, &dest).map_err(output_failure)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The image's manifest in the store, made (with its layers' blobs) where it lacks. `made` is told each layer that
/// was built here as soon as its blob is known.
pub(crate) fn assemble(
    store: &Store,
    named: &image::Named,
    base: &BaseImage,
    annotations: &BTreeMap<String, String>,
    output: Option<&Output>,
    made: &dyn Fn(&Descriptor),
) -> Result<Descriptor, Failure> {
    let wanted = output.and_then(compression);
    // Docker's manifests have no annotations.
    let docker_types = !wanted.is_some_and(Compression::needs_annotations)
        && output.is_some_and(|o| !o.oci_mediatypes.unwrap_or(o.kind != OutputKind::Docker));
    // One that came as it is goes on as it is, if nothing else is asked for.
    let asked = output.is_some_and(|o| o.compression != Default::default() || o.oci_mediatypes.is_some());
    if let Some(manifest) = named.image.manifest.as_ref().filter(|_| !asked && annotations.is_empty())
        && docker_types == (manifest.media_type == media::DOCKER_MANIFEST)
        && store.oci_blob_path(&manifest.digest).is_some()
    {
        for i in (0..base.layers.len()).filter(|_| output.is_some_and(|o| !o.push)) {
            base.ensure_blob(i, &|_, _| {}).map_err(image::failure)?;
        }
        return Ok(manifest.clone());
    }
    let mut layers = Vec::new();
    for (i, known) in base.layers.iter().enumerate() {
        let layer = layer(store, base, i, output)?;
        if known.blob.is_none() {
            made(&layer.blob);
        }
        layers.push(layer);
    }
    let mut bytes = image::blob(store, &named.image.config.digest)?;
    let ids: Vec<Sha256Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    // eStargz adds to the tar, and makes another image of it.
    if base.layers.iter().map(|layer| &layer.diff_id).ne(&ids) {
        let mut config = config(store, named)?;
        config.rootfs.diff_ids = ids;
        bytes = json::config(&config).map_err(|e| Failure::caused(FailureKind::Cache, &e))?;
    }
    let layers: Vec<Descriptor> = layers.into_iter().map(|layer| layer.blob).collect();
    let assembled = output::assemble(store, &bytes, &layers, annotations, docker_types).map_err(output_failure)?;
    Ok(assembled.manifest)
}

/// The blob of a layer, and its diff ID. What `compression=` asks for goes for layers that were built here, and with
/// `force-compression=true` for those of the base image too.
fn layer(store: &Store, base: &BaseImage, i: usize, output: Option<&Output>) -> Result<ExportedLayer, Failure> {
    let broken = |e| Failure::caused(FailureKind::Cache, &e);
    let wanted = output.and_then(compression);
    let known = base.layers.get(i);
    if let (Some(wanted), Some(BaseLayer { blob: None, bundle: Some(bundle), diff_id, .. })) = (wanted, known) {
        // The config names the diff ID: a layer that was built with other times has another one.
        if layer::layer_diff_id(store, bundle, TimestampPolicy::Keep).map_err(broken)? == *diff_id {
            let made = layer::export_layer(store, bundle, wanted, TimestampPolicy::Keep).map_err(broken)?;
            return Ok(warned(wanted, made));
        }
    }
    let lies = known.and_then(|layer| layer.blob.clone());
    let blob = match lies.filter(|_| output.is_some_and(|o| o.push && !o.compression.force)) {
        // The registry may have it, so that nobody needs to fetch it.
        Some(blob) => blob,
        None => base.ensure_blob(i, &|_, _| {}).map_err(image::failure)?,
    };
    match (wanted, known) {
        (Some(wanted), _) if output.is_some_and(|o| o.compression.force) && !wanted.is_that_of(&blob) => {
            Ok(warned(wanted, layer::recompress_layer(store, &blob.digest, wanted).map_err(broken)?))
        }
        (_, Some(known)) => Ok(ExportedLayer { diff_id: known.diff_id, blob }),
        (_, None) => Err(Failure::usage("the image has no such layer")),
    }
}

fn warned(wanted: Compression, made: ExportedLayer) -> ExportedLayer {
    if let Some(why) = wanted.shortfall(&made.blob) {
        text::to_stderr(&format!("warning: {why}\n"));
    }
    made
}

/// What is asked for; a level alone, or force alone, is said of gzip, as BuildKit takes it.
fn compression(output: &Output) -> Option<Compression> {
    let asked = &output.compression;
    let any = asked.method.is_some() || asked.level.is_some() || asked.force;
    let name = asked.method.map_or("gzip", CompressionMethod::name);
    any.then(|| Compression::parse(name, asked.level)).flatten()
}

fn config(store: &Store, named: &image::Named) -> Result<ImageConfig, Failure> {
    let bytes = image::blob(store, &named.image.config.digest)?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::caused(FailureKind::Cache, &e))
}

pub(crate) fn base(store: &Store, named: &image::Named) -> Result<image::Opened, Failure> {
    image::opened(store, named, &image::registries()?)
}

/// Images become a directory where that is asked for, or where the name says so.
fn dest(output: &Output) -> Result<Dest, Failure> {
    let as_dir = |path: &Path| match (output.kind, output.tar) {
        (OutputKind::Local, _) => true,
        (OutputKind::Tar, _) => false,
        (_, Some(tar)) => !tar,
        (_, None) => path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/"),
    };
    match &output.dest {
        Some(Destination::Path(path)) if as_dir(path) => Ok(Dest::Dir(path.clone())),
        Some(Destination::Path(path)) => Ok(Dest::File(path.clone())),
        Some(Destination::Stdout) | None => Ok(Dest::Stdout),
    }
}

pub(crate) fn output_failure(error: output::OutputError) -> Failure {
    let kind = match &error {
        output::OutputError::Registry(_) => FailureKind::Registry,
        _ => FailureKind::Cache,
    };
    let failure = Failure::caused(kind, &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
