//! What can go wrong between here and a server. None of it fails a build.

use std::{io, time::Duration};

use memobuild_tree::Sha256Digest;

/// A failed exchange with a server.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No connection, or one that broke off.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("no answer in time ({0})")]
    TimedOut(String),
    /// An answer that says no.
    #[error("the server answered {status}{}", said(detail))]
    Status {
        /// HTTP status, or what is nearest to it.
        status: u16,
        /// How long the server wishes to be left alone.
        retry_after: Option<Duration>,
        /// The server's own words; may be empty.
        detail: String,
    },
    /// The server wants a token, or another one.
    #[error("the server does not accept {}{}", if *with_token { "the token" } else { "requests without a token" }, said(detail))]
    Unauthorized {
        /// Whether one was sent.
        with_token: bool,
        /// The server's own words; may be empty.
        detail: String,
    },
    /// The token does not allow this.
    #[error("the token does not allow it{}", said(.0))]
    Forbidden(String),
    /// Nothing fits in there any more.
    #[error("the server is full{}", said(.0))]
    Full(String),
    /// What is there is no server of this kind, or one of another version.
    #[error("{0}")]
    Foreign(String),
    /// An answer that makes no sense.
    #[error("the server's answer makes no sense: {0}")]
    Odd(String),
    /// A blob is not there.
    #[error("blob {0} is not there")]
    NoBlob(Sha256Digest),
    /// Bytes that are not those that were asked for.
    #[error("what came for blob {0} is something else")]
    Damaged(Sha256Digest),
    /// The circuit breaker is open: it was not asked.
    #[error("the server is not asked any more")]
    Open,
    /// A file on this side.
    #[error("{0}")]
    Local(#[source] io::Error),
}

fn said(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

impl RemoteError {
    /// Whether the same may work a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether nothing will work as long as nobody changes something; who gives out wrong bytes is not asked again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Foreign(_) | Self::Damaged(_))
    }

    /// Whether it speaks against the server: not what a good one says in its normal course.
    pub(crate) fn is_fault(&self) -> bool {
        self.is_transient() || self.is_final() || matches!(self, Self::Odd(_))
    }

    /// How long the server wishes to be left alone.
    pub(crate) fn wish(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
