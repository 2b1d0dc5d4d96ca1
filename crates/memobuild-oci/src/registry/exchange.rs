//! One request and its answer: authorisation, redirects, and what a refusal means.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    time::Duration,
};

use memobuild_image::time::parse_http;
use memobuild_tree::Sha256Digest;
use ureq::{
    Agent, Body, SendBody,
    http::{HeaderMap, Method, Request, Response},
};

use super::{
    RegistryError,
    address::{parts, resolve},
    auth::{Challenge, Granted, Outcome, Scopes},
    client::{Target, is_loopback, lock},
};

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// Tokens that are fetched for one request: others may use up what one of them was given.
const MAX_TOKENS: usize = 3;

/// A request, which may have to be sent more than once.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Below the repository, or an absolute path or address that the registry named.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload: Payload<'a>,
    /// Another repository from which it takes something.
    pub(super) from: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// One without headers and body.
    pub(super) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, headers: &[], payload: Payload::None, from: None }
    }
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

/// An answer, where it came from, and whether it was given to somebody with a name.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    url: String,
    /// Whether something was asked for, rather than put there.
    reading: bool,
    with_credentials: bool,
    /// What a token server said that gave no token.
    words: Option<String>,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn challenges(&self) -> Vec<Challenge> {
        // All headers are looked at: some registries offer both ways.
        let all = self.response.headers().get_all("www-authenticate").iter();
        all.filter_map(|v| Challenge::parse(v.to_str().ok()?)).collect()
    }
}

