//! `HEAD|GET|PUT /cache/{blake3}` and `/cache/layer/{sha256}`.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use memobuild_tree::Sha256Digest;

use super::{
    Answer, App,
    conditions::{Range, accepts_zstd, has_it, range, text},
    named,
    schemas::{ErrorBody, Stored},
};
use crate::{
    BlobId, IdError,
    body::BlobBody,
    metrics::add,
    receive::Sink,
    reply::{self, ApiError, blocking},
    storage::{AtOnce, CheckedWriter, Committed, StorageError},
};

/// A path's last part, or why it is none.
type Name = Result<Path<String>, PathRejection>;

/// The route of blobs by BLAKE3, as metrics name it.
pub(crate) const ROUTE: &str = "/cache/{digest}";

/// The longest blob that is answered on the thread that has the connection, in bytes, where the storage has it at hand.
const AT_ONCE: u64 = 64 << 10;

/// The level at which answers are packed: they are made while the client waits.
const ZSTD_LEVEL: i32 = 1;

fn content(name: Name) -> Result<BlobId, ApiError> {
    // A digest with a prefix names a layer, which has a route of its own.
    named(name, |text| match text.parse()? {
        id @ BlobId::Content(_) => Ok(id),
        BlobId::Layer(_) => Err(IdError::Blob(text.to_owned())),
    })
}

/// With or without `sha256:`.
fn layer(name: Name) -> Result<BlobId, ApiError> {
    named(name, |text| {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        Sha256Digest::from_hex(hex).map(BlobId::Layer).map_err(|_| IdError::Blob(text.chars().take(100).collect()))
    })
}

/// The handlers of one kind of blobs. Kinds differ in their routes and in how a digest is written.
macro_rules! handlers {
    ($kind:ident, $path:tt, $digest:tt, $pattern:tt;
     $head:ident $head_id:tt $head_doc:tt; $get:ident $get_id:tt $get_doc:tt; $put:ident $put_id:tt $put_doc:tt) => {
        #[doc = $head_doc]
        #[utoipa::path(head, path = $path, tag = "blobs", operation_id = $head_id,
            params(("digest" = String, Path, description = $digest, pattern = $pattern)),
            responses(
                (status = 200, description = "It is there", headers(
                    ("ETag" = String, description = "The digest in quotes"),
                    ("Content-Length" = u64, description = "Bytes of the blob"))),
                (status = 304, description = "The client has it"),
                (status = 404, description = "It is not there")))]
        pub(super) async fn $head(State(app): State<Arc<App>>, name: Name, headers: HeaderMap) -> Answer {
            answer_head(&app, $kind(name)?, &headers).await
        }

        #[doc = $get_doc]
        #[utoipa::path(get, path = $path, tag = "blobs", operation_id = $get_id,
            params(("digest" = String, Path, description = $digest, pattern = $pattern),
                ("Range" = Option<String>, Header, description = "One range of bytes"),
                ("If-Range" = Option<String>, Header, description = "The tag for which the range is meant"),
                ("If-None-Match" = Option<String>, Header, description = "Tags of what the client has"),
                ("Accept-Encoding" = Option<String>, Header, description = "zstd packs the body")),
            responses(
                (status = 200, description = "Its bytes", content_type = "application/octet-stream", body = Vec<u8>,
                    headers(("ETag" = String, description = "The digest in quotes; with -zstd in them for a packed body"))),
                (status = 206, description = "The range", content_type = "application/octet-stream", body = Vec<u8>,
                    headers(("Content-Range" = String, description = "Which bytes, of how many"))),
                (status = 304, description = "The client has it"),
                (status = 404, description = "It is not there", body = ErrorBody),
                (status = 416, description = "There are no such bytes", body = ErrorBody)))]
        pub(super) async fn $get(State(app): State<Arc<App>>, name: Name, headers: HeaderMap) -> Answer {
            answer_get(&app, $kind(name)?, &headers).await
        }

        #[doc = $put_doc]
        #[utoipa::path(put, path = $path, tag = "blobs", operation_id = $put_id,
            params(("digest" = String, Path, description = $digest, pattern = $pattern)),
            request_body(content = Vec<u8>, content_type = "application/octet-stream",
                description = "The bytes; chunked or not; packed with Content-Encoding: zstd"),
            responses(
                (status = 200, description = "It was there", body = Stored),
                (status = 201, description = "It is there now, on disk", body = Stored),
                (status = 400, description = "The digest is another's, or the body ended early", body = ErrorBody),
                (status = 408, description = "The body comes too slowly", body = ErrorBody),
                (status = 413, description = "The body is too long", body = ErrorBody),
                (status = 415, description = "Encoded with something other than zstd", body = ErrorBody),
                (status = 507, description = "There is no room", body = ErrorBody)))]
        pub(super) async fn $put(State(app): State<Arc<App>>, name: Name, request: Request) -> Answer {
            receive(app, $kind(name)?, request).await
        }
    };
}

