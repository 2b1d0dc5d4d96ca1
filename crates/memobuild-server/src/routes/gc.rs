//! `POST /gc?days=N`: removes what was not used for so many days. Without `days` only what is above the size cap goes.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, Uri},
};
use serde_json::json;

use super::{
    Answer, App,
    schemas::{Collected, ErrorBody},
};
use crate::{
    guard::Detail,
    metrics::add,
    reply::{self, ApiError, blocking},
    webhooks::Event,
};

/// Removes what was not used for long, and what is above the size cap
#[utoipa::path(post, path = "/gc", tag = "care", params(("days" = Option<u32>, Query, description = "Without it only what is above the cap goes")),
    responses(
        (status = 200, description = "It is done", body = Collected),
        (status = 400, description = "Not a number of days", body = ErrorBody)))]
pub(super) async fn gc(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let unused_for = days(uri.query())?.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let storage = app.storage.clone();
    let (report, usage) = blocking(move || storage.gc(unused_for).and_then(|r| Ok((r, storage.usage()?)))).await?;
    add(&app.metrics.gc_freed_bytes, report.freed_bytes);
    let collected = Collected {
        removed_blobs: report.blobs,
        removed_records: report.records,
        freed_bytes: report.freed_bytes,
        stored_bytes: usage.bytes,
    };
    let answer = json!(collected);
    app.guard.hooks.send(Event::GcFinished, answer.clone());
    let mut response = reply::json(StatusCode::OK, &answer);
    response.extensions_mut().insert(Detail(answer));
    Ok(response)
}

fn days(query: Option<&str>) -> Result<Option<u32>, ApiError> {
    let bad = || ApiError::bad("invalid_query", "expected days= and a whole number, or nothing");
    let Some(query) = query.filter(|q| !q.is_empty()) else { return Ok(None) };
    // A word that is misspelt must not mean: with the defaults.
    let digits = query.strip_prefix("days=").filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|d| d.parse().ok()).map(Some).ok_or_else(bad)
}
