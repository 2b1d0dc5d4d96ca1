//! `ADD` of an http(s) address.
//!
//! In: an address, perhaps a checksum. Out: a file's content in the store, its name and its time, by BuildKit's rules:
//! a server that gave an `ETag` is asked whether it still holds, and what has not changed is not fetched again; what
//! was pinned by a checksum is not even asked for. Called by the engine. Never: sends credentials but those that stand
//! in the address.

use std::{
    io::{self, Read},
    sync::OnceLock,
};

use memobuild_image::time::parse_http;
use memobuild_store::{Ref, Store, StoreError};
use memobuild_tree::{
    BundleId, Change, ContentDigest, Diff, File, KeyDigest, KeyHasher, Meta, Mtime, Node, Sha256Digest,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ureq::{Agent, Body, http::Response};

use crate::registry::{patience, tls::agent};

/// What was fetched earlier, by address.
const FETCHED: &str = "oci.http.v1";
/// Answers remembered for one address: servers behind one name can have several.
const MAX_ANSWERS: usize = 8;

/// A download that failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server answered, but not with the file.
    #[error("{url}: the server answered {status}{}", reason(*.status))]
    Status {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer, or one that broke off.
    #[error("{url}: {source}")]
    Transport {
        /// The address.
        url: String,
        /// What the connection met.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Another file than the checksum says.
    #[error("{url}: digest mismatch: expected {expected}, got {actual}")]
    Checksum {
        /// The address.
        url: String,
        /// What was asked for.
        expected: Sha256Digest,
        /// What came.
        actual: Sha256Digest,
    },
}

fn reason(status: u16) -> String {
    let reason = ureq::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    reason.map(|r| format!(" {r}")).unwrap_or_default()
}

impl HttpError {
    /// What a person can do about it; `None` where there is nothing useful to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(e) => return e.hint(),
            Self::Status { status: 401 | 403, .. } => {
                "the server wants credentials; fetch the file in a RUN with a secret".into()
            }
            Self::Status { .. } => "check the address".into(),
            Self::Transport { .. } => "check the network and the proxy settings (HTTPS_PROXY, NO_PROXY)".into(),
            Self::Checksum { .. } => "if the new file is the right one, change --checksum".into(),
        })
    }
}

/// A file as it came; in the image it has mode 0600 and the owner 0:0 unless the instruction says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its name: from `Content-Disposition`, else the last part of the address, else `download`.
    pub name: Vec<u8>,
    /// What it holds; the content is in the store.
    pub content: ContentDigest,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of it.
    pub sha256: Sha256Digest,
    /// `Last-Modified` in seconds since the epoch; BuildKit sets 0 where the server does not say.
    pub mtime: Option<i64>,
    /// The bundle that holds the content.
    pub bundle: BundleId,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    etag: String,
    /// What the server called the file, if it did.
    name: Option<String>,
    content: String,
    size: u64,
    sha256: String,
    mtime: Option<i64>,
    bundle: String,
}

impl Answer {
    fn fetched(&self, url: &str) -> Option<Fetched> {
        Some(Fetched {
            name: self.name.clone().map_or_else(|| name_of(url), String::into_bytes),
            content: ContentDigest::from_hex(&self.content).ok()?,
            size: self.size,
            sha256: self.sha256.parse().ok()?,
            mtime: self.mtime,
            bundle: BundleId::from_hex(&self.bundle).ok()?,
        })
    }
}

/// The file at an address: fetched now, or from the store where the server says that it has not changed, or where it
/// has the checksum that is asked for.
pub fn fetch(url: &str, checksum: Option<&Sha256Digest>, store: &Store) -> Result<Fetched, HttpError> {
    let url = url.split('#').next().unwrap_or_default();
    let key = KeyHasher::new(FETCHED).value(url).finish();
    let mut answers: Vec<Answer> =
        store.record_get(FETCHED, &key)?.and_then(|v| serde_json::from_slice(&v).ok()).unwrap_or_default();
    answers.retain(|a| a.fetched(url).is_some_and(|f| store.has_bundle(&f.bundle)));
    if let Some(checksum) = checksum
        && let Some(known) = answers.iter().filter_map(|a| a.fetched(url)).find(|f| f.sha256 == *checksum)
    {
        return Ok(known);
    }
    let answer = match unchanged(url, &answers) {
        Some(known) => known,
        None => {
            let answer = download(url, &answers, store)?;
            let fetched = answer.fetched(url);
            answers.retain(|old| old.etag != answer.etag && old.sha256 != answer.sha256);
            answers.insert(0, answer);
            answers.truncate(MAX_ANSWERS);
            remember(store, &key, &answers, url)?;
            fetched
        }
    };
    let fetched = answer.ok_or_else(|| failed(url, io::Error::other("no answer").into()))?;
    match checksum {
        Some(expected) if *expected != fetched.sha256 => {
            Err(HttpError::Checksum { url: url.into(), expected: *expected, actual: fetched.sha256 })
        }
        _ => Ok(fetched),
    }
}

fn remember(store: &Store, key: &KeyDigest, answers: &[Answer], url: &str) -> Result<(), HttpError> {
    let refs: Vec<_> = answers.iter().filter_map(|a| a.fetched(url)).map(|f| Ref::Bundle(f.bundle)).collect();
    if let Ok(value) = serde_json::to_vec(answers) {
        store.record_put(FETCHED, key, &value, &refs)?;
    }
    Ok(())
}