handlers!(content, "/cache/{digest}", "64 lower-case hexadecimal digits of BLAKE3", "^[0-9a-f]{64}$";
    head "head_blob" "Whether a blob is there"; get "get_blob" "The bytes of a blob"; put "put_blob" "Stores a blob");

handlers!(layer, "/cache/layer/{digest}", "64 lower-case hexadecimal digits of SHA-256, with or without sha256:",
    "^(sha256:)?[0-9a-f]{64}$";
    head_layer "head_layer" "Whether a layer is there"; get_layer "get_layer" "The bytes of a layer";
    put_layer "put_layer" "Stores a layer");

pub(crate) async fn answer_head(app: &Arc<App>, id: BlobId, headers: &HeaderMap) -> Answer {
    let size = match app.storage.blob_at_once(id, 0) {
        AtOnce::Size(size) => Some(size),
        AtOnce::Absent => None,
        AtOnce::Whole(bytes) => Some(bytes.len() as u64),
        AtOnce::Unknown => {
            let storage = app.storage.clone();
            blocking(move || storage.blob_size(id)).await?
        }
    };
    app.metrics.looked_up(false, size.is_some());
    let size = size.ok_or_else(|| ApiError::not_found("blob"))?;
    let tags = Tags::new(id);
    let mut response = Response::new(Body::empty());
    Tags::describe(&mut response, &tags.plain);
    if tags.known_to(headers) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    Ok(response)
}

pub(crate) async fn answer_get(app: &Arc<App>, id: BlobId, headers: &HeaderMap) -> Answer {
    // Packing takes its time, and parts and conditions are rare.
    let plain =
        !accepts_zstd(headers) && !headers.contains_key(header::IF_NONE_MATCH) && !headers.contains_key(header::RANGE);
    let response = match if plain { app.storage.blob_at_once(id, AT_ONCE) } else { AtOnce::Unknown } {
        AtOnce::Whole(bytes) => Some(whole(app, id, bytes)),
        AtOnce::Absent => None,
        AtOnce::Size(_) | AtOnce::Unknown => {
            let (shared, headers) = (app.clone(), headers.clone());
            blocking(move || read(&shared, id, &headers)).await?
        }
    };
    app.metrics.looked_up(false, response.is_some());
    response.ok_or_else(|| ApiError::not_found("blob"))
}

fn whole(app: &App, id: BlobId, bytes: Bytes) -> Response<Body> {
    let tags = Tags::new(id);
    add(&app.metrics.sent_bytes, bytes.len() as u64);
    let mut response = Response::new(Body::from(bytes));
    Tags::describe(&mut response, &tags.plain);
    response
}

/// The answer to a GET, with the first piece of its body; `None` if there is no such blob.
fn read(app: &App, id: BlobId, headers: &HeaderMap) -> Result<Option<Response<Body>>, ApiError> {
    let tags = Tags::new(id);
    let mut response = Response::new(Body::empty());
    Tags::describe(&mut response, &tags.plain);
    if headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::RANGE) {
        let Some(size) = app.storage.blob_size(id)? else { return Ok(None) };
        if tags.known_to(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(Some(response));
        }
        match range(headers, &tags.plain, size) {
            Range::Whole => {}
            Range::Unsatisfiable => {
                let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "no such bytes");
                return Err(with_content_range(error.with("size", size), format!("bytes */{size}")));
            }
            Range::Part(first, last) => {
                let Some(blob) = app.storage.blob_read(id, first)? else { return Ok(None) };
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let value = header_value(&format!("bytes {first}-{last}/{size}"));
                response.headers_mut().insert(header::CONTENT_RANGE, value);
                *response.body_mut() = body(app, blob.content, Some(last - first + 1))?;
                return Ok(Some(response));
            }
        }
    }
    let Some(blob) = app.storage.blob_read(id, 0)? else { return Ok(None) };
    if accepts_zstd(headers) {
        let failed = |source| StorageError::Io { what: "pack a blob".into(), source };
        let packed = zstd::stream::read::Encoder::new(blob.content, ZSTD_LEVEL).map_err(failed)?;
        Tags::describe(&mut response, &tags.zstd());
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        *response.body_mut() = body(app, Box::new(packed), None)?;
    } else {
        *response.body_mut() = body(app, blob.content, Some(blob.size))?;
    }
    Ok(Some(response))
}

