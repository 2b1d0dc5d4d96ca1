//! Manifests and blobs to a registry (distribution-spec 1.1, "Push").
//!
//! A blob is asked for before it is sent, and taken over from another repository where the registry can do that. It goes
//! in one request, which costs a registry the least. After a broken connection the registry is asked how much it has,
//! and the rest goes in parts, as does what is too long for one request. An upload that is given up is cancelled.

use std::fs::File;

use memobuild_image::Descriptor;
use memobuild_tree::Sha256Digest;
use ureq::http::Method;

use super::{
    Registries, RegistryError,
    client::{Presence, Target, lock},
    exchange::{Answer, Content, Payload, Question, location},
};
use crate::reference::Reference;

/// Blobs of at most so many bytes are small: not worth a question or a part of their own.
pub(crate) const SMALL: u64 = 4 << 20;
/// Bytes of a part, unless the registry wants larger ones: what is lost when a connection breaks once more.
const PART: u64 = 32 << 20;
const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// How a blob got to where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it over from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// Where the bytes of a blob come from, if they have to be sent.
pub type Source<'a> = &'a (dyn Fn() -> Result<File, RegistryError> + Sync);

impl Registries {
    /// Makes sure that a repository has a blob. `from` names repositories of the same registry that may have it.
    /// `source` is asked for the bytes only if they must be sent. `progress` is told how many were. What is known to be
    /// there is not asked for again, and what another thread is sending is waited for.
    pub fn push_blob(
        &self,
        to: &Reference,
        blob: &Descriptor,
        from: &[&str],
        source: Source<'_>,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Pushed, RegistryError> {
        self.push_content(to, blob, from, &|| Ok(Content::File(source()?)), progress)
    }

    pub(super) fn push_content<'b>(
        &self,
        to: &Reference,
        blob: &Descriptor,
        from: &[&str],
        source: &(dyn Fn() -> Result<Content<'b>, RegistryError> + Sync),
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Pushed, RegistryError> {
        let target = self.target(to);
        let slot = target.there(&blob.digest);
        let mut there = lock(&slot);
        if *there {
            return Ok(Pushed::Present);
        }
        let pushed = target.push_blob(blob, from, source, progress)?;
        *there = true;
        Ok(pushed)
    }

    /// Whether a repository has a blob, asked before what is to be pushed there is made.
    pub fn probe_blob(&self, to: &Reference, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let target = self.target(to);
        let slot = target.there(digest);
        let mut there = lock(&slot);
        *there = *there || target.again(|| target.has_blob(digest))?;
        Ok(*there)
    }

    /// Puts a manifest or index under the reference's tag, or under its own digest where the reference has no tag. One
    /// that has a subject is added to what refers to that.
    pub fn push_manifest(&self, to: &Reference, bytes: &[u8], manifest: &Descriptor) -> Result<(), RegistryError> {
        let target = self.target(to);
        let name = to.tag.clone().unwrap_or_else(|| manifest.digest.to_string());
        target.put_manifest(&name, bytes, manifest)
    }
}

/// An upload that the registry has opened.
#[derive(Clone)]
struct Session {
    /// Where it goes on.
    place: String,
    /// The shortest part that it takes, but for the last one (`OCI-Chunk-Min-Length`).
    least: u64,
}

impl Target<'_> {
    fn there(&self, digest: &Sha256Digest) -> Presence {
        let name = (self.host.to_owned(), self.repository.to_string(), *digest);
        lock(&self.inner.there).entry(name).or_default().clone()
    }

