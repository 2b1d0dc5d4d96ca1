//! The requests themselves.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use memobuild_image::{Descriptor, media};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;
use ureq::{Agent, Body, http::Response};

use super::{
    RegistryError,
    auth::{Challenge, Token, refresh},
    credentials::{Credentials, DockerConfig},
    retry::Backoff,
    tls::agent,
};
use crate::reference::Reference;

/// The longest manifest, index or config that is read (distribution-spec asks for at least 4 MiB).
const MAX_DOCUMENT: u64 = 8 << 20;
/// What is asked for when a manifest is wanted.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Hosts (with port) whose certificate is not checked, and that may speak plain http.
    pub insecure: Vec<String>,
    /// Hosts to ask in place of others: `(docker.io, mirror.example)`. The other is asked if the mirror fails.
    pub mirrors: Vec<(String, String)>,
    /// The directory of docker's `config.json`; `None`: `DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
}

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

struct Inner {
    options: RegistryOptions,
    // Made when first used: that reads the machine's certificates, which most builds never need.
    checked: LazyLock<Agent>,
    unchecked: LazyLock<Agent>,
    config: DockerConfig,
    /// `Authorization` by host and repository.
    tokens: Mutex<HashMap<(String, String), String>>,
    /// The scheme that a host has answered to.
    schemes: Mutex<HashMap<String, &'static str>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registries").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// One repository on one host.
struct Target<'a> {
    inner: &'a Inner,
    /// As the user wrote it.
    registry: &'a str,
    host: &'a str,
    repository: &'a str,
}

impl Registries {
    /// Reads the user's credentials; connects to nothing.
    pub fn new(options: RegistryOptions) -> Self {
        Self(Arc::new(Inner {
            checked: LazyLock::new(|| agent(false)),
            unchecked: LazyLock::new(|| agent(true)),
            config: DockerConfig::load(options.docker_config.clone()),
            tokens: Mutex::default(),
            schemes: Mutex::default(),
            options,
        }))
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

    /// Asks the mirrors of a registry and then itself, until one answers.
    fn each<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Target<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let inner = &*self.0;
        let target = |host| Target { inner, registry: &reference.registry, host, repository: &reference.repository };
        for (of, mirror) in &inner.options.mirrors {
            if *of != reference.registry {
                continue;
            }
            match ask(&target(mirror)) {
                Err(e) if !matches!(e, RegistryError::Store(_)) => tracing::warn!("mirror {mirror}: {e}"),
                answer => return answer,
            }
        }
        let host = if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
        ask(&target(host))
    }
}

