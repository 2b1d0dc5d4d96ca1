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

mod attend;
mod audit;
mod auth;
mod body;
pub mod builds;
mod clock;
mod config;
mod door;
mod error;
mod guard;
mod ids;
mod limits;
mod linger;
mod meter;
mod metrics;
mod opening;
mod patience;
mod peer;
mod receive;
mod reload;
mod reply;
mod results;
mod rexec;
mod routes;
mod security;
mod serve;
pub mod storage;
mod stream;
mod tls;
mod tokens;
mod trace;
mod webhooks;

pub use auth::Scope;
pub use config::Config;
pub use error::ServerError;
pub use ids::{BlobId, IdError, RecordKey};
pub use reload::Reloader;
pub use security::{LEAST_BYTES_PER_SECOND, Security, TlsFiles};
pub use serve::{Server, serve, serve_with};
pub use storage::Storage;
pub use tls::TlsError;
pub use tokens::{AuthError, TokenInfo, add_expiring_token, add_token, list_tokens, revoke_token};
pub use webhooks::WebhookError;

/// What `X-MemoBuild-API-Version` says on every answer.
pub const API_VERSION: &str = "1.0";
