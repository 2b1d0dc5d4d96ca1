//! What a server is started with.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::Security;

/// Where a server listens, what it keeps, and how patient it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port; port 0 is any free one.
    pub listen: SocketAddr,
    /// The directory of the embedded storage. It is made if it is not there, and belongs to one server at a time. With a
    /// shared storage it holds what is being received.
    pub data_dir: PathBuf,
    /// Where blobs are kept: `s3://`, `gs://` or `az://` with a bucket and a prefix. `None`: in `data_dir`.
    pub storage: Option<String>,
    /// Where records and what is known of blobs are kept: `postgres://`. `None`: in `data_dir`.
    pub metadata: Option<String>,
    /// The most that blobs and records may take, in bytes; what is being received counts. `None`: no limit.
    pub max_size: Option<u64>,
    /// The longest blob that is taken, in bytes, without any content encoding.
    pub max_blob: u64,
    /// Clients without a token may read and write, wherever they come from.
    pub allow_anonymous: bool,
    /// The file of hashed tokens ([`crate::add_token`]).
    pub tokens: Option<PathBuf>,
    /// How long a client may send or take nothing before its connection is closed.
    pub idle_timeout: Duration,
    /// How long requests under way may take to finish once the server was told to stop.
    pub shutdown_grace: Duration,
    /// Connections open at once; more wait to be accepted.
    pub max_connections: usize,
    /// TLS, limits for each client, the audit log, webhooks.
    pub security: Security,
}

impl Config {
    /// The default settings with this directory, on loopback.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: data_dir.into(),
            storage: None,
            metadata: None,
            max_size: None,
            max_blob: 64 << 30,
            allow_anonymous: false,
            tokens: None,
            idle_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
            max_connections: 8192,
            security: Security::default(),
        }
    }
}
