//! Uploads: in one request, in parts, and those that go on after a broken connection, for what has arrived is kept.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex},
};

use memobuild_tree::Sha256Digest;

use super::{
    Options, Place, Shared, lock,
    wire::{Body, Request, Response},
};

pub(super) struct Upload {
    repository: String,
    bytes: Vec<u8>,
    /// How often its place has changed.
    turn: u64,
    /// Whether a part was shorter than the least, so that it must have been the last.
    last_seen: bool,
}

impl Upload {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Shared {
    pub(super) fn upload(
        &self,
        options: &Options,
        name: &str,
        id: &str,
        request: &Request,
        body: &mut Body<'_>,
    ) -> io::Result<Response> {
        if id.is_empty() {
            return match request.method.as_str() {
                "POST" => self.open(options, name, request, body),
                _ => Ok(Response::error(405, "UNSUPPORTED", "uploads are opened by POST")),
            };
        }
        let unknown = || Response::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        let Some(upload) = lock(&self.state).uploads.get(id).cloned() else { return Ok(unknown()) };
        // Whoever else is at it is waited for: a broken connection ends soon.
        let mut upload = lock(&upload);
        if upload.repository != name {
            return Ok(unknown());
        }
        if options.place == Place::Relative && request.parameter("key") != Some("a b&c") {
            return Ok(Response::error(400, "BLOB_UPLOAD_INVALID", "the query is not the one that was given"));
        }
        let turn = request.parameter("turn").and_then(|t| t.parse().ok()).unwrap_or(0);
        match request.method.as_str() {
            // Any place that was ever given will do.
            "GET" => Ok(self.going_on(options, name, id, &upload, 204)),
            "DELETE" => {
                lock(&self.state).uploads.remove(id);
                Ok(Response::new(204))
            }
            "PATCH" | "PUT" if turn != upload.turn => Ok(unknown()),
            "PATCH" => {
                let before = upload.bytes.len();
                if let Err(refusal) = self.append(options, name, id, &mut upload, request, body)? {
                    return Ok(refusal);
                }
                upload.last_seen |= ((upload.bytes.len() - before) as u64) < options.min_chunk;
                if options.place != Place::Path {
                    upload.turn += 1;
                }
                Ok(self.going_on(options, name, id, &upload, 202))
            }
            "PUT" => {
                if !body.has_ended() {
                    let before = upload.bytes.len();
                    let appended = self.append(options, name, id, &mut upload, request, body);
                    if appended.is_err() && !options.keeps_cut_puts {
                        upload.bytes.truncate(before);
                    }
                    if let Err(refusal) = appended? {
                        return Ok(refusal);
                    }
                }
                lock(&self.state).uploads.remove(id);
                Ok(self.close(name, request.parameter("digest").unwrap_or_default(), std::mem::take(&mut upload.bytes)))
            }
            _ => Ok(Response::error(405, "UNSUPPORTED", "the operation is unsupported")),
        }
    }

    fn open(&self, options: &Options, name: &str, request: &Request, body: &mut Body<'_>) -> io::Result<Response> {
        if body.declared.is_none() || request.header("content-length").is_none() {
            return Ok(Response::error(411, "SIZE_INVALID", "no Content-Length"));
        }
        if let Some(digest) = request.parameter("digest") {
            if request.header("content-type") != Some("application/octet-stream") {
                return Ok(Response::error(400, "BLOB_UPLOAD_INVALID", "no octet stream"));
            }
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            return Ok(self.close(name, digest, bytes));
        }
        if !body.has_ended() {
            return Ok(Response::error(400, "BLOB_UPLOAD_INVALID", "an upload is opened without a body"));
        }
        if request.parameter("digest-algorithm").is_some_and(|a| a != "sha256") {
            return Ok(Response::error(400, "UNSUPPORTED", "unsupported digest algorithm"));
        }
        if let Some(digest) = request.parameter("mount") {
            let Ok(digest) = digest.parse::<Sha256Digest>() else {
                return Ok(Response::error(400, "DIGEST_INVALID", "no sha256 digest"));
            };
            let mut state = lock(&self.state);
            let there = match request.parameter("from") {
                Some(from) => options.mount && state.repository(from).is_some_and(|r| r.blobs.contains(&digest)),
                None => options.mount_from_anywhere && state.blobs.contains_key(&digest),
            };
            if there {
                state.repository_mut(name).blobs.insert(digest);
                return Ok(self.created(name, &digest));
            }
        }
        let mut state = lock(&self.state);
        state.opened += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", state.opened);
        let upload = Upload { repository: name.into(), bytes: Vec::new(), turn: 0, last_seen: false };
        let answer = self.going_on(options, name, &id, &upload, 202);
        state.uploads.insert(id, Arc::new(Mutex::new(upload)));
        Ok(if options.min_chunk > 0 { answer.with("oci-chunk-min-length", options.min_chunk) } else { answer })
    }

