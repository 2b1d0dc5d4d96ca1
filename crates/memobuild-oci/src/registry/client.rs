//! All registries of a process: their settings, connections and credentials, and which host is asked.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use memobuild_image::Descriptor;
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;
use ureq::Agent;

use super::{
    RegistryError, RegistryOptions,
    address::{parts, same_host},
    auth::{Granted, Scopes},
    credentials::{Credentials, DockerConfig},
    options::Login,
    tls::{host_agent, registry_agent},
};
use crate::reference::Reference;

/// Where Docker's own registry is.
pub(super) const HUB: &str = "registry-1.docker.io";

/// A manifest or index as the registry sent it, its digest verified where one was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// As the registry declares it, or as the document does.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Sha256Digest,
}

/// Connections, tokens and credentials for all registries. Cheap to clone; one is enough for a process.
#[derive(Clone)]
pub struct Registries(Arc<Inner>);

pub(super) struct Inner {
    options: RegistryOptions,
    // Made when first used: that reads the machine's certificates, which most builds never need.
    checked: LazyLock<Agent>,
    unchecked: LazyLock<Agent>,
    /// Those of hosts that have certificates of their own.
    agents: Mutex<HashMap<String, Agent>>,
    config: DockerConfig,
    /// What docker's configuration has for a registry; a helper is asked once.
    credentials: Mutex<HashMap<String, Option<Credentials>>>,
    tokens: Mutex<HashMap<(String, Scopes), Arc<Slot>>>,
    /// The scheme that a host has answered to.
    schemes: Mutex<HashMap<String, &'static str>>,
    /// Mirrors that did not answer.
    silent: Mutex<HashSet<String>>,
    /// Blobs that are in a repository, or on their way to it.
    pub(super) there: Mutex<HashMap<(String, String, Sha256Digest), Presence>>,
    /// Held while a referrers tag is changed.
    pub(super) referrers: Mutex<()>,
}

/// Whether a blob is known to be in a repository; locked while that is found out, or brought about.
pub(super) type Presence = Arc<Mutex<bool>>;

/// A token's place; locked while one is fetched, so that each is fetched once.
pub(super) type Slot = Mutex<Option<Granted>>;

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// One repository on one host.
pub(super) struct Target<'a> {
    pub(super) inner: &'a Inner,
    /// As the user wrote it.
    pub(super) registry: &'a str,
    pub(super) host: &'a str,
    pub(super) repository: Cow<'a, str>,
    /// Whether something will be written.
    pub(super) push: bool,
}

impl Registries {
    /// Reads the user's credentials; connects to nothing.
    pub fn new(options: RegistryOptions) -> Self {
        Self(Arc::new(Inner {
            checked: LazyLock::new(|| registry_agent(false)),
            unchecked: LazyLock::new(|| registry_agent(true)),
            agents: Mutex::default(),
            config: DockerConfig::load(options.docker_config.clone()),
            credentials: Mutex::default(),
            tokens: Mutex::default(),
            schemes: Mutex::default(),
            silent: Mutex::default(),
            there: Mutex::default(),
            referrers: Mutex::default(),
            options,
        }))
    }

    /// The repository itself, never a mirror, to read from.
    pub(super) fn source<'a>(&'a self, reference: &'a Reference) -> Target<'a> {
        let host = if reference.registry == "docker.io" { HUB } else { &reference.registry };
        let repository = Cow::Borrowed(reference.repository.as_str());
        Target { inner: &self.0, registry: &reference.registry, host, repository, push: false }
    }

    /// The repository itself, never a mirror: what is pushed goes where it was said to go.
    pub(super) fn target<'a>(&'a self, reference: &'a Reference) -> Target<'a> {
        Target { push: true, ..self.source(reference) }
    }

    /// The manifest or index that a reference names, by its digest if it has one.
    pub fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        self.each(reference, |target| target.manifest(&reference.wanted(), reference.digest))
    }

    /// The manifest of that digest in the repository of a reference.
    pub fn manifest_by_digest(
        &self,
        reference: &Reference,
        digest: Sha256Digest,
    ) -> Result<FetchedManifest, RegistryError> {
        self.each(reference, |target| target.manifest(&digest.to_string(), Some(digest)))
    }

    /// Downloads a blob into the store, if it is not there. `progress` is told the bytes present and the size.
    pub fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        store: &Store,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        self.each(reference, |target| target.blob(blob, store, progress))
    }

    /// Asks the mirrors of a registry and then itself, until one answers. A mirror is another host: it is shown its own
    /// credentials, and none of the registry's. One that can't be reached is not asked again.
    pub(super) fn each<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Target<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let inner = &*self.0;
        for mirror in inner.options.mirrors_of(&reference.registry) {
            if lock(&inner.silent).contains(mirror) {
                continue;
            }
            let repository = Cow::Borrowed(reference.repository.as_str());
            let (host, repository) = match mirror.trim_end_matches('/').split_once('/') {
                Some((host, path)) => (host, Cow::Owned(format!("{path}/{repository}"))),
                None => (mirror, repository),
            };
            match ask(&Target { inner, registry: host, host, repository, push: false }) {
                Err(e @ RegistryError::Store(_)) => return Err(e),
                Err(e) => {
                    tracing::warn!("mirror {mirror}: {e}");
                    if matches!(e, RegistryError::Transport { .. } | RegistryError::Settings { .. }) {
                        lock(&inner.silent).insert(mirror.to_owned());
                    }
                }
                answer => return answer,
            }
        }
        ask(&self.source(reference))
    }
}

