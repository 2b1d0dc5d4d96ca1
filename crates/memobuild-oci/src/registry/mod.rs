//! Registries: pulls over the OCI distribution API (distribution-spec 1.1, "Pull").
//!
//! In: references. Out: manifests' bytes, and blobs in the store, both verified by digest. Called by [`crate::image`].
//! Broken downloads go on where they stopped; only transient failures are tried again. Never pushes.

mod auth;
mod client;
mod credentials;
mod error;
pub(crate) mod retry;
pub(crate) mod tls;

pub(crate) use auth::parameters;
pub use client::{FetchedManifest, Registries, RegistryOptions};
pub use error::RegistryError;
