//! `memobuild pull`.

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use memobuild_image::{Descriptor, Platform, media};
use memobuild_oci::{
    image::{self as images, ImageSource, StoredImage},
    reference::Reference,
};
use memobuild_store::Store;

use super::{
    CliResult, Failure, env, image,
    progress_of::{ProgressArgs, Told},
    text,
};
use crate::progress::Progress;

/// Fetch an image from a registry into memobuild's store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// Name of the image, as NAME[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Which one of an image for several platforms [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    #[command(flatten)]
    shown: ProgressArgs,
}

const EXAMPLES: &str = "\
Examples:
  Fetch a base image before going offline:
    memobuild pull debian:12
  One for another processor:
    memobuild pull --platform linux/arm64 debian:12

Builds fetch what they need by themselves. Credentials are those of `docker login`.";

pub(crate) fn run(args: &PullArgs) -> CliResult {
    let store = env::open_store()?;
    let _lease = store.lease()?;
    for name in &args.images {
        let name: Reference = name.parse().map_err(|e| Failure::usage(format!("{e}")))?;
        let digest = pull(&store, &name.with_default_tag(), args)?;
        text::to_stdout(&digest)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches one image; the line that says which.
fn pull(store: &Store, name: &Reference, args: &PullArgs) -> Result<String, Failure> {
    let platform = args.platform.clone().unwrap_or_default();
    let registries = image::registries()?;
    let found = images::open(&ImageSource::Registry(name.clone()), &platform, store, &registries);
    let found = found.map_err(image::failure)?;
    let progress = Arc::new(Progress::start(args.shown.mode()));
    let told = Told::new(&progress, format!("pulling {}", name.familiar()));
    let fetched = found.pull(&|done, total| told.tell(done, total));
    progress.finish();
    fetched.map_err(image::failure)?;
    let kept = |media_type: &str, bytes: &[u8]| -> Result<Descriptor, Failure> {
        let digest = store.oci_blob_put(bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    };
    let manifest = match &found.manifest_bytes {
        Some(bytes) => Some(kept(media_type(bytes), bytes)?),
        None => None,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let stored = StoredImage {
        config: kept(media::CONFIG, &found.config_bytes)?,
        layers: found.layers.clone(),
        manifest,
        created_secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        caches: Vec::new(),
    };
    stored.tag(store, std::slice::from_ref(name)).map_err(image::failure)?;
    Ok(match args.shown.quiet {
        true => format!("{}\n", found.pinned),
        false => format!("{}@{}\n", name.familiar(), found.pinned),
    })
}

/// Docker's manifests name themselves; OCI's may.
fn media_type(manifest: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(manifest);
    if text.contains(media::DOCKER_MANIFEST) { media::DOCKER_MANIFEST } else { media::MANIFEST }
}