    fn push_blob<'b>(
        &self,
        blob: &Descriptor,
        from: &[&str],
        source: &(dyn Fn() -> Result<Content<'b>, RegistryError> + Sync),
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Pushed, RegistryError> {
        if self.again(|| self.has_blob(&blob.digest))? {
            return Ok(Pushed::Present);
        }
        let mut session = None;
        for repository in from {
            let path = format!("blobs/uploads/?mount={}&from={repository}", blob.digest);
            let answer = self.again(|| self.post(&path, Some(repository)))?;
            match answer.status() {
                201 => return Ok(Pushed::Mounted),
                // It opens an upload instead, which is as good as any.
                202 => {
                    session = Some(self.session(&answer)?);
                    break;
                }
                // Who may not read there may still write here.
                _ => {}
            }
        }
        // A registry may find the blob by itself. Small ones are not worth the question.
        if session.is_none() && blob.size > SMALL {
            let path = format!("blobs/uploads/?mount={}", blob.digest);
            let answer = self.again(|| self.post(&path, None))?;
            match answer.status() {
                201 => return Ok(Pushed::Mounted),
                202 => session = Some(self.session(&answer)?),
                _ => {}
            }
        }
        self.send_blob(blob, session, source, progress)?;
        Ok(Pushed::Sent)
    }

    pub(super) fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let path = format!("blobs/{digest}");
        let answer = self.ask(&Question::new(Method::HEAD, &path))?;
        match answer.status() {
            200 => Ok(true),
            404 => Ok(false),
            // Some registries let nobody look who may only write; the upload will tell.
            401 | 403 if self.push => Ok(false),
            _ => Err(self.refused(answer, &digest.to_string())),
        }
    }

    fn post(&self, path: &str, from: Option<&str>) -> Result<Answer, RegistryError> {
        let answer = self.ask(&Question { payload: Payload::Bytes(&[]), from, ..Question::new(Method::POST, path) })?;
        match answer.status() {
            429 | 500.. => Err(self.refused(answer, path)),
            _ => Ok(answer),
        }
    }

    /// Where an upload goes on.
    fn next(&self, answer: &Answer) -> Result<Option<String>, RegistryError> {
        location(answer.response.headers()).map(|location| self.place(answer, location)).transpose()
    }

    fn session(&self, answer: &Answer) -> Result<Session, RegistryError> {
        let place = self.next(answer)?;
        let place = place.ok_or_else(|| self.protocol("the registry does not say where to upload to".into()))?;
        let least = answer.response.headers().get("oci-chunk-min-length");
        let least = least.and_then(|v| v.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
        Ok(Session { place, least })
    }

    fn begin(&self, blob: &Descriptor) -> Result<Session, RegistryError> {
        let answer = self.post("blobs/uploads/", None)?;
        match answer.status() {
            202 => self.session(&answer),
            _ => Err(self.refused(answer, &blob.digest.to_string())),
        }
    }

    fn send_blob<'b>(
        &self,
        blob: &Descriptor,
        session: Option<Session>,
        source: &(dyn Fn() -> Result<Content<'b>, RegistryError> + Sync),
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        let content = match source() {
            Ok(content) => content,
            Err(e) => {
                self.cancel(session.as_ref());
                return Err(e);
            }
        };
        let told = |done| progress(done, Some(blob.size));
        let mut upload = Upload {
            target: self,
            blob,
            content: &content,
            progress: &told,
            session,
            sent: 0,
            unsure: false,
            parts: false,
        };
        let (mut backoff, mut farthest) = (super::patience(), 0);
        loop {
            let result = upload.step();
            if upload.sent > farthest {
                farthest = upload.sent;
                backoff.progress();
            }
            let error = match result {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(e) => e,
            };
            let again = match &error {
                // It has more or less than was thought, or no longer knows of this upload.
                RegistryError::Status { status: 416, .. } => true,
                // Proxies often have a limit for one request.
                RegistryError::Status { status: 413, .. } => !upload.parts && blob.size > SMALL,
                RegistryError::Status { status: 404, .. } => upload.session.is_some(),
                e => e.is_transient() && !(farthest == 0 && e.is_refusal()),
            };
            if !again || !backoff.again(error.wish()) {
                self.cancel(upload.session.as_ref());
                return Err(error.after(backoff.attempt()));
            }
            tracing::debug!("{}: going on with the upload: {error}", blob.digest);
            (upload.unsure, upload.parts) = (true, true);
        }
    }

    /// Gives up an upload, so that the registry need not keep what it has of it. Whether it does so is its affair.
    fn cancel(&self, session: Option<&Session>) {
        if let Some(session) = session {
            let _ = self.ask(&Question::new(Method::DELETE, &session.place));
        }
    }
}

/// A blob on its way.
struct Upload<'a> {
    target: &'a Target<'a>,
    blob: &'a Descriptor,
    content: &'a Content<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Where it goes on; none: it has to begin.
    session: Option<Session>,
    /// Bytes that the registry has.
    sent: u64,
    /// Whether a request failed, so that only the registry knows how many it has.
    unsure: bool,
    /// Whether what is left goes in parts: one request for all of it has failed.
    parts: bool,
}

