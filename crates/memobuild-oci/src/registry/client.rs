//! Connections, credentials and the one way in which requests are made.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use memobuild_image::Descriptor;
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;
use ureq::{
    Agent, Body, SendBody,
    http::{Method, Request, Response},
};

use super::{
    RegistryError,
    auth::{Challenge, Token, refresh},
    credentials::{Credentials, DockerConfig},
    retry::Backoff,
    tls::agent,
};
use crate::reference::Reference;

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
pub(super) struct Target<'a> {
    inner: &'a Inner,
    /// As the user wrote it.
    pub(super) registry: &'a str,
    host: &'a str,
    pub(super) repository: &'a str,
}

/// A request, which may have to be sent twice.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Below the repository, or an absolute path or address that the registry named.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload: Payload<'a>,
}

/// What a request carries.
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of a blob from an offset on; told of how many have been read.
    Part {
        content: &'a Content<'a>,
        offset: u64,
        length: u64,
        progress: &'a (dyn Fn(u64) + Sync),
    },
}

/// The bytes of a blob, which may have to be read from anywhere again.
pub(super) enum Content<'a> {
    File(File),
    Bytes(&'a [u8]),
}

impl Content<'_> {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, at),
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                bytes.get(at..).unwrap_or_default().read(buffer)
            }
        }
    }
}

/// An answer, and whether it was given to somebody with a name.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    with_credentials: bool,
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

    /// The repository itself, never a mirror: what is pushed goes where it was said to go.
    pub(super) fn target<'a>(&'a self, reference: &'a Reference) -> Target<'a> {
        let host = if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
        Target { inner: &self.0, registry: &reference.registry, host, repository: &reference.repository }
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
    pub(super) fn each<T>(
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
        ask(&self.target(reference))
    }
}

