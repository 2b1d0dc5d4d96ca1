//! Serves trees from memory over FUSE, as the lower side of a step's overlay and as its bind mounts.

mod awake;
mod eager;
mod nodes;
pub(crate) mod recorder;
mod serve;
pub(crate) mod sides;

pub(crate) use nodes::{Export, OwnerView};
pub(crate) use serve::{Served, Server};
