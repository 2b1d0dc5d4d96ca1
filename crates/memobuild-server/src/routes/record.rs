//! `GET|PUT /record/{key}`, where the first value stays, and `GET|POST /record/{key}/list`, where the newest do.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, App, named};
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    value: String,
    #[serde(default)]
    blobs: Vec<String>,
}

pub(super) async fn get(State(app): State<Arc<App>>, name: Name) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let storage = app.storage.clone();
    let record = blocking(move || storage.record(&key)).await?;
    app.metrics.looked_up(true, record.is_some());
    let record = record.ok_or_else(|| ApiError::not_found("record"))?;
    Ok(reply::json(StatusCode::OK, &shown(&record)))
}

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
    let mut answer = shown(&record);
    if let Value::Object(fields) = &mut answer {
        fields.insert("stored".into(), stored.into());
    }
    Ok(reply::json(status, &answer))
}

pub(super) async fn list(State(app): State<Arc<App>>, name: Name) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let storage = app.storage.clone();
    let items = blocking(move || storage.list(&key)).await?;
    app.metrics.looked_up(true, !items.is_empty());
    let items: Vec<Value> = items.iter().map(shown).collect();
    Ok(reply::json(StatusCode::OK, &json!({ "items": items })))
}

pub(super) async fn add(State(app): State<Arc<App>>, name: Name, body: Body) -> Answer {
    let key: RecordKey = named(name, str::parse)?;
    let item = received(&app, body).await?;
    let storage = app.storage.clone();
    let missing = blocking(move || storage.list_add(&key, &item)).await?;
    if !missing.is_empty() {
        return Err(incomplete(&missing));
    }
    Ok(reply::json(StatusCode::OK, &json!({ "added": true })))
}

async fn received(app: &App, body: Body) -> Result<Record, ApiError> {
    let body = app.incoming(body).whole(BODY_LIMIT).await?;
    let sent: Sent = serde_json::from_slice(&body)
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

fn shown(record: &Record) -> Value {
    json!({ "value": BASE64.encode(&record.value), "blobs": texts(&record.blobs) })
}

fn incomplete(missing: &[BlobId]) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "missing_blobs", "blobs that the record names are not there")
        .with("missing", texts(missing))
}

fn texts(ids: &[BlobId]) -> Vec<String> {
    ids.iter().map(BlobId::to_string).collect()
}
