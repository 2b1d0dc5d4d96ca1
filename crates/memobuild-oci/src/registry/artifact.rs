//! Manifests, blobs and lists of a repository, for those who keep more than images there (distribution-spec 1.1, "Push",
//! "Content Discovery", "Unavailable Referrers API").
//!
//! A manifest with a `subject` is found by its referrers: the registry lists them itself, or the client keeps an index
//! under a tag made of the subject's digest. Reading asks mirrors first, as everything that reads does.

use std::{collections::BTreeMap, fs::File, path::Path};

use memobuild_image::{Descriptor, Index, Manifest, json, media};
use memobuild_tree::Sha256Digest;
use serde::{Deserialize, de::DeserializeOwned};
use ureq::http::{HeaderMap, Method};

use super::{
    FetchedManifest, Pushed, Registries, RegistryError,
    client::{Target, lock},
    exchange::{Answer, Content, Payload, Question},
    pull::MAX_DOCUMENT,
};
use crate::reference::Reference;

/// The media type of the empty JSON object (image-spec 1.1, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Tags asked for at once.
const PAGE: usize = 1000;
/// Pages of a list that are read before it counts as endless.
const MAX_PAGES: usize = 10_000;
/// Attempts to add an entry to a referrers tag that others write at the same time.
const ROUNDS: usize = 20;