impl Upload<'_> {
    /// The next request; whether it was the last.
    fn step(&mut self) -> Result<bool, RegistryError> {
        if self.unsure {
            // An upload that is gone may have ended: its last answer is what was lost.
            let goes_on = self.session.is_some() && self.ask_how_far()?;
            if !goes_on && self.target.has_blob(&self.blob.digest)? {
                return Ok(true);
            }
            self.unsure = false;
        }
        let session = match &self.session {
            Some(session) => session.clone(),
            None => {
                self.sent = 0;
                self.session.insert(self.target.begin(self.blob)?).clone()
            }
        };
        let left = self.blob.size.saturating_sub(self.sent);
        if left > 0 && self.parts && (self.sent > 0 || left > SMALL) {
            return self.part(&session, left.min(PART.max(session.least))).map(|()| false);
        }
        let joint = if session.place.contains('?') { '&' } else { '?' };
        let path = format!("{}{joint}digest={}", session.place, self.blob.digest.to_string().replace(':', "%3A"));
        let payload = self.payload(left);
        let answer = self.target.ask(&Question { headers: &[OCTETS], payload, ..Question::new(Method::PUT, &path) })?;
        match answer.status() {
            201 => Ok(true),
            _ => Err(self.target.refused(answer, &self.blob.digest.to_string())),
        }
    }

    fn payload(&self, length: u64) -> Payload<'_> {
        Payload::Part { content: self.content, offset: self.sent, length, progress: self.progress }
    }

    fn part(&mut self, session: &Session, length: u64) -> Result<(), RegistryError> {
        let end = self.sent + length;
        let range = format!("{}-{}", self.sent, end - 1);
        let headers = [OCTETS, ("content-range", range.as_str())];
        let question = Question {
            headers: &headers,
            payload: self.payload(length),
            ..Question::new(Method::PATCH, &session.place)
        };
        let answer = self.target.ask(&question)?;
        if answer.status() != 202 {
            return Err(self.target.refused(answer, &self.blob.digest.to_string()));
        }
        if let Some(place) = self.target.next(&answer)? {
            self.session = Some(Session { place, least: session.least });
        }
        match has(&answer) {
            // It kept less than it was sent, and may have its reasons.
            Some(kept) if kept < end && kept > self.sent => self.sent = kept,
            _ => self.sent = end,
        }
        Ok(())
    }

    /// Learns how many bytes the registry has, and says whether it does. Where it does not, the upload begins anew.
    fn ask_how_far(&mut self) -> Result<bool, RegistryError> {
        let Some(session) = &self.session else { return Ok(false) };
        let answer = self.target.ask(&Question::new(Method::GET, &session.place))?;
        let status = answer.status();
        if status == 429 || status >= 500 {
            return Err(self.target.refused(answer, "upload"));
        }
        let place = self.target.next(&answer)?.unwrap_or_else(|| session.place.clone());
        let session = Session { place, least: session.least };
        // `0-0` means one byte to the specification, and none to Docker's registry: only more than that is sure.
        match (status, has(&answer)) {
            (204, Some(sent)) if sent > 1 && sent <= self.blob.size => {
                (self.session, self.sent) = (Some(session), sent)
            }
            (204, None) => (self.session, self.sent) = (Some(session), 0),
            _ => {
                if status == 204 {
                    self.target.cancel(Some(&session));
                }
                (self.session, self.sent) = (None, 0);
            }
        }
        Ok(self.session.is_some())
    }
}

/// The bytes that an answer says the registry has: `Range: 0-LAST`.
fn has(answer: &Answer) -> Option<u64> {
    let range = answer.response.headers().get("range")?.to_str().ok()?;
    range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse::<u64>().ok()?.checked_add(1)
}
