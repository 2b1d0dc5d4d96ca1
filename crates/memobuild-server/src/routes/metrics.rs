//! `GET /metrics`, for Prometheus.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, header},
};

use super::{Answer, App};
use crate::reply::blocking;

/// Counts, in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "care", operation_id = "get_metrics",
    responses((status = 200, description = "The counts", content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Answer {
    let storage = app.storage.clone();
    let usage = blocking(move || storage.usage()).await?;
    let text = app.metrics.text(&usage) + &app.guard.metrics();
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
