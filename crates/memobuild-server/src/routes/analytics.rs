//! `GET /api/analytics`: sums over builds, by day, and what the storage holds. `GET /api/layers`: the largest layers.

use std::sync::Arc;

use axum::{extract::State, http::Uri};
use serde_json::{Value, json};

use super::{
    Answer, App,
    builds::{answer, to_value},
    query::Query,
    schemas::ErrorBody,
};
use crate::{
    builds::Totals,
    reply::{ApiError, blocking},
};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// Hit rate, time saved and counts, by day
#[utoipa::path(get, path = "/api/analytics", tag = "builds", operation_id = "get_analytics", params(("days" = Option<u32>, Query, description = "How far back")),
    responses((status = 200, description = "Sums", body = Object), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn analytics(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let days = Query::parse(&uri, &["days"])?.number("days", 1..=3650)?.unwrap_or(30);
    let (builds, storage) = (app.builds.clone(), app.storage.clone());
    let (now, analytics, usage) = blocking(move || {
        let now = builds.now()?;
        // Whole days: the first one is not cut.
        let since = (now.div_euclid(DAY) - (days - 1)) * DAY;
        Ok::<_, ApiError>((now, builds.analytics(since, now)?, storage.usage()?))
    })
    .await?;
    let mut by_day = Vec::new();
    for day in &analytics.days {
        let mut shown = with_rate(to_value(day)?, &day.totals);
        if let Value::Object(fields) = &mut shown {
            fields.insert("day".into(), day.day.clone().into());
        }
        by_day.push(shown);
    }
    answer(&json!({
        "now": now,
        "days": days,
        "running": analytics.running,
        "totals": with_rate(to_value(&analytics.totals)?, &analytics.totals),
        "by_day": by_day,
        "storage": {
            "blobs": usage.blobs, "records": usage.records, "bytes": usage.bytes, "max_bytes": usage.max_bytes,
        },
    }))
}

fn with_rate(mut shown: Value, totals: &Totals) -> Value {
    if let Value::Object(fields) = &mut shown {
        fields.insert("hit_rate".into(), totals.hit_rate().into());
    }
    shown
}

/// The largest layers that builds made
#[utoipa::path(get, path = "/api/layers", tag = "builds", operation_id = "get_layers", params(("limit" = Option<u32>, Query, description = "How many")),
    responses((status = 200, description = "Largest first", body = Object), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn layers(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let limit = Query::parse(&uri, &["limit"])?.number("limit", 1..=200)?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(20);
    let builds = app.builds.clone();
    let layers = blocking(move || builds.layers(limit)).await?;
    answer(&json!({ "layers": to_value(&layers)? }))
}