impl Target<'_> {
    /// Does something again as long as it fails for a moment only.
    pub(super) fn again<T>(&self, act: impl Fn() -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut backoff = Backoff::default();
        loop {
            match act() {
                Err(e) if e.is_transient() && !e.is_refusal() && backoff.again(e.wish()) => {
                    tracing::debug!("trying again: {e}");
                }
                answer => return answer,
            }
        }
    }

    /// A place that the registry named: as a path if it is on the host itself, which is then asked as before (registries
    /// behind a proxy often name themselves by http), else whole. Without https another host gets nothing.
    pub(super) fn own_path(&self, place: &str) -> Result<String, RegistryError> {
        let Some((scheme, rest)) = place.split_once("://") else { return Ok(place.to_owned()) };
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.eq_ignore_ascii_case(self.host) {
            return Ok(path.to_owned());
        }
        if scheme != "https" && !is_loopback(host) {
            return Err(self.protocol(format!("the registry wants an upload to go to {host} without https")));
        }
        Ok(place.to_owned())
    }

    /// Asks for something, answered by 200 or 206.
    pub(super) fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        what: &str,
    ) -> Result<Response<Body>, RegistryError> {
        let answer = self.ask(&Question { method: Method::GET, path, headers, payload: Payload::None })?;
        match answer.response.status().as_u16() {
            200 | 206 => Ok(answer.response),
            _ => Err(self.refused(answer, what)),
        }
    }

    /// One request, with authorisation if it is asked for. Any answer but "who are you" is the caller's to read.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<Answer, RegistryError> {
        // Another host that the registry names gets none of its credentials.
        if question.path.contains("://") {
            let response = self.send(question, None)?;
            return Ok(Answer { response, with_credentials: false });
        }
        let key = (self.host.to_owned(), self.repository.to_owned());
        let known = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut response = self.send(question, known.as_deref())?;
        let mut with_credentials = false;
        if response.status() == 401 {
            // All headers are looked at: some registries offer both ways.
            let challenges: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
            let challenges = challenges.iter().filter_map(|v| Challenge::parse(v.to_str().ok()?)).collect::<Vec<_>>();
            let credentials = self.inner.config.for_registry(self.registry);
            with_credentials = credentials.is_some();
            if let Some(authorization) = self.authorize(&challenges, credentials.as_ref())? {
                response = self.send(question, Some(&authorization))?;
                if response.status() != 401 {
                    self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, authorization);
                }
            }
        }
        Ok(Answer { response, with_credentials })
    }

    /// The error that an answer is.
    pub(super) fn refused(&self, answer: Answer, what: &str) -> RegistryError {
        let Answer { mut response, with_credentials } = answer;
        match response.status().as_u16() {
            404 => RegistryError::NotFound {
                registry: self.registry.into(),
                repository: self.repository.into(),
                what: what.into(),
            },
            401 | 403 => RegistryError::Denied {
                registry: self.registry.into(),
                repository: self.repository.into(),
                detail: detail(&mut response),
                with_credentials,
            },
            status => RegistryError::Status {
                registry: self.registry.into(),
                repository: self.repository.into(),
                status,
                retry_after: retry_after(&response),
                detail: detail(&mut response),
            },
        }
    }

    fn send(&self, question: &Question<'_>, authorization: Option<&str>) -> Result<Response<Body>, RegistryError> {
        let known = self.inner.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(self.host).copied();
        let insecure = is_loopback(self.host) || self.inner.options.insecure.iter().any(|h| h == self.host);
        let schemes: &[&'static str] = match known {
            Some("http") => &["http"],
            Some(_) => &["https"],
            None if is_loopback(self.host) => &["http", "https"],
            None if insecure => &["https", "http"],
            None => &["https"],
        };
        let agent = if insecure { &self.inner.unchecked } else { &self.inner.checked };
        let mut failure = None;
        for scheme in schemes {
            let url = match question.path {
                path if path.contains("://") => path.to_owned(),
                // A place on the same host, as the registry named it.
                path if path.starts_with('/') => format!("{scheme}://{}{path}", self.host),
                path => format!("{scheme}://{}/v2/{}/{path}", self.host, self.repository),
            };
            match call(agent, &url, question, authorization) {
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
                    retry_after: retry_after(&answer),
                    detail: Some(format!("from the token server {realm}")),
                });
            }
        }
        let text = answer.body_mut().read_to_vec().map_err(|e| self.transport(e))?;
        let token = serde_json::from_slice::<Token>(&text).ok().and_then(Token::value);
        let token = token.ok_or_else(|| self.protocol(format!("the token server {realm} gave no token")))?;
        Ok(Some(format!("Bearer {token}")))
    }

    /// The body of an answer; `None` if it is longer than that.
    pub(super) fn read(&self, response: &mut Response<Body>, limit: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let mut bytes = Vec::new();
        let read = response.body_mut().as_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| self.transport(io_error(e)))?;
        Ok(Some(bytes).filter(|b| b.len() as u64 <= limit))
    }

    /// Whether bytes are those that were asked for.
    pub(super) fn verify(&self, expected: Sha256Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let actual = Sha256Digest::of(bytes);
        if actual == expected {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch {
            registry: self.registry.into(),
            repository: self.repository.into(),
            expected,
            actual,
        })
    }

    pub(super) fn transport(&self, source: ureq::Error) -> RegistryError {
        RegistryError::Transport {
            registry: self.registry.into(),
            repository: self.repository.into(),
            source: Box::new(source),
        }
    }

    pub(super) fn protocol(&self, what: String) -> RegistryError {
        RegistryError::Protocol { registry: self.registry.into(), repository: self.repository.into(), what }
    }
}

/// The client's own error in one of reading a body.
pub(super) fn io_error(e: io::Error) -> ureq::Error {
    match e.downcast::<ureq::Error>() {
        Ok(inner) => inner,
        Err(e) => ureq::Error::Io(e),
    }
}

fn call(
    agent: &Agent,
    url: &str,
    question: &Question<'_>,
    authorization: Option<&str>,
) -> Result<Response<Body>, ureq::Error> {
    let mut request = Request::builder().method(question.method.clone()).uri(url);
    for (name, value) in question.headers.iter().copied().chain(authorization.map(|a| ("authorization", a))) {
        request = request.header(name, value);
    }
    match &question.payload {
        Payload::None => agent.run(request.body(())?),
        Payload::Bytes(bytes) => agent.run(request.body(*bytes)?),
        Payload::Part { content, offset, length, progress } => {
            let mut part = Part { content, at: *offset, left: *length, progress: *progress };
            agent.run(request.header("content-length", *length).body(SendBody::from_reader(&mut part))?)
        }
    }
}

/// Part of a blob being sent.
struct Part<'a> {
    content: &'a Content<'a>,
    at: u64,
    left: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.content.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        (self.progress)(self.at);
        Ok(count)
    }
}

/// What a server wishes: a number of seconds (RFC 9110; a date is no use to a clock that may differ).
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?))
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