impl Target<'_> {
    /// Does something again as long as it fails for a moment only.
    pub(super) fn again<T>(&self, act: impl Fn() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut backoff = super::patience();
        loop {
            match act() {
                Err(e) if e.is_transient() && !e.is_refusal() && backoff.again(e.wish()) => {
                    tracing::debug!("trying again: {e}");
                }
                answer => return answer.map_err(|e| e.after(backoff.attempt())),
            }
        }
    }

    /// What the registry is to be shown, or what its token server is.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        if let Some(Login::Password { user, password }) = self.inner.options.login(self.registry) {
            return Some(Credentials::Password { user: user.clone(), password: password.clone() });
        }
        let mut known = lock(&self.inner.credentials);
        known.entry(self.registry.to_owned()).or_insert_with(|| self.inner.config.for_registry(self.registry)).clone()
    }

    /// The next time docker's configuration, or a helper that gives what holds for some hours only, is asked anew.
    pub(super) fn forget_credentials(&self) {
        lock(&self.inner.credentials).remove(self.registry);
    }

    /// A token that the registry is shown without being asked for one.
    pub(super) fn fixed_token(&self) -> Option<Granted> {
        match self.inner.options.login(self.registry)? {
            Login::Token(token) => Some(Granted::forever(token.bearer())),
            Login::Password { .. } => None,
        }
    }

    /// Whether what is shown to the registry was given for it, rather than found in docker's configuration.
    pub(super) fn has_login(&self) -> bool {
        self.inner.options.login(self.registry).is_some()
    }

    /// The place of the token for some scopes.
    pub(super) fn slot(&self, scopes: &Scopes) -> Arc<Slot> {
        lock(&self.inner.tokens).entry((self.host.to_owned(), scopes.clone())).or_default().clone()
    }

    /// Whether the registry is spoken to, or may be, without TLS.
    pub(super) fn may_be_plain(&self) -> bool {
        is_loopback(self.host) || self.inner.schemes(self.host).contains(&"http")
    }

    /// Connections to a token server: the registry's settings hold for it, unless it has its own.
    pub(super) fn token_agent(&self, realm: &str) -> Result<Agent, RegistryError> {
        let host = parts(realm).map(|(_, host, _)| host).filter(|host| self.inner.options.host(host).is_some());
        self.agent(host.unwrap_or(self.host))
    }

    pub(super) fn agent(&self, host: &str) -> Result<Agent, RegistryError> {
        self.inner.agent(host).map_err(|what| RegistryError::Settings { registry: host.into(), what })
    }

    /// Whether a place that the registry named is on its own host.
    pub(super) fn is_own(&self, scheme: &str, host: &str) -> bool {
        same_host(scheme, host, self.host)
    }
}

impl Inner {
    fn agent(&self, host: &str) -> Result<Agent, String> {
        let unchecked = self.is_unchecked(host);
        let Some(settings) = self.options.host(host).filter(|settings| settings.certificates.any()) else {
            return Ok(if unchecked { self.unchecked.clone() } else { self.checked.clone() });
        };
        let mut agents = lock(&self.agents);
        if let Some(agent) = agents.get(host) {
            return Ok(agent.clone());
        }
        let agent = host_agent(&settings.certificates, unchecked)?;
        agents.insert(host.to_owned(), agent.clone());
        Ok(agent)
    }

    fn is_unchecked(&self, host: &str) -> bool {
        let settings = self.options.host(host);
        // On this machine nobody listens in; but who names an authority wants it to be checked.
        is_loopback(host) && !settings.is_some_and(|s| s.certificates.any())
            || settings.is_some_and(|s| s.insecure)
            || self.options.insecure.iter().any(|h| h == host)
    }

    /// The schemes that a host may speak, the likelier first.
    pub(super) fn schemes(&self, host: &str) -> &'static [&'static str] {
        let settings = self.options.host(host);
        match lock(&self.schemes).get(host) {
            Some(&"http") => return &["http"],
            Some(_) => return &["https"],
            None => {}
        }
        match settings {
            Some(settings) if settings.http => &["http"],
            Some(settings) if settings.certificates.any() => &["https"],
            _ if is_loopback(host) => &["http", "https"],
            _ if self.options.insecure.iter().any(|h| h == host) => &["https", "http"],
            _ => &["https"],
        }
    }

    /// Whether a host is known to speak plain http, or may.
    pub(super) fn is_plain(&self, host: &str) -> bool {
        self.options.host(host).is_some_and(|s| s.http) || self.options.insecure.iter().any(|h| h == host)
    }

    pub(super) fn answered(&self, host: &str, scheme: &'static str) {
        lock(&self.schemes).insert(host.to_owned(), scheme);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the host is this machine, where plain http does no harm (as docker has it).
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(name, _)| !name.ends_with(':')).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
