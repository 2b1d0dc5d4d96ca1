//! Registries over the OCI distribution API (distribution-spec 1.1).
//!
//! In: references, and what is to be pushed there. Out: manifests' bytes, and blobs in the store, both verified by digest.
//! Called by [`crate::image`] and [`crate::output`]. Broken transfers go on where they stopped; only transient failures
//! are tried again.

mod address;
mod artifact;
mod auth;
mod client;
mod credentials;
mod error;
mod exchange;
mod names;
mod options;
mod pull;
mod push;
pub(crate) mod tls;

pub use artifact::Artifact;
pub(crate) use auth::parameters;
pub use client::{FetchedManifest, Registries};
pub use error::RegistryError;
pub use options::{Certificates, HostOptions, Login, RegistryOptions};
pub(crate) use push::SMALL;
pub use push::{Pushed, Source};
pub use tls::{ClientPem, client_pem, impatient_agent, trusted_pem};

/// Attempts in a row, without a byte of progress between them: a registry that is being started anew is back by then.
const ATTEMPTS: u32 = 8;

/// How all that is done with registries and file servers is tried again.
pub fn patience() -> memobuild_observe::Backoff {
    memobuild_observe::Backoff::new(memobuild_observe::RetryConfig::default().attempts(ATTEMPTS))
}
