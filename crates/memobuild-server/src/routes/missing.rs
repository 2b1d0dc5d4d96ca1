//! `POST /cache/missing`: which of these blobs are not there.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::StatusCode};
use serde_json::Value;

use super::{Answer, App, schemas::ErrorBody};
use crate::{
    BlobId,
    reply::{self, ApiError, blocking},
};

/// The most digests in one request.
const MOST: usize = 10_000;

/// Bytes of a request: room for the digests, each with its prefix, quotes and a little space.
const BODY_LIMIT: usize = MOST * 80;

/// Which of these blobs are not there
#[utoipa::path(post, path = "/cache/missing", tag = "blobs", request_body(content = Vec<String>, description = "At most 10,000 digests of either kind"),
    responses(
        (status = 200, description = "Those that are not there", body = Vec<String>),
        (status = 400, description = "Not a list of digests, or too many", body = ErrorBody)))]
pub(super) async fn missing(State(app): State<Arc<App>>, body: Body) -> Answer {
    let body = app.incoming(body).whole(BODY_LIMIT).await?;
    let texts: Vec<String> = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad("invalid_json", format!("expected a list of digests: {error}")))?;
    if texts.len() > MOST {
        return Err(ApiError::bad("too_many", format!("more than {MOST} digests")).with("limit", MOST));
    }
    let ids = texts.iter().map(|text| text.parse()).collect::<Result<Vec<BlobId>, _>>();
    let ids = ids.map_err(|error| ApiError::bad("invalid_digest", error.to_string()))?;
    let storage = app.storage.clone();
    let missing = blocking(move || storage.blobs_missing(&ids)).await?;
    let missing = missing.iter().map(|id| Value::from(id.to_string())).collect();
    Ok(reply::json(StatusCode::OK, &Value::Array(missing)))
}
