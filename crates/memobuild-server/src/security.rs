//! What a server is started with for safety: TLS, limits for each client, the audit log, webhooks.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::Scope;

/// Settings that are all off by default.
#[derive(Debug, Clone)]
pub struct Security {
    /// TLS; without it the server speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Requests that one client may send, per second on average.
    pub rate_limit: Option<NonZeroU32>,
    /// Requests that one client may send at once; `None`: twice the rate.
    pub rate_burst: Option<NonZeroU32>,
    /// Bytes of bodies that go to and from one client, per second on average; at least [`LEAST_BYTES_PER_SECOND`].
    pub rate_limit_bytes: Option<u64>,
    /// Bodies that one client may be sending at once.
    pub max_uploads: Option<NonZeroU32>,
    /// The file that changes and refusals are written to.
    pub audit_log: Option<PathBuf>,
    /// URLs that are told of events.
    pub webhooks: Vec<String>,
    /// The file with the secret that signs what they are told.
    pub webhook_secret: Option<PathBuf>,
    /// How long to wait before a delivery is tried again; four times as long each time after that.
    pub webhook_retry: Duration,
}

/// Below this, bodies would be held back for longer than clients wait.
pub const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;

impl Default for Security {
    fn default() -> Self {
        Self {
            tls: None,
            rate_limit: None,
            rate_burst: None,
            rate_limit_bytes: None,
            max_uploads: None,
            audit_log: None,
            webhooks: Vec::new(),
            webhook_secret: None,
            webhook_retry: Duration::from_secs(1),
        }
    }
}

/// Where certificates and keys are, as PEM. They are read again on SIGHUP.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, followed by those that it was issued by.
    pub cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Authorities of clients' certificates. Clients without one are refused before they can send a request.
    pub client_ca: Option<PathBuf>,
    /// What a client with a certificate and without a token may do.
    pub client_scope: Scope,
}
