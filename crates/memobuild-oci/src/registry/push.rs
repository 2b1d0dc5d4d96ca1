//! Manifests and blobs to a registry (distribution-spec 1.1, "Push").
//!
//! A blob is asked for before it is sent, and taken over from another repository where the registry can do that. Small
//! ones go in one request; large ones in parts, and after a broken connection the registry is asked how much it has.

use std::fs::File;

use memobuild_image::Descriptor;
use memobuild_tree::Sha256Digest;
use ureq::http::Method;

use super::{
    Registries, RegistryError,
    client::{Answer, Content, Payload, Question, Target},
    retry::Backoff,
};
use crate::reference::Reference;

/// Blobs of at most so many bytes are sent in one request.
const WHOLE: u64 = 4 << 20;
/// Bytes of a part of a larger one: what is lost when a connection breaks.
const PART: u64 = 32 << 20;

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
    /// `source` is asked for the bytes only if they must be sent. `progress` is told how many were.
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
        if target.again(|| target.has_blob(&blob.digest))? {
            return Ok(Pushed::Present);
        }
        for repository in from {
            let path = format!("blobs/uploads/?mount={}&from={repository}", blob.digest);
            let answer = target.again(|| target.post(&path))?;
            match answer.response.status().as_u16() {
                201 => return Ok(Pushed::Mounted),
                // It opens an upload instead, which is as good as any.
                202 => {
                    let place = target.place(&answer)?;
                    target.send_blob(blob, Some(place), source, progress)?;
                    return Ok(Pushed::Sent);
                }
                // Who may not read there may still write here.
                _ => {}
            }
        }
        target.send_blob(blob, None, source, progress)?;
        Ok(Pushed::Sent)
    }

    /// Puts a manifest or index under the reference's tag, or under its own digest where the reference has no tag.
    pub fn push_manifest(&self, to: &Reference, bytes: &[u8], manifest: &Descriptor) -> Result<(), RegistryError> {
        let target = self.target(to);
        let name = to.tag.clone().unwrap_or_else(|| manifest.digest.to_string());
        target.put_manifest(&name, bytes, manifest)
    }
}

impl Target<'_> {
    pub(super) fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let path = format!("blobs/{digest}");
        let question = Question { method: Method::HEAD, path: &path, headers: &[], payload: Payload::None };
        let answer = self.ask(&question)?;
        match answer.response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            // Some registries let nobody look who may only write; the upload will tell.
            401 | 403 => Ok(false),
            _ => Err(self.refused(answer, &digest.to_string())),
        }
    }

    fn post(&self, path: &str) -> Result<Answer, RegistryError> {
        let answer = self.ask(&Question { method: Method::POST, path, headers: &[], payload: Payload::Bytes(&[]) })?;
        match answer.response.status().as_u16() {
            429 | 500.. => Err(self.refused(answer, path)),
            _ => Ok(answer),
        }
    }

    /// Where an upload goes on.
    fn place(&self, answer: &Answer) -> Result<String, RegistryError> {
        let place = answer.response.headers().get("location").and_then(|v| v.to_str().ok());
        let place = place.ok_or_else(|| self.protocol("the registry does not say where to upload to".into()))?;
        self.own_path(place)
    }

    fn begin(&self, blob: &Descriptor) -> Result<String, RegistryError> {
        let answer = self.post("blobs/uploads/")?;
        match answer.response.status().as_u16() {
            202 => self.place(&answer),
            _ => Err(self.refused(answer, &blob.digest.to_string())),
        }
    }

    fn send_blob<'b>(
        &self,
        blob: &Descriptor,
        place: Option<String>,
        source: &(dyn Fn() -> Result<Content<'b>, RegistryError> + Sync),
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        let content = source()?;
        let told = |done| progress(done, Some(blob.size));
        let mut upload =
            Upload { target: self, blob, content: &content, progress: &told, place, sent: 0, unsure: false };
        let (mut backoff, mut farthest) = (Backoff::default(), 0);
        loop {
            let result = upload.step();
            if upload.sent > farthest {
                farthest = upload.sent;
                backoff.progress();
            }
            match result {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) if e.is_transient() && !(farthest == 0 && e.is_refusal()) && backoff.again(e.wish()) => {
                    tracing::debug!("{}: going on with the upload: {e}", blob.digest);
                    upload.unsure = true;
                }
                Err(e) => return Err(e),
            }
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
    place: Option<String>,
    /// Bytes that the registry has.
    sent: u64,
    /// Whether a connection broke, so that only the registry knows how many it has.
    unsure: bool,
}

impl Upload<'_> {
    /// The next request; whether it was the last.
    fn step(&mut self) -> Result<bool, RegistryError> {
        if self.unsure {
            // Its last answer may be what was lost.
            if self.target.has_blob(&self.blob.digest)? {
                return Ok(true);
            }
            self.ask_how_far()?;
            self.unsure = false;
        }
        let place = match &self.place {
            Some(place) => place.clone(),
            None => {
                self.sent = 0;
                self.place.insert(self.target.begin(self.blob)?).clone()
            }
        };
        let left = self.blob.size.saturating_sub(self.sent);
        if left > 0 && (self.sent > 0 || left > WHOLE) {
            return self.part(&place, left.min(PART)).map(|()| false);
        }
        let joint = if place.contains('?') { '&' } else { '?' };
        let path = format!("{place}{joint}digest={}", self.blob.digest.to_string().replace(':', "%3A"));
        let payload = Payload::Part { content: self.content, offset: self.sent, length: left, progress: self.progress };
        let headers = [("content-type", "application/octet-stream")];
        let answer = self.target.ask(&Question { method: Method::PUT, path: &path, headers: &headers, payload })?;
        match answer.response.status().as_u16() {
            201 => Ok(true),
            _ => Err(self.target.refused(answer, &self.blob.digest.to_string())),
        }
    }

    fn part(&mut self, place: &str, length: u64) -> Result<(), RegistryError> {
        let range = format!("{}-{}", self.sent, self.sent + length - 1);
        let headers = [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
        let payload = Payload::Part { content: self.content, offset: self.sent, length, progress: self.progress };
        let answer = self.target.ask(&Question { method: Method::PATCH, path: place, headers: &headers, payload })?;
        match answer.response.status().as_u16() {
            202 => {
                self.place = Some(self.target.place(&answer)?);
                self.sent += length;
                Ok(())
            }
            _ => Err(self.target.refused(answer, &self.blob.digest.to_string())),
        }
    }

    /// How many bytes the registry has. Where it does not say, the upload begins anew.
    fn ask_how_far(&mut self) -> Result<(), RegistryError> {
        let Some(place) = &self.place else { return Ok(()) };
        let answer =
            self.target.ask(&Question { method: Method::GET, path: place, headers: &[], payload: Payload::None })?;
        let status = answer.response.status().as_u16();
        if status == 429 || status >= 500 {
            return Err(self.target.refused(answer, "upload"));
        }
        let range = answer.response.headers().get("range").and_then(|v| v.to_str().ok());
        let last = range.and_then(|r| r.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok());
        // `0-0` means one byte to the specification, and none to Docker's registry: only more than that is sure.
        let sent = last.filter(|last| *last > 0).map(|last| last + 1).filter(|sent| *sent <= self.blob.size);
        (self.place, self.sent) = match (status, sent, self.target.place(&answer)) {
            (204, Some(sent), Ok(next)) => (Some(next), sent),
            _ => (None, 0),
        };
        Ok(())
    }
}
