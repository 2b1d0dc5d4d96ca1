//! OCI image data as types: platforms, image config, manifest, index, descriptors.
//!
//! The one place that knows their JSON (OCI image-spec 1.1, with the fields that Docker's image spec adds to the
//! config). Fields stand in the order in which BuildKit writes them; fields that are not known are kept.
//! Called by the planner, which fills in configs, and by everything that moves images. Never does I/O.
#![forbid(unsafe_code)]

mod config;
pub mod json;
mod manifest;
pub mod media;
mod platform;
pub mod time;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use manifest::{Descriptor, Index, Manifest};
pub use platform::{Platform, PlatformError};
