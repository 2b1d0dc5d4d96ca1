//! What can go wrong between here and a registry.

use std::time::Duration;

use memobuild_observe::MemoBuildError;
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
        /// Whether these were given to memobuild itself, and not found in docker's configuration.
        login: bool,
    },
    /// What the user's settings say of a host can't be used.
    #[error("{registry}: {what}")]
    Settings {
        /// Host.
        registry: String,
        /// What is wrong with them.
        what: String,
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
        /// How often it was asked.
        attempts: u32,
    },
    /// No answer, or one that broke off.
    #[error("{registry}: {repository}: {source}")]
    Transport {
        /// Host.
        registry: String,
        /// Repository.
        repository: String,
        /// How often it was tried.
        attempts: u32,
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
        /// Bytes that came.
        size: u64,
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
            Self::Denied { login: true, registry, .. } => {
                format!("the login that memobuild was given for {registry} does not allow it, or has expired")
            }
            Self::Denied { with_credentials: true, registry, .. } => format!(
                "the credentials in ~/.docker/config.json do not allow it, or have expired: docker login {registry}"
            ),
            Self::Denied { registry, .. } => format!("is the name right? If it is private: docker login {registry}"),
            Self::Settings { .. } => "check what the settings say of this registry".into(),
            Self::Status { status: 429, retry_after: Some(wait), .. } => {
                format!("too many requests: wait {} s, log in, or use a mirror", wait.as_secs())
            }
            Self::Status { status: 429, .. } => "too many requests: wait, log in, or use a mirror".into(),
            Self::Status { status: 404, .. } => {
                "the registry lacks the repository, which may have to be made there first, or something that it needs"
                    .into()
            }
            Self::Status { status: 413, .. } => "the registry does not take anything as large as this".into(),
            Self::Status { status: 500.., .. } => "the registry has trouble of its own: try again later".into(),
            Self::Transport { registry, source, .. } => match &**source {
                ureq::Error::HostNotFound => format!("there is no host {registry}: check the name and the network"),
                source => match Handshake::of(source) {
                    Some(Handshake::UnknownIssuer) => format!(
                        "if {registry} has a certificate from an authority of its own, name the authority's PEM file in the settings of this registry (ca) or in SSL_CERT_FILE"
                    ),
                    Some(Handshake::WrongCertificate) => format!(
                        "the certificate of {registry} has expired, or is made for another name: whoever runs the registry must renew it"
                    ),
                    Some(Handshake::ClientCertificate) => format!(
                        "{registry} wants to see a certificate that it trusts: name one, and its key, in the settings of this registry (client certificate)"
                    ),
                    Some(Handshake::NoTls) => format!("if {registry} speaks plain http, call it insecure"),
                    None => "check the network and the proxy settings (HTTPS_PROXY, NO_PROXY)".into(),
                },
            },
            Self::DigestMismatch { .. } => "something between here and the registry changes what it sends".into(),
            Self::Store(e) => return e.hint(),
            Self::Status { .. } | Self::Protocol { .. } | Self::Source(_) => return None,
        })
    }

    /// The same, after so many attempts.
    pub(super) fn after(mut self, made: u32) -> Self {
        if let Self::Status { attempts, .. } | Self::Transport { attempts, .. } = &mut self {
            *attempts = made;
        }
        self
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
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { source, .. } if Handshake::of(source).is_some() => false,
            Self::Transport { source, .. } => matches!(
                **source,
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled
            ),
            _ => false,
        }
    }
}

impl From<RegistryError> for MemoBuildError {
    fn from(error: RegistryError) -> Self {
        Self::from(&error)
    }
}

impl From<&RegistryError> for MemoBuildError {
    fn from(error: &RegistryError) -> Self {
        let attempt = match error {
            RegistryError::Store(error) => return error.into(),
            RegistryError::DigestMismatch { expected, actual, size, .. } => {
                let (expected, actual) = (expected.to_string(), actual.to_string());
                return Self::CASIntegrityFailure { expected, actual, data_size: *size };
            }
            RegistryError::Status { attempts, .. } | RegistryError::Transport { attempts, .. } => *attempts,
            _ => 1,
        };
        Self::NetworkError { message: error.to_string(), retryable: error.is_transient(), attempt }
    }
}

/// Why there is no TLS with a host, which no second attempt will change.
enum Handshake {
    UnknownIssuer,
    WrongCertificate,
    ClientCertificate,
    NoTls,
}

impl Handshake {
    /// From rustls's words, which the client passes on as they are: its types are none of the client's own.
    fn of(error: &ureq::Error) -> Option<Self> {
        let text = error.to_string();
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        Some(match () {
            () if has(&["UnknownIssuer", "BadSignature"]) => Self::UnknownIssuer,
            () if has(&["invalid peer certificate"]) => Self::WrongCertificate,
            () if has(&["CertificateRequired", "BadCertificate", "UnknownCA", "AccessDenied"]) => {
                Self::ClientCertificate
            }
            () if has(&["InvalidContentType"]) => Self::NoTls,
            () => return None,
        })
    }
}