impl Target<'_> {
    fn manifest(&self, wanted: &str, digest: Option<Sha256Digest>) -> Result<FetchedManifest, RegistryError> {
        let mut backoff = Backoff::default();
        loop {
            match self.manifest_once(wanted, digest) {
                Err(e) if e.is_transient() && !e.is_refusal() && backoff.again(None) => {
                    tracing::debug!("trying again: {e}");
                }
                answer => return answer,
            }
        }
    }

    fn manifest_once(&self, wanted: &str, digest: Option<Sha256Digest>) -> Result<FetchedManifest, RegistryError> {
        let mut response = self.get(&format!("manifests/{wanted}"), &[("accept", ACCEPT)], wanted)?;
        let declared = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let declared = declared.split(';').next().unwrap_or_default().trim().to_owned();
        let mut bytes = Vec::new();
        let read = response.body_mut().as_reader().take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.transport(io_error(e)))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(self.protocol(format!("the manifest {wanted} is over 8 MiB")));
        }
        let actual = Sha256Digest::of(&bytes);
        if let Some(expected) = digest.filter(|d| *d != actual) {
            return Err(RegistryError::DigestMismatch {
                registry: self.registry.into(),
                repository: self.repository.into(),
                expected,
                actual,
            });
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| self.protocol(format!("the manifest {wanted} is not JSON: {e}")))?;
        let own = value.get("mediaType").and_then(|m| m.as_str()).unwrap_or_default();
        let media_type = if own.is_empty() { declared } else { own.to_owned() };
        if media::DOCKER_MANIFEST_V1.contains(&media_type.as_str()) || value.get("fsLayers").is_some() {
            return Err(
                self.protocol("the image has a manifest of Docker's schema 1, which nothing writes since 2017".into())
            );
        }
        Ok(FetchedManifest { bytes, media_type, digest: actual })
    }

    fn blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        if store.oci_blob_path(&blob.digest).is_some() {
            return Ok(());
        }
        let Some(mut partial) = store.partial(&blob.digest)? else { return Ok(()) };
        let mut backoff = Backoff::default();
        if partial.offset() > blob.size {
            partial.restart()?;
        }
        while partial.offset() < blob.size {
            let before = partial.offset();
            let result = self.blob_once(blob, &mut partial, progress);
            if partial.offset() > before {
                backoff.progress();
            }
            match result {
                Ok(()) if partial.offset() > before => {}
                Ok(()) if backoff.again(None) => {}
                Ok(()) => {
                    return Err(
                        self.protocol(format!("{}: the registry sends fewer bytes than it announced", blob.digest))
                    );
                }
                Err(e) if e.is_transient() && backoff.again(None) => {
                    tracing::debug!("{}: going on at byte {}: {e}", blob.digest, partial.offset());
                }
                Err(e) => return Err(e),
            }
        }
        partial.finish().map(drop).map_err(|e| match e {
            memobuild_store::StoreError::DigestMismatch { expected, actual, .. } => RegistryError::DigestMismatch {
                registry: self.registry.into(),
                repository: self.repository.into(),
                expected,
                actual,
            },
            other => other.into(),
        })
    }

    fn blob_once(
        &self,
        blob: &Descriptor,
        partial: &mut memobuild_store::Partial,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        let range = format!("bytes={}-", partial.offset());
        // No packing on the way: the range counts the blob's own bytes.
        let mut headers = vec![("accept-encoding", "identity")];
        if partial.offset() > 0 {
            headers.push(("range", &range));
        }
        let mut response = self.get(&format!("blobs/{}", blob.digest), &headers, &blob.digest.to_string())?;
        if partial.offset() > 0 {
            let start = response.headers().get("content-range").and_then(|v| v.to_str().ok());
            let goes_on = start.is_some_and(|s| s.starts_with(&format!("bytes {}-", partial.offset())));
            if response.status() != 206 || !goes_on {
                partial.restart()?;
            }
        }
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.transport(io_error(e))),
            };
            if partial.offset() + count as u64 > blob.size {
                let what = format!("{}: the registry sends more bytes than it announced", blob.digest);
                partial.restart()?;
                return Err(self.protocol(what));
            }
            let written = partial.write_all(buffer.get(..count).unwrap_or_default());
            written.map_err(memobuild_store::StoreError::io("write the download of", blob.digest.hex()))?;
            progress(partial.offset(), Some(blob.size));
        }
    }

    /// One request, with authorisation if it is asked for, answered by 200 or 206.
    fn get(&self, path: &str, headers: &[(&str, &str)], what: &str) -> Result<Response<Body>, RegistryError> {
        let key = (self.host.to_owned(), self.repository.to_owned());
        let known = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut response = self.send(path, headers, known.as_deref())?;
        let mut with_credentials = false;
        if response.status() == 401 {
            // All headers are looked at: some registries offer both ways.
            let challenges: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
            let challenges = challenges.iter().filter_map(|v| Challenge::parse(v.to_str().ok()?)).collect::<Vec<_>>();
            let credentials = self.inner.config.for_registry(self.registry);
            with_credentials = credentials.is_some();
            if let Some(authorization) = self.authorize(&challenges, credentials.as_ref())? {
                response = self.send(path, headers, Some(&authorization))?;
                if response.status().is_success() {
                    self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, authorization);
                }
            }
        }
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            404 => Err(RegistryError::NotFound {
                registry: self.registry.into(),
                repository: self.repository.into(),
                what: what.into(),
            }),
            401 | 403 => Err(RegistryError::Denied {
                registry: self.registry.into(),
                repository: self.repository.into(),
                detail: detail(&mut response),
                with_credentials,
            }),
            status => Err(RegistryError::Status {
                registry: self.registry.into(),
                repository: self.repository.into(),
                status,
                detail: detail(&mut response),
            }),
        }
    }

    fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let known = self.inner.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(self.host).copied();
        let insecure = is_loopback(self.host) || self.inner.options.insecure.iter().any(|h| h == self.host);
        let schemes: &[&'static str] = match known {
            Some("http") => &["http"],
            Some(_) => &["https"],
            None if is_loopback(self.host) => &["http", "https"],
            None if insecure => &["https", "http"],
            None => &["https"],
        };
        let mut failure = None;
        for scheme in schemes {
            let url = format!("{scheme}://{}/v2/{}/{path}", self.host, self.repository);
            let agent = if insecure { &self.inner.unchecked } else { &self.inner.checked };
            let mut request = agent.get(&url);
            for (name, value) in headers.iter().copied().chain(authorization.map(|a| ("authorization", a))) {
                request = request.header(name, value);
            }
            match request.call() {
                // Go's servers answer so to plain http on a TLS port.
                Ok(response) if *scheme == "http" && response.status() == 400 && schemes.len() > 1 => {}
                Ok(response) => {
                    self.inner.schemes.lock().unwrap_or_else(PoisonError::into_inner).insert(self.host.into(), scheme);
                    return Ok(response);
                }
                Err(e) => {
                    failure.get_or_insert(e);
                }
            }
        }
        Err(self.transport(failure.unwrap_or(ureq::Error::ConnectionFailed)))
    }

    /// The `Authorization` that answers a challenge; `None` if nothing can.
    fn authorize(
        &self,
        challenges: &[Challenge],
        credentials: Option<&Credentials>,
    ) -> Result<Option<String>, RegistryError> {
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let Some(challenge @ Challenge::Bearer { realm, .. }) = bearer else {
            let basic = challenges.contains(&Challenge::Basic);
            return Ok(credentials.filter(|_| basic).and_then(Credentials::basic));
        };
        let insecure = is_loopback(self.host) || self.inner.options.insecure.iter().any(|h| h == self.host);
        if !realm.starts_with("https://") && !insecure {
            return Err(self.protocol(format!("the registry names a token server without https: {realm}")));
        }
        let agent = if insecure { &self.inner.unchecked } else { &self.inner.checked };
        let fields = challenge.fields(self.repository);
        let answer = match credentials.and_then(|c| refresh(fields.clone(), c)) {
            Some(form) => agent.post(realm).send_form(form),
            None => {
                let mut request = agent.get(realm).query_pairs(fields);
                if let Some(basic) = credentials.and_then(Credentials::basic) {
                    request = request.header("authorization", basic);
                }
                request.call()
            }
        };
        let mut answer = answer.map_err(|e| self.transport(e))?;
        match answer.status().as_u16() {
            200..=299 => {}
            401 | 403 => return Ok(None),
            status => {
                return Err(RegistryError::Status {
                    registry: self.registry.into(),
                    repository: self.repository.into(),
                    status,
                    detail: Some(format!("from the token server {realm}")),
                });
            }
        }
        let text = answer.body_mut().read_to_vec().map_err(|e| self.transport(e))?;
        let token = serde_json::from_slice::<Token>(&text).ok().and_then(Token::value);
        let token = token.ok_or_else(|| self.protocol(format!("the token server {realm} gave no token")))?;
        Ok(Some(format!("Bearer {token}")))
    }

    fn transport(&self, source: ureq::Error) -> RegistryError {
        RegistryError::Transport {
            registry: self.registry.into(),
            repository: self.repository.into(),
            source: Box::new(source),
        }
    }

    fn protocol(&self, what: String) -> RegistryError {
        RegistryError::Protocol { registry: self.registry.into(), repository: self.repository.into(), what }
    }
}

/// The client's own error in one of reading a body.
fn io_error(e: io::Error) -> ureq::Error {
    match e.downcast::<ureq::Error>() {
        Ok(inner) => inner,
        Err(e) => ureq::Error::Io(e),
    }
}

/// The message in an error answer (distribution-spec, "Error Codes").
fn detail(response: &mut Response<Body>) -> Option<String> {
    let mut text = Vec::new();
    response.body_mut().as_reader().take(16 * 1024).read_to_end(&mut text).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let error = value.get("errors")?.get(0)?;
    let part = |name: &str| error.get(name).and_then(|v| v.as_str()).filter(|t| !t.is_empty());
    Some(part("message").or(part("code"))?.chars().take(300).collect())
}

/// Whether the host is this machine, where plain http does no harm (as docker has it).
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(name, _)| !name.ends_with(':')).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
