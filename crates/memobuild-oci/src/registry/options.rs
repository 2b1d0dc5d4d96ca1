//! How registries are spoken to: what the user's settings say.

use std::{collections::BTreeMap, path::PathBuf};

use memobuild_observe::Secret;

use super::client::HUB;
use crate::reference::DEFAULT_REGISTRY;

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Hosts (with port) whose certificate is not checked, and that may speak plain http.
    pub insecure: Vec<String>,
    /// Hosts to ask in place of others: `(docker.io, mirror.example)`. The other is asked if the mirror fails. They come
    /// before those in `hosts`.
    pub mirrors: Vec<(String, String)>,
    /// The directory of docker's `config.json`; `None`: `DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Settings by host (with port), of registries and of mirrors. Docker's own is `docker.io`.
    pub hosts: BTreeMap<String, HostOptions>,
    /// What one registry is shown, whatever docker's configuration has for it.
    pub login: Option<(String, Login)>,
}

/// How one host is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Hosts to ask in its place, in this order, perhaps with a path that comes before the repository
    /// (`cache.example/hub`). They are asked with settings and credentials of their own, and only when something is
    /// read.
    pub mirrors: Vec<String>,
    /// It speaks plain http, and nothing else is tried.
    pub http: bool,
    /// Its certificate is not checked.
    pub insecure: bool,
    /// What it is trusted by, and shown.
    pub certificates: Certificates,
}

/// What a server with TLS is trusted by, and what it is shown. Empty: what the system trusts, and nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// PEM files of authorities that its certificate may come from, besides those that the system trusts.
    pub ca: Vec<PathBuf>,
    /// A PEM file with the certificate (and what leads up to its authority) that it is shown.
    pub client: Option<PathBuf>,
    /// A PEM file with the key of that certificate; `None`: it is in the same file.
    pub key: Option<PathBuf>,
}

impl Certificates {
    /// Whether they say anything, which only TLS can heed.
    pub(super) fn any(&self) -> bool {
        !self.ca.is_empty() || self.client.is_some()
    }
}

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A bearer token that the registry itself understands; no token server is asked.
    Token(Secret),
    /// A name and a password, or what stands for one.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
}

impl RegistryOptions {
    /// The settings of a host.
    pub(super) fn host(&self, host: &str) -> Option<&HostOptions> {
        self.hosts.get(host).or_else(|| self.hosts.get(DEFAULT_REGISTRY).filter(|_| host == HUB))
    }

    /// The mirrors of a registry, in the order in which they are asked.
    pub(super) fn mirrors_of(&self, registry: &str) -> impl Iterator<Item = &str> {
        let own = self.mirrors.iter().filter(move |(of, _)| of == registry).map(|(_, mirror)| mirror.as_str());
        own.chain(self.hosts.get(registry).into_iter().flat_map(|host| host.mirrors.iter().map(String::as_str)))
    }

    /// What a registry is to be shown before anything else.
    pub(super) fn login(&self, registry: &str) -> Option<&Login> {
        let hub = |of: &str| registry == DEFAULT_REGISTRY && matches!(of, HUB | "index.docker.io");
        self.login.as_ref().filter(|(of, _)| of == registry || hub(of)).map(|(_, login)| login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let password = Login::Password { user: "u".into(), password: "s3cret".into() };
        let token = Login::Token("s3cret".into());
        for login in [password, token] {
            let options = RegistryOptions { login: Some(("a.io".into(), login)), ..RegistryOptions::default() };
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }

    #[test]
    fn settings_of_a_host() {
        let hub = HostOptions { mirrors: vec!["m".into(), "n/p".into()], ..HostOptions::default() };
        let options = RegistryOptions {
            mirrors: vec![("docker.io".into(), "first".into()), ("x".into(), "y".into())],
            hosts: BTreeMap::from([("docker.io".into(), hub)]),
            ..RegistryOptions::default()
        };
        assert_eq!(options.mirrors_of("docker.io").collect::<Vec<_>>(), ["first", "m", "n/p"]);
        assert_eq!(options.mirrors_of("x").collect::<Vec<_>>(), ["y"]);
        assert!(options.host(HUB).is_some() && options.host("x").is_none());
        let login = Some(("index.docker.io".into(), Login::Token("t".into())));
        let options = RegistryOptions { login, ..options };
        assert!(options.login("docker.io").is_some() && options.login("x").is_none());
    }
}
