//! Blobs, manifests, tags and referrers: what is there, what may be put there, and lists of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read},
    sync::{Arc, Mutex},
};

use memobuild_image::{Descriptor, media};
use memobuild_tree::Sha256Digest;
use serde_json::{Value, json};

use super::{
    Options, Shared, is_tag, lock,
    upload::Upload,
    wire::{Body, Request, Response},
};

#[derive(Default)]
pub(super) struct State {
    repositories: BTreeMap<String, Repository>,
    pub(super) blobs: HashMap<Sha256Digest, Arc<Vec<u8>>>,
    pub(super) uploads: HashMap<String, Arc<Mutex<Upload>>>,
    pub(super) opened: u64,
}

#[derive(Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeSet<Sha256Digest>,
    /// With their media types.
    manifests: BTreeMap<Sha256Digest, (String, Vec<u8>)>,
    tags: BTreeMap<String, Sha256Digest>,
}

impl State {
    pub(super) fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(name)
    }

    pub(super) fn repository_mut(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.into()).or_default()
    }
}

impl Repository {
    fn digest_of(&self, reference: &str) -> Option<Sha256Digest> {
        self.tags.get(reference).copied().or_else(|| reference.parse().ok())
    }

    /// Whether all that a manifest names is here, but for its subject.
    fn complete(&self, value: &Value, blobs: &HashMap<Sha256Digest, Arc<Vec<u8>>>) -> Result<(), Response> {
        let unknown = |what: &str| {
            Err(Response::error(404, "MANIFEST_BLOB_UNKNOWN", &format!("{what} is unknown to the registry")))
        };
        let read = |value: &Value| {
            serde_json::from_value::<Descriptor>(value.clone())
                .map_err(|e| Response::error(400, "MANIFEST_INVALID", &e.to_string()))
        };
        let list = |name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        for blob in list("layers").iter().chain(value.get("config")) {
            let blob = read(blob)?;
            match blobs.get(&blob.digest).filter(|_| self.blobs.contains(&blob.digest)) {
                None => return unknown(&blob.digest.to_string()),
                Some(bytes) if bytes.len() as u64 != blob.size => {
                    return Err(Response::error(400, "SIZE_INVALID", "a blob has another size than its descriptor"));
                }
                Some(_) => {}
            }
        }
        for manifest in list("manifests") {
            let manifest = read(&manifest)?;
            match self.manifests.get(&manifest.digest) {
                None => return unknown(&manifest.digest.to_string()),
                Some((kind, bytes)) if *kind != manifest.media_type || bytes.len() as u64 != manifest.size => {
                    return Err(Response::error(400, "MANIFEST_INVALID", "a manifest is not as its descriptor says"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn blob(&self, options: &Options, name: &str, digest: &str, request: &Request) -> Response {
        let Ok(digest) = digest.parse::<Sha256Digest>() else {
            return Response::error(400, "DIGEST_INVALID", "no sha256 digest");
        };
        let mut state = lock(&self.state);
        let bytes = state.blobs.get(&digest).cloned();
        let there = state.repository(name).is_some_and(|r| r.blobs.contains(&digest));
        let Some(bytes) = bytes.filter(|_| there) else {
            return Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        match request.method.as_str() {
            "DELETE" if options.delete => {
                state.repository_mut(name).blobs.remove(&digest);
                Response::new(202)
            }
            "GET" if options.redirect => {
                let place = format!("http://{}/{}?signature=x", self.storage, digest.hex());
                Response::new(307).with("location", place)
            }
            "GET" | "HEAD" => bytes_of(options, &digest, &bytes, request),
            _ => Response::error(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    /// What the other host answers, to which downloads are sent.
    pub(super) fn stored(&self, request: &Request) -> Response {
        // As the object stores have it: a signed address and an authorisation are one too many.
        if request.header("authorization").is_some() || request.parameter("signature") != Some("x") {
            return Response::new(400);
        }
        let digest = format!("sha256:{}", request.path.trim_start_matches('/')).parse::<Sha256Digest>();
        let bytes = digest.ok().and_then(|digest| Some((digest, lock(&self.state).blobs.get(&digest)?.clone())));
        match bytes {
            Some((digest, bytes)) => bytes_of(&self.options(), &digest, &bytes, request),
            None => Response::new(404),
        }
    }

    pub(super) fn manifest(
        &self,
        options: &Options,
        name: &str,
        reference: &str,
        request: &Request,
        body: &mut Body<'_>,
    ) -> io::Result<Response> {
        if reference.contains(':') && reference.parse::<Sha256Digest>().is_err() {
            return Ok(Response::error(400, "DIGEST_INVALID", "no sha256 digest"));
        }
        if !reference.contains(':') && !is_tag(reference) {
            return Ok(Response::error(400, "MANIFEST_INVALID", "neither tag nor digest"));
        }
        if request.method == "PUT" {
            let mut bytes = Vec::new();
            body.take(options.max_manifest as u64 + 1).read_to_end(&mut bytes)?;
            return Ok(self.put(options, name, reference, request, bytes));
        }
        let mut state = lock(&self.state);
        let unknown = || Ok(Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown to registry"));
        let Some(repository) = state.repositories.get_mut(name) else {
            return Ok(Response::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
        };
        let Some(digest) = repository.digest_of(reference) else { return unknown() };
        let Some((kind, bytes)) = repository.manifests.get(&digest) else { return unknown() };
        match request.method.as_str() {
            "DELETE" if options.delete => {
                if repository.tags.remove(reference).is_none() {
                    repository.manifests.remove(&digest);
                    repository.tags.retain(|_, of| *of != digest);
                }
                Ok(Response::new(202))
            }
            "GET" | "HEAD" => {
                let accepted = request.header("accept").unwrap_or("*/*");
                let accepted = accepted.split(',').filter_map(|a| a.split(';').next()).map(str::trim);
                if !accepted.into_iter().any(|a| a == "*/*" || a == kind) {
                    return Ok(Response::error(406, "MANIFEST_UNKNOWN", "not of a type that is accepted"));
                }
                let mut answer = Response::new(200).with("content-type", kind).with("docker-content-digest", digest);
                if options.conditions {
                    answer = answer.with("etag", format!("\"{digest}\""));
                }
                Ok(answer.holding(bytes.clone()))
            }
            _ => Ok(Response::error(405, "UNSUPPORTED", "the operation is unsupported")),
        }
    }

    fn put(&self, options: &Options, name: &str, reference: &str, request: &Request, bytes: Vec<u8>) -> Response {
        let invalid = |message: &str| Response::error(400, "MANIFEST_INVALID", message);
        if bytes.len() > options.max_manifest {
            return Response::error(413, "SIZE_INVALID", "the manifest is too large");
        }
        let kind = request.header("content-type").unwrap_or_default();
        if !media::is_manifest(kind) && !media::is_index(kind) {
            return invalid("unknown media type");
        }
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { return invalid("no JSON") };
        if value.get("mediaType").is_some_and(|own| own != kind) {
            return invalid("mediaType and Content-Type don't agree");
        }
        let fields: &[&str] = if media::is_index(kind) { &["manifests"] } else { &["config", "layers"] };
        if value["schemaVersion"] != 2 || !fields.iter().all(|field| value.get(field).is_some()) {
            return invalid("a field lacks");
        }
        let digest = Sha256Digest::of(&bytes);
        let tag = (!reference.contains(':')).then_some(reference);
        if tag.is_none() && digest.to_string() != reference {
            return Response::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let mut state = lock(&self.state);
        let State { repositories, blobs, .. } = &mut *state;
        let repository = repositories.entry(name.into()).or_default();
        if let Err(refusal) = repository.complete(&value, blobs) {
            return refusal;
        }
        let present = tag.and_then(|tag| repository.tags.get(tag)).map(|digest| format!("\"{digest}\""));
        let heeded = request.header("if-match").is_none_or(|tag| present.as_deref() == Some(tag))
            && request.header("if-none-match").is_none_or(|_| present.is_none());
        if options.conditions && !heeded {
            return Response::error(412, "DENIED", "another manifest has that tag");
        }
        if let Some(tag) = tag {
            if options.immutable_tags && repository.tags.get(tag).is_some_and(|old| *old != digest) {
                return Response::error(409, "DENIED", &format!("the tag {tag} is immutable"));
            }
            repository.tags.insert(tag.into(), digest);
        }
        repository.manifests.insert(digest, (kind.into(), bytes));
        let answer = Response::new(201)
            .with("location", format!("/v2/{name}/manifests/{digest}"))
            .with("docker-content-digest", digest);
        match value.get("subject").and_then(|s| s.get("digest")?.as_str()) {
            Some(subject) if options.referrers => answer.with("oci-subject", subject),
            _ => answer,
        }
    }

    pub(super) fn referrers(&self, options: &Options, name: &str, subject: &str, request: &Request) -> Response {
        if !options.referrers {
            return Response::new(404);
        }
        if subject.parse::<Sha256Digest>().is_err() {
            return Response::error(400, "DIGEST_INVALID", "no sha256 digest");
        }
        let state = lock(&self.state);
        let mut found = Vec::new();
        for (digest, (kind, bytes)) in state.repository(name).iter().flat_map(|r| &r.manifests) {
            let Ok(value) = serde_json::from_slice::<Value>(bytes) else { continue };
            if value.get("subject").and_then(|s| s.get("digest")?.as_str()) != Some(subject) {
                continue;
            }
            let own = value.get("artifactType").and_then(Value::as_str).filter(|t| !t.is_empty());
            let artifact = own.or_else(|| value.get("config")?.get("mediaType")?.as_str());
            let mut entry = json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()});
            if let Some(artifact) = artifact {
                entry["artifactType"] = artifact.into();
            }
            if let Some(annotations) = value.get("annotations") {
                entry["annotations"] = annotations.clone();
            }
            found.push(entry);
        }
        let wanted = request.parameter("artifactType").filter(|_| options.filter);
        found.retain(|entry| wanted.is_none_or(|wanted| entry["artifactType"] == wanted));
        let skipped: usize = request.parameter("skip").and_then(|s| s.parse().ok()).unwrap_or(0);
        let more = found.len() > skipped + options.page;
        let page: Vec<Value> = found.into_iter().skip(skipped).take(options.page).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": page});
        let mut answer = Response::new(200).with("content-type", media::INDEX).holding(index.to_string().into_bytes());
        if let Some(wanted) = wanted {
            answer = answer.with("oci-filters-applied", "artifactType");
            if more {
                let next = skipped + options.page;
                let kind = wanted.replace('+', "%2B");
                return answer.with("link", format!("<?skip={next}&artifactType={kind}>; rel=\"next\""));
            }
        }
        if more {
            return answer.with("link", format!("<?skip={}>; rel=\"next\"", skipped + options.page));
        }
        answer
    }

    pub(super) fn tags(&self, options: &Options, name: &str, request: &Request) -> Response {
        let state = lock(&self.state);
        let Some(repository) = state.repository(name) else {
            return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let wanted: usize = request.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let last = request.parameter("last").unwrap_or_default();
        let mut tags: Vec<&String> = repository.tags.keys().filter(|tag| tag.as_str() > last).collect();
        let count = wanted.min(options.page);
        let more = tags.len() > count && count > 0;
        tags.truncate(count);
        let answer = Response::json(200, &json!({"name": name, "tags": tags}));
        match tags.last().filter(|_| more) {
            Some(last) => answer.with("link", format!("</v2/{name}/tags/list?n={wanted}&last={last}>; rel=\"next\"")),
            None => answer,
        }
    }
}

fn bytes_of(options: &Options, digest: &Sha256Digest, bytes: &[u8], request: &Request) -> Response {
    let with_type = |status| {
        Response::new(status).with("content-type", "application/octet-stream").with("docker-content-digest", digest)
    };
    let range = request.header("range").and_then(|r| r.strip_prefix("bytes=")).filter(|_| options.ranges);
    let Some((start, end)) = range.and_then(|r| r.split_once('-')) else {
        return with_type(200).holding(bytes.to_vec());
    };
    let last = bytes.len().saturating_sub(1);
    let start = start.parse::<usize>().unwrap_or(usize::MAX);
    let end = end.parse::<usize>().unwrap_or(last).min(last);
    match bytes.get(start..=end).filter(|part| !part.is_empty()) {
        Some(part) => {
            with_type(206).with("content-range", format!("bytes {start}-{end}/{}", bytes.len())).holding(part.to_vec())
        }
        None => Response::new(416).with("content-range", format!("bytes */{}", bytes.len())),
    }
}
