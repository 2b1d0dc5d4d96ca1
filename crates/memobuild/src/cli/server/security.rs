//! What `memobuild server` is told about TLS, limits, the audit log and webhooks.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Args;
use memobuild_server::{LEAST_BYTES_PER_SECOND, Scope, Security, TlsFiles};

use super::super::{Failure, values};

#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArgs {
    /// Certificate for TLS, as PEM, with those that it was issued by behind it
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Authorities of clients' certificates, as PEM; clients without one can't connect
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    /// What a certificate allows: read, write (and read), or admin (all)
    #[arg(long, value_name = "SCOPE", default_value = "write", value_parser = super::scope)]
    tls_client_scope: Scope,

    /// Requests a second that one client may send on average: by token, certificate, or address
    #[arg(long, value_name = "N")]
    rate_limit: Option<NonZeroU32>,

    /// Requests that one client may send at once; twice the rate without this
    #[arg(long, value_name = "N")]
    rate_burst: Option<NonZeroU32>,

    /// Bytes a second, like 50m, that go to and from one client; what is more is slowed down
    #[arg(long, value_name = "BYTES", value_parser = bytes_per_second)]
    rate_limit_bytes: Option<u64>,

    /// Bodies that one client may send at once
    #[arg(long, value_name = "N")]
    max_uploads: Option<NonZeroU32>,

    /// File to add a line of JSON to for each change, each refusal, and who uses the server
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,

    /// URL to send events to, signed; may be given several times
    #[arg(long, value_name = "URL")]
    webhook: Vec<String>,

    /// File with the secret that signs events
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
}

impl SecurityArgs {
    pub(crate) fn settings(self) -> Result<Security, Failure> {
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => {
                Some(TlsFiles { cert, key, client_ca: self.tls_client_ca, client_scope: self.tls_client_scope })
            }
            (None, None) if self.tls_client_ca.is_none() => None,
            _ => return Err(Failure::usage("TLS needs both --tls-cert FILE and --tls-key FILE")),
        };
        if self.rate_burst.is_some() && self.rate_limit.is_none() {
            return Err(Failure::usage("--rate-burst goes with --rate-limit N"));
        }
        if self.webhook.is_empty() && self.webhook_secret_file.is_some() {
            return Err(Failure::usage("--webhook-secret-file goes with --webhook URL"));
        }
        Ok(Security {
            tls,
            rate_limit: self.rate_limit,
            rate_burst: self.rate_burst,
            rate_limit_bytes: self.rate_limit_bytes,
            max_uploads: self.max_uploads,
            audit_log: self.audit_log,
            webhooks: self.webhook,
            webhook_secret: self.webhook_secret_file,
            ..Security::default()
        })
    }
}

fn bytes_per_second(text: &str) -> Result<u64, String> {
    values::size(text).and_then(|rate| match rate {
        LEAST_BYTES_PER_SECOND.. => Ok(rate),
        _ => Err(format!("{text:?} is less than clients can wait for: expected at least 64k")),
    })
}
