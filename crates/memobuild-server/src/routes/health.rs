//! `GET /healthz`: the process answers. `GET /readyz`: and its storage does.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::StatusCode, response::Response};
use serde_json::json;

use super::{Answer, App};
use crate::reply::{self, ApiError, blocking};

pub(super) async fn healthz() -> Response<Body> {
    reply::json(StatusCode::OK, &json!({ "status": "ok" }))
}

pub(super) async fn readyz(State(app): State<Arc<App>>) -> Answer {
    let storage = app.storage.clone();
    match blocking(move || storage.ready()).await {
        Ok(()) => Ok(reply::json(StatusCode::OK, &json!({ "status": "ready" }))),
        Err(_) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the storage does not answer")),
    }
}