impl Target<'_> {
    /// A place that an answer names in a header: as a path if it is on the host itself, which is then asked as before
    /// (registries behind a proxy often name themselves by http), else whole.
    pub(super) fn place(&self, answer: &Answer, location: &str) -> Result<String, RegistryError> {
        let place = resolve(&answer.url, location);
        let place =
            place.ok_or_else(|| self.protocol(format!("the registry names a place that is none: {location}")))?;
        let (scheme, host, path) = parts(&place).unwrap_or_default();
        if self.is_own(scheme, host) {
            return Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
        }
        self.may_go_to(&answer.url, scheme, host)?;
        Ok(place)
    }

    /// What went over TLS so far must go on so, unless the host is one that is known to have none.
    fn may_go_to(&self, from: &str, scheme: &str, host: &str) -> Result<(), RegistryError> {
        let plain = is_loopback(host) && is_loopback(self.host) || self.inner.is_plain(host);
        if host.contains('@') || !matches!(scheme, "http" | "https") {
            return Err(self.protocol(format!("the registry sends to {scheme}://{host}, which is no place to go to")));
        }
        if scheme == "https" || from.starts_with("http://") || plain {
            return Ok(());
        }
        Err(self.protocol(format!("the registry sends to {host} without https")))
    }

    /// Asks for something, answered by 200 or 206.
    pub(super) fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        what: &str,
    ) -> Result<Response<Body>, RegistryError> {
        let answer = self.ask(&Question { headers, ..Question::new(Method::GET, path) })?;
        match answer.status() {
            200 | 206 => Ok(answer.response),
            _ => Err(self.refused(answer, what)),
        }
    }

    /// One request, with authorisation if it is asked for. Any answer but "who are you" is the caller's to read.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<Answer, RegistryError> {
        // Another host that the registry names gets none of its credentials.
        if question.path.contains("://") {
            return self.follow(question, question.path.to_owned(), None);
        }
        if let Some(token) = self.fixed_token() {
            return self.send(question, Some(&token));
        }
        let wanted = Scopes::of(&self.repository, self.push, question.from);
        let slot = self.slot(&wanted);
        let mut known = lock(&slot).clone().filter(Granted::holds);
        let mut fetched = false;
        for _ in 0..MAX_TOKENS {
            let mut answer = self.send(question, known.as_ref())?;
            if answer.status() != 401 {
                return Ok(answer);
            }
            let challenges = answer.challenges();
            let mut current = lock(&slot);
            if let Some(other) = current.as_ref().filter(|c| Some(*c) != known.as_ref() && c.holds()) {
                // Another thread has fetched one meanwhile.
                known = Some(other.clone());
                continue;
            }
            // One that was just fetched and is no good will not get better, unless others have used it up.
            if fetched && !challenges.iter().any(Challenge::is_stale) {
                *current = None;
                self.forget_credentials();
                return Ok(answer);
            }
            // A name and password that were good before.
            if known.is_some() && challenges.contains(&Challenge::Basic) {
                self.forget_credentials();
            }
            match self.authorize(&challenges, &wanted)? {
                Outcome::Granted(granted) => known = Some(current.insert(granted).clone()),
                Outcome::Refused(words) => {
                    *current = None;
                    answer.with_credentials |= self.credentials().is_some();
                    answer.words = words;
                    self.forget_credentials();
                    return Ok(answer);
                }
            }
            fetched = true;
        }
        self.send(question, known.as_ref())
    }

    /// The error that an answer is.
    pub(super) fn refused(&self, answer: Answer, what: &str) -> RegistryError {
        let Answer { mut response, url, reading, with_credentials, words } = answer;
        let (registry, repository) = (self.registry.to_owned(), self.repository.to_string());
        let (scheme, host, _) = parts(&url).unwrap_or_default();
        let elsewhere = (!self.is_own(scheme, host)).then(|| format!("{host}, to which the registry sends, says no"));
        let status = response.status().as_u16();
        let detail = elsewhere.or(words).or_else(|| detail(&mut response));
        match status {
            404 if reading => RegistryError::NotFound { registry, repository, what: what.into() },
            401 | 403 => {
                let login = with_credentials && self.has_login();
                RegistryError::Denied { registry, repository, detail, with_credentials, login }
            }
            _ => {
                let retry_after = retry_after(&response);
                RegistryError::Status { registry, repository, status, retry_after, detail, attempts: 1 }
            }
        }
    }

    /// To the registry itself, by the scheme that it speaks.
    fn send(&self, question: &Question<'_>, granted: Option<&Granted>) -> Result<Answer, RegistryError> {
        let schemes = self.inner.schemes(self.host);
        let (mut failure, mut doubtful) = (None, None);
        for scheme in schemes {
            let url = match question.path {
                // A place on the same host, as the registry named it.
                path if path.starts_with('/') => format!("{scheme}://{}{path}", self.host),
                path => format!("{scheme}://{}/v2/{}/{path}", self.host, self.repository),
            };
            match self.follow(question, url, granted) {
                // Go's servers answer so to plain http on a TLS port.
                Ok(answer) if *scheme == "http" && answer.status() == 400 && schemes.len() > 1 => {
                    doubtful = Some(answer);
                }
                Ok(answer) => {
                    self.inner.answered(self.host, scheme);
                    return Ok(answer);
                }
                // The settings, and what the registry says, don't get better by another scheme.
                Err(e @ RegistryError::Transport { .. }) => failure = failure.or(Some(e)),
                Err(e) => return Err(e),
            }
        }
        match (doubtful, failure) {
            (Some(answer), _) => Ok(answer),
            (None, Some(e)) => Err(e),
            (None, None) => Err(self.transport(ureq::Error::ConnectionFailed)),
        }
    }

    /// To an address, and on to where it leads. Credentials go to the registry's own host only.
    fn follow(
        &self,
        question: &Question<'_>,
        mut url: String,
        granted: Option<&Granted>,
    ) -> Result<Answer, RegistryError> {
        for _ in 0..=MAX_REDIRECTS {
            let (scheme, host, _) = parts(&url).unwrap_or_default();
            let own = self.is_own(scheme, host);
            let agent = self.agent(if own { self.host } else { host })?;
            let granted = granted.filter(|_| own);
            let response = call(&agent, &url, question, granted).map_err(|e| self.transport(e))?;
            let reading = matches!(question.method, Method::GET | Method::HEAD);
            let next = match response.status().as_u16() {
                307 | 308 => location(response.headers()),
                301..=303 if reading => location(response.headers()),
                _ => None,
            };
            let with_credentials = granted.is_some_and(|g| g.named);
            let Some(next) = next.and_then(|next| resolve(&url, next)) else {
                return Ok(Answer { response, url, reading, with_credentials, words: None });
            };
            let (to_scheme, host, path) = parts(&next).unwrap_or_default();
            url = if own && self.is_own(to_scheme, host) {
                format!("{scheme}://{}{path}", self.host)
            } else {
                self.may_go_to(&url, to_scheme, host)?;
                next
            };
        }
        Err(self.protocol(format!("more than {MAX_REDIRECTS} redirects, the last to {url}")))
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
        match Sha256Digest::of(bytes) {
            actual if actual == expected => Ok(()),
            actual => Err(RegistryError::DigestMismatch {
                registry: self.registry.into(),
                repository: self.repository.to_string(),
                expected,
                actual,
                size: bytes.len() as u64,
            }),
        }
    }

    pub(super) fn transport(&self, source: ureq::Error) -> RegistryError {
        RegistryError::Transport {
            registry: self.registry.into(),
            repository: self.repository.to_string(),
            attempts: 1,
            source: Box::new(source),
        }
    }

    pub(super) fn protocol(&self, what: String) -> RegistryError {
        RegistryError::Protocol { registry: self.registry.into(), repository: self.repository.to_string(), what }
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
    granted: Option<&Granted>,
) -> Result<Response<Body>, ureq::Error> {
    let mut request = Request::builder().method(question.method.clone()).uri(url);
    let authorization = granted.map(|g| ("authorization", g.authorization.reveal()));
    for (name, value) in question.headers.iter().copied().chain(authorization) {
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

/// Where an answer leads.
pub(super) fn location(headers: &HeaderMap) -> Option<&str> {
    headers.get("location")?.to_str().ok()
}

/// What a server wishes: a number of seconds, or a date by its own clock (RFC 9110, 10.2.3).
pub(super) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = |name| response.headers().get(name)?.to_str().ok().map(str::trim);
    let wish = text("retry-after")?;
    let seconds = wish.parse().ok().or_else(|| {
        let (then, now) = (parse_http(wish)?, parse_http(text("date")?)?);
        u64::try_from(then.saturating_sub(now)).ok()
    });
    seconds.map(Duration::from_secs)
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
