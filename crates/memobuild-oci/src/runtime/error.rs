//! Why a container runtime did not get an image.

use std::io;

use memobuild_store::StoreError;

use super::{RuntimeKind, http::ClientError};
use crate::{image::ImageError, layer::LayerError, output::OutputError};

/// An image that could not be given to a container runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime's API can't be spoken to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No runtime on this machine answers.
    #[error("no container runtime was found ({})", .0.join("; "))]
    NotFound(Vec<String>),
    /// The one that was asked for is not there.
    #[error("{kind} was not found ({})", looked.join("; "))]
    Missing {
        /// Which.
        kind: RuntimeKind,
        /// Where it was looked for, and what was met there.
        looked: Vec<String>,
    },
    /// An address of a kind that is not spoken here.
    #[error("{from}: {address}: {why}")]
    Address {
        /// The variable or file that holds it.
        from: String,
        /// The address.
        address: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// A file of the docker client's that can't be used.
    #[error("docker's context {name}: {why}")]
    Context {
        /// The context.
        name: String,
        /// What is the matter with it.
        why: String,
    },
    /// An answer that says no.
    #[error("{runtime}: {what}: {message}")]
    Refused {
        /// Which runtime.
        runtime: String,
        /// What it was asked.
        what: String,
        /// Its own words.
        message: String,
    },
    /// A program that failed.
    #[error("{program} failed{}", after_colon(said))]
    Program {
        /// Program and subcommand.
        program: String,
        /// The end of what it wrote on standard error.
        said: String,
    },
    /// A program that can't be started or spoken to.
    #[error("could not run {program}")]
    Run {
        /// The program.
        program: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The runtime took all of it without a complaint, and does not have it.
    #[error("{runtime} took the image, but does not have it now")]
    Lost {
        /// Which runtime.
        runtime: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer can't be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer can't be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The image can't be put together.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A document can't be written as JSON.
    #[error("could not write JSON")]
    Json(#[from] serde_json::Error),
    /// A blob of the store can't be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The stream to the runtime broke off.
    #[error("could not send the image")]
    Send(#[source] io::Error),
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl RuntimeError {
    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Connect { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("this user may not use the socket: docker's belongs to the group docker".into())
            }
            Self::Client(ClientError::Connect { .. }) => {
                Some("start the daemon, or say where it listens with DOCKER_HOST or CONTAINER_HOST".into())
            }
            Self::NotFound(_) => Some(
                "start one, or write the image to a file: memobuild export IMAGE --output type=docker,dest=FILE".into(),
            ),
            Self::Missing { kind: RuntimeKind::Containerd, .. } => Some(
                "start it, or say where it listens with CONTAINERD_ADDRESS; ctr or nerdctl has to be on the PATH"
                    .into(),
            ),
            Self::Missing { .. } => Some("start it, or choose another with --to".into()),
            Self::Address { .. } => Some("what works is unix:///PATH and tcp://HOST:PORT without TLS".into()),
            Self::Store(e) => e.hint(),
            Self::Image(e) => e.hint(),
            Self::Output(e) => e.hint(),
            _ => None,
        }
    }

    /// Whether the runtime, or the way to it, is at fault, and not the image or the store.
    pub fn is_runtimes(&self) -> bool {
        match self {
            Self::Client(_)
            | Self::NotFound(_)
            | Self::Missing { .. }
            | Self::Address { .. }
            | Self::Context { .. }
            | Self::Refused { .. }
            | Self::Program { .. }
            | Self::Run { .. }
            | Self::Lost { .. }
            | Self::Send(_) => true,
            Self::Store(_) | Self::Image(_) | Self::Layer(_) | Self::Output(_) | Self::Json(_) | Self::Read { .. } => {
                false
            }
        }
    }
}
