//! Images of the store for a container runtime on this machine: docker, podman, containerd.
//!
//! In: an image ([`LoadImage`]) and which runtime is meant. Out: the image there, under its names, and how much of it had
//! to be sent ([`Loaded`]). Archives are made while they are sent; layers that the runtime says it has are neither sent
//! nor, where they lie on a registry, fetched. Called by the command line. Never: starts a daemon.

mod archive;
mod containerd;
mod endpoint;
mod engine;
mod error;
mod http;
mod podman;
mod program;
#[cfg(test)]
mod test_images;

use std::{fmt, path::Path};

use memobuild_tree::Sha256Digest;

pub use archive::LoadImage;
pub use error::RuntimeError;
pub use http::{Address, ClientError};

use crate::image::Progress;
use containerd::Tool;
use endpoint::Endpoint;
use engine::Engine;

/// Where values of environment variables come from; none for those that are empty.
pub type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process.
pub fn process_vars(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A kind of container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Docker's daemon.
    Docker,
    /// Podman: its service, else its program.
    Podman,
    /// containerd, by `ctr` or `nerdctl`.
    Containerd,
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        })
    }
}

/// What a runtime was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// What the runtime calls the image: the config's digest, or with containerd the manifest's.
    pub id: Sha256Digest,
    /// Bytes of the archive; 0 where the image was there and only got its names.
    pub sent: u64,
    /// Layers in the archive.
    pub layers_sent: usize,
    /// Layers that were there.
    pub layers_present: usize,
}

/// A runtime that can be given images.
#[derive(Debug)]
pub struct Runtime(Way);

#[derive(Debug)]
enum Way {
    Api(Engine),
    Podman,
    Containerd { tool: Tool, namespace: String },
}

impl Runtime {
    /// Finds a runtime: that kind, else the first that answers of docker, podman and containerd. `namespace` is
    /// containerd's (`CONTAINERD_NAMESPACE`, else `default`). What the user names in a variable or a docker context must
    /// answer: nothing else is taken in its place.
    pub fn find(kind: Option<RuntimeKind>, namespace: Option<&str>, vars: Vars<'_>) -> Result<Self, RuntimeError> {
        let mut looked = Vec::new();
        let kinds = match kind {
            Some(kind) => vec![kind],
            None => vec![RuntimeKind::Docker, RuntimeKind::Podman, RuntimeKind::Containerd],
        };
        for kind in kinds {
            let found = match kind {
                RuntimeKind::Docker => first_that_answers(endpoint::docker(vars)?, &mut looked)?.map(Way::Api),
                RuntimeKind::Podman => match first_that_answers(endpoint::podman(vars)?, &mut looked)? {
                    Some(engine) => Some(Way::Api(engine)),
                    None if program::is_there(vars, podman::PODMAN) => Some(Way::Podman),
                    None => {
                        looked.push("no podman on the PATH".into());
                        None
                    }
                },
                RuntimeKind::Containerd => containerd(namespace, vars, &mut looked),
            };
            if let Some(way) = found {
                return Ok(Self(way));
            }
        }
        Err(match kind {
            Some(kind) => RuntimeError::Missing { kind, looked },
            None => RuntimeError::NotFound(looked),
        })
    }

    /// Which one it is and how it is spoken to, for people.
    pub fn describe(&self) -> String {
        match &self.0 {
            Way::Api(engine) => engine.describe(),
            Way::Podman => "podman (podman load)".into(),
            Way::Containerd { tool, namespace } => format!("containerd ({}, namespace {namespace})", tool.name()),
        }
    }

    /// Gives it an image. `progress` is told bytes that were sent, of all.
    pub fn load(&self, image: &LoadImage<'_>, progress: Progress<'_>) -> Result<Loaded, RuntimeError> {
        match &self.0 {
            Way::Api(engine) => engine.load(image, progress),
            Way::Podman => podman::load(image, progress),
            Way::Containerd { tool, namespace } => containerd::load(*tool, namespace, image, progress),
        }
    }
}

/// What the user named must answer; of the usual places, the first that does.
fn first_that_answers(endpoints: Vec<Endpoint>, looked: &mut Vec<String>) -> Result<Option<Engine>, RuntimeError> {
    for endpoint in endpoints {
        match Engine::connect(&endpoint.address) {
            Ok(engine) => return Ok(Some(engine)),
            Err(error) if endpoint.explicit => return Err(error),
            Err(error) => looked.push(match std::error::Error::source(&error) {
                Some(cause) => format!("{}: {cause}", endpoint.address),
                None => error.to_string(),
            }),
        }
    }
    Ok(None)
}

fn containerd(namespace: Option<&str>, vars: Vars<'_>, looked: &mut Vec<String>) -> Option<Way> {
    let socket = vars("CONTAINERD_ADDRESS").unwrap_or_else(|| "/run/containerd/containerd.sock".into());
    let path = socket.strip_prefix("unix://").unwrap_or(&socket);
    if !Path::new(path).exists() {
        looked.push(format!("no containerd at {path}"));
        return None;
    }
    let namespace = namespace.map(str::to_owned).or_else(|| vars("CONTAINERD_NAMESPACE"));
    let namespace = namespace.unwrap_or_else(|| "default".into());
    let Some(tool) = [Tool::Ctr, Tool::Nerdctl].into_iter().find(|tool| program::is_there(vars, tool.name())) else {
        looked.push("neither ctr nor nerdctl on the PATH".into());
        return None;
    };
    Some(Way::Containerd { tool, namespace })
}
