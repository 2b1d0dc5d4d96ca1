//! The shared cache as a service: blobs by digest and small records by key, over HTTP, and the protocols that other
//! tools have for such a cache.
//!
//! In: a [`Config`]. Out: [`serve`] runs until SIGTERM or SIGINT. Who calls it: `memobuild server`. What it never does:
//! know what its blobs and records mean; it has not heard of Dockerfiles, steps or sandboxes. `docs/api.md` has the routes.
//!
//! A request goes through a route (`routes/`, one file each) to a [`Storage`], whose functions block and are run on
//! threads for that. Whatever the storage, a body is compared with its digest on its way in
//! ([`storage::CheckedWriter`]), and keys and digests are values of their own types before anything is looked up.
#![forbid(unsafe_code)]

mod auth;
mod body;
mod config;
mod error;
mod ids;
mod linger;
mod metrics;
mod opening;
mod patience;
mod receive;
mod reply;
mod results;
mod rexec;
mod routes;
mod serve;
pub mod storage;

pub use auth::{AuthError, Scope, add_token};
pub use config::Config;
pub use error::ServerError;
pub use ids::{BlobId, IdError, RecordKey};
pub use serve::{Server, serve, serve_with};
pub use storage::Storage;

/// What `X-MemoBuild-API-Version` says on every answer.
pub const API_VERSION: &str = "1.0";
