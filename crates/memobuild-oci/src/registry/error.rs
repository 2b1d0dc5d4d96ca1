//! What can go wrong between here and a registry.

use std::time::Duration;

use memobuild_store::StoreError;
use memobuild_tree::Sha256Digest;

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nothing is there under that name.
    #[error("{registry}: {repository}: {what} not found")]
    NotFound {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// Tag or digest.
        what: String,
    },
    /// The registry wants other credentials, or gives none to anybody.
    #[error("{registry}: access to {repository} denied{}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Denied {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// The registry's own words.
        detail: Option<String>,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// An answer that says no.
    #[error("{registry}: {repository}: the registry answered {status}{}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Status {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// HTTP status.
        status: u16,
        /// How long the registry wishes to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
        /// The registry's own words.
        detail: Option<String>,
    },
    /// No answer, or one that broke off.
    #[error("{registry}: {repository}: {source}")]
    Transport {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// What the connection met.
        #[source]
        source: Box<ureq::Error>,
    },
    /// An answer that makes no sense.
    #[error("{registry}: {repository}: {what}")]
    Protocol {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// What is wrong with it.
        what: String,
    },
    /// Bytes that are not those that were asked for.
    #[error("{registry}: {repository}: digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// Asked for.
        expected: Sha256Digest,
        /// Got.
        actual: Sha256Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was to be sent can't be had.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
}

impl RegistryError {
    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { registry, .. } if registry == "docker.io" => {
                "check the name and tag; an image of another registry needs its host in front".into()
            }
            Self::NotFound { .. } => {
                "check the name and tag; a private repository may hide behind this answer: log in".into()
            }
            Self::Denied { with_credentials: true, .. } => {
                "the credentials in ~/.docker/config.json do not allow it".into()
            }
            Self::Denied { registry, .. } => format!("is the name right? If it is private: docker login {registry}"),
            Self::Status { status: 429, .. } => "too many pulls: wait, log in, or use a mirror".into(),
            Self::Transport { registry, source, .. } => match &**source {
                ureq::Error::HostNotFound => format!("there is no host {registry}: check the name and the network"),
                ureq::Error::Rustls(_) | ureq::Error::Tls(_) => format!(
                    "if {registry} has a certificate of its own, name it in SSL_CERT_FILE; if it speaks plain http, call it insecure"
                ),
                _ => "check the network and the proxy settings (HTTPS_PROXY, NO_PROXY)".into(),
            },
            Self::DigestMismatch { .. } => "something between here and the registry changes what it sends".into(),
            Self::Store(e) => return e.hint(),
            Self::Status { .. } | Self::Protocol { .. } | Self::Source(_) => return None,
        })
    }

    /// Whether nobody listens there: at the first contact waiting is of no use.
    pub(super) fn is_refusal(&self) -> bool {
        let refused = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
        match self {
            Self::Transport { source, .. } => match &**source {
                ureq::Error::Io(e) => refused(e),
                ureq::Error::ConnectionFailed => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// How long the registry wishes to be left alone.
    pub(super) fn wish(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same question may be answered better a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { source, .. } => matches!(
                **source,
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled
            ),
            _ => false,
        }
    }
}
