//! Podman without a service: its own program, which has no daemon.

use super::{Loaded, RuntimeError, RuntimeKind, archive, archive::LoadImage, program};
use crate::image::Progress;

/// The program.
pub(super) const PODMAN: &str = "podman";

pub(super) fn load(image: &LoadImage<'_>, progress: Progress<'_>) -> Result<Loaded, RuntimeError> {
    let id = image.id();
    let hex = id.hex();
    let layers = image.diff_ids().len();
    if !image.names.is_empty() && exists(&hex)? {
        for name in &image.names {
            program::answer(PODMAN, &["tag", &hex, &name.clone().with_default_tag().to_string()])?;
        }
        return Ok(Loaded { id, sent: 0, layers_sent: 0, layers_present: layers });
    }
    let archive = archive::docker(image, 0)?;
    let sent = program::feed(PODMAN, &["load", "-q"], &archive, progress)?;
    match exists(&hex)? {
        true => Ok(Loaded { id, sent, layers_sent: archive.layers, layers_present: 0 }),
        false => Err(RuntimeError::Lost { runtime: RuntimeKind::Podman.to_string() }),
    }
}

/// `podman image exists` ends with 1 where there is none.
fn exists(id: &str) -> Result<bool, RuntimeError> {
    let args = ["image", "exists", id];
    let said = program::ask(PODMAN, &args)?;
    match said.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(program::failed(PODMAN, &args, &said)),
    }
}