    /// Takes a part, and keeps what arrives of it. The outer error is a broken connection.
    fn append(
        &self,
        options: &Options,
        name: &str,
        id: &str,
        upload: &mut Upload,
        request: &Request,
        body: &mut Body<'_>,
    ) -> io::Result<Result<(), Response>> {
        let invalid = |code, message: &str| Ok(Err(Response::error(400, code, message)));
        if request.header("content-type") != Some("application/octet-stream") {
            return invalid("BLOB_UPLOAD_INVALID", "no octet stream");
        }
        if body.declared.is_some_and(|length| length > options.max_request) {
            return Ok(Err(Response::error(413, "SIZE_INVALID", "the request is too long")));
        }
        let whole = request.method == "PUT" && upload.bytes.is_empty();
        let length = match request.header("content-range") {
            None if whole => body.declared,
            None => return invalid("BLOB_UPLOAD_INVALID", "no Content-Range"),
            Some(range) => {
                let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
                let Some((Some(start), Some(end))) = range.split_once('-').map(|(s, e)| (number(s), number(e))) else {
                    return invalid("BLOB_UPLOAD_INVALID", "Content-Range is not <start>-<end>");
                };
                if start != upload.bytes.len() as u64 {
                    return Ok(Err(self.going_on(options, name, id, upload, 416)));
                }
                if end < start || body.declared.is_some_and(|d| d != end - start + 1) {
                    return invalid("SIZE_INVALID", "Content-Range and Content-Length don't agree");
                }
                Some(end - start + 1)
            }
        };
        if upload.last_seen {
            return invalid("BLOB_UPLOAD_INVALID", "a part before this one is shorter than OCI-Chunk-Min-Length");
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut taken = 0;
        loop {
            let count = body.read(&mut buffer)?;
            taken += count as u64;
            if length.is_some_and(|length| taken > length || count == 0 && taken < length) {
                return invalid("SIZE_INVALID", "the body is not as long as Content-Range says");
            }
            if count == 0 {
                return Ok(Ok(()));
            }
            upload.bytes.extend_from_slice(&buffer[..count]);
        }
    }

    fn going_on(&self, options: &Options, name: &str, id: &str, upload: &Upload, status: u16) -> Response {
        let turn = upload.turn;
        let place = match options.place {
            Place::Path => format!("/v2/{name}/blobs/uploads/{id}"),
            Place::Absolute => format!("http://{}/v2/{name}/blobs/uploads/{id}?turn={turn}", self.host),
            Place::Relative => format!("{id}?turn={turn}&key=a+b%26c"),
        };
        let answer = Response::new(status).with("location", place);
        match upload.bytes.len() {
            0 => answer,
            length => answer.with("range", format!("0-{}", length - 1)),
        }
    }

    fn close(&self, name: &str, digest: &str, bytes: Vec<u8>) -> Response {
        let Ok(expected) = digest.parse::<Sha256Digest>() else {
            return Response::error(400, "DIGEST_INVALID", "no sha256 digest");
        };
        if Sha256Digest::of(&bytes) != expected {
            return Response::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let mut state = lock(&self.state);
        state.blobs.insert(expected, Arc::new(bytes));
        state.repository_mut(name).blobs.insert(expected);
        self.created(name, &expected)
    }

    fn created(&self, name: &str, digest: &Sha256Digest) -> Response {
        let place = format!("/v2/{name}/blobs/{digest}");
        Response::new(201).with("location", place).with("docker-content-digest", digest)
    }
}