fn client() -> &'static Agent {
    static CLIENT: OnceLock<Agent> = OnceLock::new();
    CLIENT.get_or_init(|| agent(false))
}

fn failed(url: &str, source: ureq::Error) -> HttpError {
    HttpError::Transport { url: url.into(), source: Box::new(source) }
}

/// Strong and weak tags are compared alike, as BuildKit compares them.
fn etag(response: &Response<Body>) -> String {
    let value = response.headers().get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.strip_prefix("W/").unwrap_or(value).to_owned()
}

/// Asks with HEAD whether one of the known answers still holds: some servers misread `If-None-Match` on GET.
fn unchanged(url: &str, answers: &[Answer]) -> Option<Option<Fetched>> {
    let tags: Vec<_> = answers.iter().map(|a| a.etag.as_str()).filter(|t| !t.is_empty()).collect();
    if tags.is_empty() {
        return None;
    }
    let response = client().head(url).header("if-none-match", tags.join(", ")).call().ok()?;
    let mut tag = etag(&response);
    match response.status().as_u16() {
        // An answer of "not modified" that does not say which means the one that was asked about.
        304 if tag.is_empty() && tags.len() == 1 => tag = (*tags.first()?).to_owned(),
        200 | 304 => {}
        _ => return None,
    }
    answers.iter().find(|a| !tag.is_empty() && a.etag == tag).map(|a| a.fetched(url))
}

fn download(url: &str, answers: &[Answer], store: &Store) -> Result<Answer, HttpError> {
    let mut backoff = patience();
    loop {
        match download_once(url, store) {
            Err(e) if is_transient(&e) && backoff.again(None) => tracing::debug!("trying again: {e}"),
            Err(HttpError::Transport { source, .. }) if !answers.is_empty() => {
                // Never the old file in place of the new: the server could not be asked.
                return Err(HttpError::Transport { url: url.into(), source });
            }
            other => return other,
        }
    }
}

fn is_transient(e: &HttpError) -> bool {
    match e {
        HttpError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        HttpError::Transport { source, .. } => matches!(
            **source,
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled
        ),
        _ => false,
    }
}

fn download_once(url: &str, store: &Store) -> Result<Answer, HttpError> {
    let mut response = client().get(url).call().map_err(|e| failed(url, e))?;
    let status = response.status().as_u16();
    if !(200..300).contains(&status) {
        return Err(HttpError::Status { url: url.into(), status });
    }
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let mtime = header("last-modified").and_then(parse_http);
    let name = header("content-disposition").and_then(file_name);
    let etag = etag(&response);
    let size_hint = response.body().content_length().unwrap_or(0);
    let writer = store.bundle_writer();
    let mut body = Hashed { reader: response.body_mut().as_reader(), hasher: Sha256::new(), failed: None };
    let added = writer.add_reader(&mut body, size_hint);
    if let Some(e) = body.failed {
        return Err(failed(url, e));
    }
    let (content, size) = added?;
    let meta = Meta::new(0o600, Mtime::pinned(0, 0));
    let mut diff = Diff::default();
    diff.set(b"/file", Change::Put(Node::File(File { meta, size, content, link: None })));
    let bundle = writer.finish(&diff)?;
    let sha256 = Sha256Digest::from_bytes(body.hasher.finalize().into());
    Ok(Answer { etag, name, content: content.hex(), size, sha256: sha256.to_string(), mtime, bundle: bundle.hex() })
}

/// Hashes what is read, and remembers the connection's error, which the store would report as one of its own.
struct Hashed<R> {
    reader: R,
    hasher: Sha256,
    failed: Option<ureq::Error>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(out) {
            Ok(count) => {
                self.hasher.update(out.get(..count).unwrap_or_default());
                Ok(count)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let copy = io::Error::new(e.kind(), e.to_string());
                self.failed = Some(e.downcast::<ureq::Error>().unwrap_or_else(ureq::Error::Io));
                Err(copy)
            }
        }
    }
}

/// The last part of the address's path, percent signs undone; `download` where there is none.
fn name_of(url: &str) -> Vec<u8> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    safe(percent_decoded(last))
}

/// The name in a `Content-Disposition` header (RFC 6266), `filename*` before `filename`.
fn file_name(header: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    for (key, value) in crate::registry::parameters(header.split_once(';')?.1, ';') {
        match key.to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => {
                let coded = value.split_once('\'').and_then(|(_, rest)| rest.split_once('\'')).map(|(_, name)| name);
                extended = coded.and_then(|name| String::from_utf8(percent_decoded(name)).ok());
            }
            _ => {}
        }
    }
    let name = extended.or(plain).filter(|n| !n.is_empty() && !n.ends_with('/'))?;
    String::from_utf8(safe(name.rsplit('/').next()?.as_bytes().to_vec())).ok()
}

fn safe(name: Vec<u8>) -> Vec<u8> {
    let bad = matches!(name.as_slice(), b"" | b"." | b"..") || name.iter().any(|b| matches!(b, b'/' | 0));
    if bad || name.len() > 255 { b"download".to_vec() } else { name }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
