//! containerd, through the programs that come with it: `ctr`, or `nerdctl`.
//!
//! Its content store is asked which layers it has, and those are left out. Afterwards it is asked again: its garbage
//! collector may have taken one in between, and then all is sent.

use std::collections::BTreeSet;

use memobuild_image::Platform;
use memobuild_tree::Sha256Digest;

use super::{
    Loaded, RuntimeError,
    archive::{self, LoadImage, Manifest},
    program,
};
use crate::image::Progress;

/// The program that speaks to containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Ctr,
    Nerdctl,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ctr => "ctr",
            Self::Nerdctl => "nerdctl",
        }
    }
}

pub(super) fn load(
    tool: Tool,
    namespace: &str,
    image: &LoadImage<'_>,
    progress: Progress<'_>,
) -> Result<Loaded, RuntimeError> {
    let manifest = archive::manifest(image)?;
    let id = manifest.root.digest;
    let namespace = &format!("--namespace={namespace}");
    if tool == Tool::Nerdctl {
        let archive = archive::oci(image, &manifest, &BTreeSet::new())?;
        let sent = program::feed(tool.name(), &[namespace, "load"], &archive, progress)?;
        return Ok(Loaded { id, sent, layers_sent: archive.layers, layers_present: 0 });
    }
    let mut known = contents(namespace)?;
    known.retain(|digest| manifest.layers.iter().any(|layer| layer.digest == *digest));
    let (sent, layers) = match import(namespace, image, &manifest, &known, progress) {
        Err(error) if known.is_empty() || !error.is_runtimes() => return Err(error),
        Ok(done) if known.is_subset(&contents(namespace)?) => done,
        // One of the layers is gone.
        _ => import(namespace, image, &manifest, &BTreeSet::new(), progress)?,
    };
    match contents(namespace)?.contains(&id) {
        true => Ok(Loaded { id, sent, layers_sent: layers, layers_present: image.diff_ids().len() - layers }),
        false => Err(RuntimeError::Lost { runtime: format!("containerd ({namespace})") }),
    }
}

/// Bytes and layers that were sent. `namespace` is the option that names it.
fn import(
    namespace: &str,
    image: &LoadImage<'_>,
    manifest: &Manifest,
    known: &BTreeSet<Sha256Digest>,
    progress: Progress<'_>,
) -> Result<(u64, usize), RuntimeError> {
    let archive = archive::oci(image, manifest, known)?;
    let platform = image.image.platform.to_string();
    let mut args = vec![namespace, "images", "import"];
    // Old versions don't have the option; they need it only for another machine's images.
    if image.image.platform != Platform::default() {
        args.extend(["--platform", &platform]);
    }
    args.push("-");
    let sent = program::feed(Tool::Ctr.name(), &args, &archive, progress)?;
    Ok((sent, archive.layers))
}

/// The blobs that the namespace has.
fn contents(namespace: &str) -> Result<BTreeSet<Sha256Digest>, RuntimeError> {
    let listed = program::answer(Tool::Ctr.name(), &[namespace, "content", "ls", "-q"])?;
    Ok(String::from_utf8_lossy(&listed).lines().filter_map(|line| line.trim().parse().ok()).collect())
}
