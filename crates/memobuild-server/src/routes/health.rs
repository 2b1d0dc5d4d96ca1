//! `GET /healthz`: the process answers. `GET /readyz`: and its storage does.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::StatusCode, response::Response};

use super::{
    Answer, App,
    schemas::{ErrorBody, Status},
};
use crate::reply::{self, ApiError, blocking};

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "care", security(()),
    responses((status = 200, description = "It does", body = Status)))]
pub(super) async fn healthz() -> Response<Body> {
    reply::of(StatusCode::OK, &Status { status: "ok".to_owned() })
}

/// Whether the storage answers
#[utoipa::path(get, path = "/readyz", tag = "care", security(()),
    responses(
        (status = 200, description = "It does", body = Status),
        (status = 503, description = "It does not", body = ErrorBody)))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Answer {
    let storage = app.storage.clone();
    match blocking(move || storage.ready()).await {
        Ok(()) => Ok(reply::of(StatusCode::OK, &Status { status: "ready".to_owned() })),
        Err(_) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the storage does not answer")),
    }
}
