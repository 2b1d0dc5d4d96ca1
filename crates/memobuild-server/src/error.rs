//! Why a server did not start, or ended.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{storage::StorageError, tls::TlsError, tokens::AuthError, webhooks::WebhookError};

/// A server that could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Open to the network, and nobody has to say who they are.
    #[error("{0} can be reached by other machines, and there are no tokens that say who may use the cache")]
    Open(SocketAddr),
    /// The tokens can't be used.
    #[error(transparent)]
    Tokens(#[from] AuthError),
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The audit log can't be opened.
    #[error("cannot open the audit log {path}")]
    AuditLog {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Webhooks can't be used.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// The storage can't be used.
    #[error("cannot open the storage")]
    Storage(#[from] StorageError),
    /// No threads, or no signal handlers.
    #[error("cannot start the server")]
    Runtime(#[source] io::Error),
}
