//! `GET|PUT /record/{key}`, where the first value stays, and `GET|POST /record/{key}/list`, where the newest do.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Answer, App, named,
    schemas::{Added, ErrorBody, Items, RecordBody, RecordStored},
};
use crate::{
    BlobId, RecordKey,
    reply::{self, ApiError, blocking},
    storage::{Record, RecordPut},
};

type Name = Result<Path<String>, PathRejection>;

/// Bytes of a value.
const VALUE_LIMIT: usize = 256 << 10;

/// Blobs that a record may name.
const MOST_BLOBS: usize = 4096;

/// Bytes of a request: the value as base64, and the digests.
const BODY_LIMIT: usize = VALUE_LIMIT / 3 * 4 + MOST_BLOBS * 80 + 1024;

/// The record under a key
#[utoipa::path(get, path = "/record/{key}", tag = "records", params(("key" = String, Path, description = "A namespace, a colon, and 64 hexadecimal digits", pattern = "^[a-z0-9_-]{1,32}:[0-9a-f]{64}$")), operation_id = "get_record",
    responses(
        (status = 200, description = "The record", body = RecordBody),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(super) async fn get(State(app): State<Arc<App>>, name: Name) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let storage = app.storage.clone();
    let record = blocking(move || storage.record(&key)).await?;
    app.metrics.looked_up(true, record.is_some());
    let record = record.ok_or_else(|| ApiError::not_found("record"))?;
    Ok(reply::of(StatusCode::OK, &shown(&record)))
}

/// Stores a record if it is the first under its key
#[utoipa::path(put, path = "/record/{key}", tag = "records", params(("key" = String, Path, description = "A namespace, a colon, and 64 hexadecimal digits", pattern = "^[a-z0-9_-]{1,32}:[0-9a-f]{64}$")), operation_id = "put_record", request_body = RecordBody,
    responses(
        (status = 200, description = "Another was first", body = RecordStored),
        (status = 201, description = "It is the first", body = RecordStored),
        (status = 409, description = "Blobs that it names are not there", body = ErrorBody)))]
pub(super) async fn put(State(app): State<Arc<App>>, name: Name, body: Body) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let record = received(&app, body).await?;
    let storage = app.storage.clone();
    let (put, record) = blocking(move || storage.record_put(&key, &record).map(|put| (put, record))).await?;
    let (status, stored, record) = match put {
        RecordPut::Stored => (StatusCode::CREATED, true, record),
        RecordPut::Existing(first) => (StatusCode::OK, false, first),
        RecordPut::Missing(missing) => return Err(incomplete(&missing)),
    };
    let RecordBody { value, blobs } = shown(&record);
    Ok(reply::of(status, &RecordStored { value, blobs, stored }))
}

/// The items of a list
#[utoipa::path(get, path = "/record/{key}/list", tag = "records", params(("key" = String, Path, description = "A namespace, a colon, and 64 hexadecimal digits", pattern = "^[a-z0-9_-]{1,32}:[0-9a-f]{64}$")), operation_id = "get_list",
    responses(
        (status = 200, description = "Newest first; none if there are none", body = Items)))]
pub(super) async fn list(State(app): State<Arc<App>>, name: Name) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let storage = app.storage.clone();
    let items = blocking(move || storage.list(&key)).await?;
    app.metrics.looked_up(true, !items.is_empty());
    Ok(reply::of(StatusCode::OK, &Items { items: items.iter().map(shown).collect() }))
}

/// Puts an item at the head of a list
#[utoipa::path(post, path = "/record/{key}/list", tag = "records", params(("key" = String, Path, description = "A namespace, a colon, and 64 hexadecimal digits", pattern = "^[a-z0-9_-]{1,32}:[0-9a-f]{64}$")), operation_id = "add_to_list", request_body = RecordBody,
    responses(
        (status = 200, description = "It is there", body = Added),
        (status = 409, description = "Blobs that it names are not there", body = ErrorBody)))]
pub(super) async fn add(State(app): State<Arc<App>>, name: Name, body: Body) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let item = received(&app, body).await?;
    let storage = app.storage.clone();
    let missing = blocking(move || storage.list_add(&key, &item)).await?;
    if !missing.is_empty() {
        return Err(incomplete(&missing));
    }
    Ok(reply::of(StatusCode::OK, &Added { added: true }))
}

async fn received(app: &App, body: Body) -> Result<Record, ApiError> {
    let body = app.incoming(body).whole(BODY_LIMIT).await?;
    let sent: RecordBody = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad("invalid_json", format!("expected an object with value and blobs: {error}")))?;
    let value = BASE64
        .decode(&sent.value)
        .map_err(|error| ApiError::bad("invalid_value", format!("value is not base64: {error}")))?;
    if value.len() > VALUE_LIMIT {
        return Err(ApiError::too_large(VALUE_LIMIT as u64));
    }
    if sent.blobs.len() > MOST_BLOBS {
        return Err(ApiError::bad("too_many", format!("more than {MOST_BLOBS} blobs")).with("limit", MOST_BLOBS));
    }
    let blobs = sent.blobs.iter().map(|text| text.parse()).collect::<Result<Vec<BlobId>, _>>();
    Ok(Record { value, blobs: blobs.map_err(|error| ApiError::bad("invalid_digest", error.to_string()))? })
}

fn shown(record: &Record) -> RecordBody {
    RecordBody { value: BASE64.encode(&record.value), blobs: texts(&record.blobs) }
}

fn incomplete(missing: &[BlobId]) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "missing_blobs", "blobs that the record names are not there")
        .with("missing", texts(missing))
}

fn texts(ids: &[BlobId]) -> Vec<String> {
    ids.iter().map(BlobId::to_string).collect()
}