/// A manifest that names blobs and is no image (image-spec 1.1, "Guidelines for Artifact Usage").
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Artifact {
    /// What kind of thing it is, as a media type; must not be empty.
    pub artifact_type: String,
    /// The blobs, which must be in the repository; may be empty, which the empty descriptor then stands for.
    pub layers: Vec<Descriptor>,
    /// The manifest that this is about.
    pub subject: Option<Descriptor>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Registries {
    /// Whether the repository itself, no mirror of it, has a blob.
    pub fn has_blob(&self, at: &Reference, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let target = self.source(at);
        target.again(|| target.has_blob(digest))
    }

    /// Makes sure that a repository has these bytes as a blob, and describes it. It is asked for first.
    pub fn push_bytes(
        &self,
        to: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Descriptor, Pushed), RegistryError> {
        let blob = Descriptor::of(media_type, bytes);
        let pushed = self.push_content(to, &blob, &[], &|| Ok(Content::Bytes(bytes)), &|_, _| ())?;
        Ok((blob, pushed))
    }

    /// Makes sure that a repository has a file as a blob, whose digest and size the descriptor gives. It is asked for
    /// first, and the file is opened only if it must be sent.
    pub fn push_file(&self, to: &Reference, blob: &Descriptor, path: &Path) -> Result<Pushed, RegistryError> {
        let source = || File::open(path).map_err(|e| RegistryError::Source(format!("{}: {e}", path.display()).into()));
        self.push_blob(to, blob, &[], &source, &|_, _| ())
    }

    /// Puts a manifest or index under the reference's tag, or under its own digest where the reference has no tag, and
    /// describes it. All that it names must be in the repository. One with a `subject` can be found by
    /// [`Self::referrers`] afterwards, also on registries that don't list them.
    pub fn put_manifest(&self, to: &Reference, media_type: &str, bytes: &[u8]) -> Result<Descriptor, RegistryError> {
        let manifest = Descriptor::of(media_type, bytes);
        self.push_manifest(to, bytes, &manifest)?;
        Ok(manifest)
    }

    /// Puts an artifact under the reference's tag, or under its digest where the reference has no tag, and describes it
    /// as [`Self::referrers`] would.
    pub fn put_artifact(&self, to: &Reference, artifact: &Artifact) -> Result<Descriptor, RegistryError> {
        let (empty, _) = self.push_bytes(to, EMPTY, b"{}")?;
        let layers = if artifact.layers.is_empty() { vec![empty.clone()] } else { artifact.layers.clone() };
        let manifest = Manifest {
            artifact_type: Some(artifact.artifact_type.clone()),
            subject: artifact.subject.clone().map(Box::new),
            annotations: artifact.annotations.clone(),
            ..Manifest::new(empty, layers)
        };
        let bytes = json::compact(&manifest).map_err(|e| RegistryError::Source(e.into()))?;
        Ok(Descriptor {
            artifact_type: manifest.artifact_type,
            annotations: manifest.annotations,
            ..self.put_manifest(to, media::MANIFEST, &bytes)?
        })
    }

    /// The manifest or index that a reference names, as [`Self::manifest`]; `None` where there is none.
    pub fn find_manifest(&self, at: &Reference) -> Result<Option<FetchedManifest>, RegistryError> {
        match self.manifest(at) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The manifests of the repository that name one as their subject, all or those of one type. Asks the registry, or
    /// reads the index under the referrers tag where it keeps no such list.
    pub fn referrers(
        &self,
        at: &Reference,
        subject: &Sha256Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found = self.each(at, |target| match target.listed_referrers(subject, artifact_type)? {
            Some(listed) => Ok(listed),
            None => Ok(target.tagged_referrers(subject)?.map(|(index, _)| index.manifests).unwrap_or_default()),
        })?;
        // A registry may filter; it need not.
        found.retain(|d| artifact_type.is_none_or(|wanted| d.artifact_type.as_deref() == Some(wanted)));
        Ok(found)
    }

    /// All tags of a repository, in the registry's order. A repository that does not exist is
    /// [`RegistryError::NotFound`].
    pub fn tags(&self, at: &Reference) -> Result<Vec<String>, RegistryError> {
        self.each(at, |target| target.tags())
    }

    /// A blob's bytes, verified, without the store: for small ones. More than `limit` bytes are refused unread.
    pub fn read_blob(&self, at: &Reference, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        self.each(at, |target| target.again(|| target.read_blob(blob, limit)))
    }
}

/// What of a manifest or index a list of referrers tells.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Target<'_> {
    /// Puts a manifest under a tag or digest; without a list of referrers its subject's tag is kept here.
    pub(super) fn put_manifest(&self, name: &str, bytes: &[u8], manifest: &Descriptor) -> Result<(), RegistryError> {
        let listed = self.again(|| self.put_manifest_once(name, bytes, &manifest.media_type, None))?;
        // Documents without a subject, which are nearly all, need not be looked at any closer.
        let Ok(Referrer { artifact_type, config, subject: Some(subject), annotations }) = serde_json::from_slice(bytes)
        else {
            return Ok(());
        };
        if listed {
            return Ok(());
        }
        let artifact_type = artifact_type.filter(|t| !t.is_empty()).or(config.map(|c| c.media_type));
        self.add_referrer(
            &subject.digest,
            Descriptor { artifact_type, annotations: annotations.unwrap_or_default(), ..manifest.clone() },
        )
    }

    /// Whether the registry said that it has taken note of the subject. It must have stored the bytes as they are.
    fn put_manifest_once(
        &self,
        name: &str,
        bytes: &[u8],
        media_type: &str,
        condition: Option<(&str, &str)>,
    ) -> Result<bool, RegistryError> {
        let path = format!("manifests/{name}");
        let headers: Vec<_> = [("content-type", media_type)].into_iter().chain(condition).collect();
        let payload = Payload::Bytes(bytes);
        let answer = self.ask(&Question { headers: &headers, payload, ..Question::new(Method::PUT, &path) })?;
        match answer.status() {
            201 => {
                let headers = answer.response.headers();
                self.same_digest(headers, Sha256Digest::of(bytes), bytes.len())?;
                Ok(headers.contains_key("oci-subject"))
            }
            _ => Err(self.refused(answer, name)),
        }
    }

    /// Holds what was put or got against the digest that the registry says it has; it may use another algorithm.
    pub(super) fn same_digest(
        &self,
        headers: &HeaderMap,
        actual: Sha256Digest,
        size: usize,
    ) -> Result<(), RegistryError> {
        let said = headers.get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse::<Sha256Digest>().ok());
        match said.filter(|expected| *expected != actual) {
            None => Ok(()),
            Some(expected) => Err(RegistryError::DigestMismatch {
                registry: self.registry.into(),
                repository: self.repository.to_string(),
                expected,
                actual,
                size: size as u64,
            }),
        }
    }

    /// Adds an entry to the referrers tag. Others may do so at the same time: within this process they wait, and those
    /// elsewhere are found out by the registries that heed conditions. Else what was overwritten is added again, as far
    /// as that can be seen; the specification has no better way.
    fn add_referrer(&self, subject: &Sha256Digest, entry: Descriptor) -> Result<(), RegistryError> {
        let _one = lock(&self.inner.referrers);
        let tag = referrers_tag(subject);
        for _ in 0..ROUNDS {
            let found = self.tagged_referrers(subject)?;
            let (mut index, etag) = found.unwrap_or_else(|| (Index::new(Vec::new()), None));
            if index.manifests.iter().any(|known| known.digest == entry.digest) {
                return Ok(());
            }
            let etag = etag.filter(|etag| !etag.starts_with("W/"));
            let condition = match &etag {
                Some(etag) => Some(("if-match", etag.as_str())),
                None if index.manifests.is_empty() => Some(("if-none-match", "*")),
                None => None,
            };
            index.manifests.push(entry.clone());
            let bytes = json::compact(&index).map_err(|e| RegistryError::Source(e.into()))?;
            match self.again(|| self.put_manifest_once(&tag, &bytes, media::INDEX, condition)) {
                Ok(_) | Err(RegistryError::Status { status: 412, .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(self.protocol(format!("the list of what refers to {subject} loses what is added to it")))
    }

    /// The index under the referrers tag, if there is one. Anything else under that tag is an error, which keeps it from
    /// being overwritten.
    fn tagged_referrers(&self, subject: &Sha256Digest) -> Result<Option<(Index, Option<String>)>, RegistryError> {
        let tag = referrers_tag(subject);
        match self.again(|| self.manifest_once(&tag, None)) {
            Ok((found, etag)) if found.media_type == media::INDEX => match serde_json::from_slice(&found.bytes) {
                Ok(index) => Ok(Some((index, etag))),
                Err(e) => Err(self.protocol(format!("the index under the tag {tag} can't be read: {e}"))),
            },
            Ok((found, _)) => {
                Err(self.protocol(format!("the tag {tag} should be an index, and is {}", found.media_type)))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What the registry lists; `None` where it keeps no list.
    fn listed_referrers(
        &self,
        subject: &Sha256Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let filter = artifact_type.map(|t| format!("?artifactType={}", encode(t))).unwrap_or_default();
        let mut path = format!("referrers/{subject}{filter}");
        let mut out = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.again(|| {
                let headers = [("accept", media::INDEX)];
                let question = Question { headers: &headers, ..Question::new(Method::GET, &path) };
                let mut answer = self.ask(&question)?;
                let index = content_type(answer.response.headers()) == media::INDEX;
                match answer.status() {
                    200 if index => {
                        let next = self.next_page(&answer)?;
                        Ok(Some((self.document::<Index>(&mut answer.response, &path)?, next)))
                    }
                    // What registries say to a path that they don't know.
                    200 | 400 | 404 | 405 | 406 | 501 => Ok(None),
                    _ => Err(self.refused(answer, &format!("what refers to {subject}"))),
                }
            })?;
            let Some((page, next)) = answer else { return Ok(None) };
            out.extend(page.manifests);
            match next {
                Some(next) => path = next,
                None => return Ok(Some(out)),
            }
        }
        Err(self.protocol(format!("the list of what refers to {subject} does not end")))
    }

    fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut path = format!("tags/list?n={PAGE}");
        let mut out: Vec<String> = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next) = self.again(|| {
                let mut answer = self.ask(&Question::new(Method::GET, &path))?;
                if answer.status() != 200 {
                    return Err(self.refused(answer, "the list of tags"));
                }
                let next = self.next_page(&answer)?;
                Ok((self.document::<Tags>(&mut answer.response, &path)?.tags.unwrap_or_default(), next))
            })?;
            let full = page.len() >= PAGE;
            let last = page.last().filter(|last| out.last() != Some(*last)).cloned();
            out.extend(page);
            path = match (next, last) {
                (Some(next), _) => next,
                // Before 1.1 the header was not asked of registries.
                (None, Some(last)) if full => format!("tags/list?n={PAGE}&last={}", encode(&last)),
                _ => return Ok(out),
            };
        }
        Err(self.protocol("the list of tags does not end".into()))
    }

    fn read_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let digest = blob.digest.to_string();
        let too_large = || self.protocol(format!("{digest} is larger than {limit} bytes"));
        if blob.size > limit {
            return Err(too_large());
        }
        let mut response = self.get(&format!("blobs/{digest}"), &[("accept-encoding", "identity")], &digest)?;
        let bytes = self.read(&mut response, limit)?.ok_or_else(too_large)?;
        self.verify(blob.digest, &bytes)?;
        Ok(bytes)
    }

    /// Where a list goes on.
    fn next_page(&self, answer: &Answer) -> Result<Option<String>, RegistryError> {
        let links = answer.response.headers().get_all("link").iter();
        let next = links.filter_map(|v| v.to_str().ok()).find_map(next_link);
        next.map(|next| self.place(answer, &next)).transpose()
    }

    fn document<T: DeserializeOwned>(
        &self,
        response: &mut ureq::http::Response<ureq::Body>,
        path: &str,
    ) -> Result<T, RegistryError> {
        let bytes = self.read(response, MAX_DOCUMENT)?;
        let bytes = bytes.ok_or_else(|| self.protocol(format!("the answer to {path} is over 8 MiB")))?;
        serde_json::from_slice(&bytes).map_err(|e| self.protocol(format!("the answer to {path} can't be read: {e}")))
    }
}

/// The media type that an answer declares, without parameters.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The tag that lists what refers to a manifest (distribution-spec, "Referrers Tag Schema").
fn referrers_tag(subject: &Sha256Digest) -> String {
    subject.to_string().replacen(':', "-", 1)
}

/// The address with the relation `next` in a `Link` header (RFC 8288).
fn next_link(mut text: &str) -> Option<String> {
    while let Some((_, rest)) = text.split_once('<') {
        let (address, rest) = rest.split_once('>')?;
        let end = rest.find('<').unwrap_or(rest.len());
        let (parameters, more) = rest.split_at(end);
        let next = parameters.split([';', ',']).any(|p| {
            let (name, value) = p.split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if next {
            return Some(address.to_owned());
        }
        text = more;
    }
    None
}

/// A value as it stands in a query (RFC 3986, all but the unreserved characters).
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        let next = |text| next_link(text);
        assert_eq!(next(r#"</v2/a/tags/list?n=1&last=b>; rel="next""#).as_deref(), Some("/v2/a/tags/list?n=1&last=b"));
        assert_eq!(next("<a>; rel=prev, <b,c>;title=x; rel=NEXT").as_deref(), Some("b,c"));
        assert_eq!(next("<a>; rel=prev"), None);
        assert_eq!(next("a; rel=next"), None);
        assert_eq!(next("<a"), None);
    }

    #[test]
    fn values_in_queries() {
        assert_eq!(encode("application/vnd.a.b+json"), "application%2Fvnd.a.b%2Bjson");
        assert!(referrers_tag(&Sha256Digest::of(b"")).starts_with("sha256-e3b0c442"));
    }
}