fn body(app: &App, source: Box<dyn std::io::Read + Send>, length: Option<u64>) -> Result<Body, ApiError> {
    // A storage's own error is inside.
    let failed = |source: std::io::Error| match source.downcast::<StorageError>() {
        Ok(error) => error,
        Err(source) => StorageError::Io { what: "read a blob".into(), source },
    };
    Ok(Body::new(BlobBody::start(source, length, app.metrics.clone()).map_err(failed)?))
}

pub(super) async fn receive(app: Arc<App>, id: BlobId, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let zstd = match text(&parts.headers, header::CONTENT_ENCODING) {
        None => false,
        Some(coding) if coding.eq_ignore_ascii_case("identity") => false,
        Some(coding) if coding.eq_ignore_ascii_case("zstd") => true,
        Some(_) => {
            let message = "bodies may be encoded with zstd only";
            let error = ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message);
            return Err(error.with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("zstd")));
        }
    };
    let limit = app.config.max_blob.min(app.config.max_size.unwrap_or(u64::MAX));
    let length = text(&parts.headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if !zstd && length.is_some_and(|length| length > limit) {
        return Err(ApiError::too_large(limit));
    }
    let storage = app.storage.clone();
    let inner = blocking(move || {
        Ok::<_, StorageError>(if storage.blob_size(id)?.is_some() { None } else { Some(storage.blob_create(id)?) })
    })
    .await?;
    // Who asks before sending need not send what is there. Who sends at once is told whether it was right.
    if inner.is_none() && text(&parts.headers, header::EXPECT).is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
        return Ok(stored(id, Committed::Existed));
    }
    let writer = CheckedWriter::new(id, limit, inner);
    let sink = if zstd { Sink::zstd(writer)? } else { Sink::Plain(writer) };
    let committed = app.incoming(body).into_blob(sink).await.inspect_err(|error| {
        if error.code() == "cas_integrity_failure" {
            add(&app.metrics.integrity_failures, 1);
        }
    })?;
    Ok(stored(id, committed))
}

fn stored(id: BlobId, committed: Committed) -> Response<Body> {
    let (status, created) = match committed {
        Committed::Created => (StatusCode::CREATED, true),
        Committed::Existed => (StatusCode::OK, false),
    };
    reply::of(status, &Stored { digest: id.to_string(), created })
}

/// The entity tags of a blob: its digest names its bytes, and an encoding makes other bytes of them.
struct Tags {
    plain: String,
}

impl Tags {
    fn new(id: BlobId) -> Self {
        let mut plain = id.hex();
        plain.reserve_exact(2);
        plain.insert(0, '"');
        plain.push('"');
        Self { plain }
    }

    fn zstd(&self) -> String {
        format!("{}-zstd\"", self.plain.trim_end_matches('"'))
    }

    /// Whether the client has it, in either form.
    fn known_to(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::IF_NONE_MATCH) && has_it(headers, &[&self.plain, &self.zstd()])
    }

    fn describe(response: &mut Response<Body>, tag: &str) {
        let headers = response.headers_mut();
        // For these, and those that all answers have.
        headers.reserve(12);
        headers.insert(header::ETAG, header_value(tag));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // What a digest names never changes; who may see it depends on the token.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    }
}

fn with_content_range(error: ApiError, value: String) -> ApiError {
    error.with_header(header::CONTENT_RANGE, header_value(&value))
}

/// Of texts made of digits and ASCII punctuation: always a value.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
