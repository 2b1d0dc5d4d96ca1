//! What clients tell of their builds (`POST /build-event`, `/dag`, `/analytics`), and what is known of them
//! (`GET /api/builds`, `/api/builds/{id}`, `/dag`).

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Answer, App, Client, query::Query};
use crate::{
    builds::{Batch, BatchError, BuildId, Detail, now},
    reply::{self, ApiError, blocking},
};

/// Bytes of a request.
const BODY_LIMIT: usize = 8 << 20;

/// Builds on a page of the list, unless asked otherwise, and at most.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 200;

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let code = match &error {
            BatchError::Id(_) => "invalid_build",
            BatchError::Json(_) => "invalid_json",
            BatchError::Value(_) => "invalid_value",
            BatchError::TooMany { limit, .. } => return Self::bad("too_many", error.to_string()).with("limit", *limit),
        };
        Self::bad(code, error.to_string())
    }
}

pub(super) async fn event(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::events).await
}

pub(super) async fn put_dag(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::dag).await
}

pub(super) async fn counted(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::counted).await
}

async fn take(app: Arc<App>, request: Request, parse: fn(&[u8]) -> Result<Batch, BatchError>) -> Answer {
    let client = request.extensions().get::<Client>().map_or_else(|| "-".to_owned(), |client| client.0.clone());
    let body = app.incoming(request.into_body()).whole(BODY_LIMIT).await?;
    let builds = app.builds.clone();
    let change = blocking(move || {
        let batch = parse(&body)?;
        Ok::<_, ApiError>(builds.take(&batch, &client, now())?)
    })
    .await?;
    app.live.tell(&change);
    Ok(reply::json(StatusCode::OK, &json!({ "build": change.build.id, "next": change.build.next })))
}

pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let query = Query::parse(&uri, &["before", "limit"])?;
    let before = query.number("before", 0..=i64::MAX)?;
    let limit = query.number("limit", 1..=LARGEST_PAGE as i64)?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(PAGE);
    let (builds, now) = (app.builds.clone(), now());
    let list = blocking(move || builds.list(before, limit, now)).await?;
    // A page that is not full is the last one.
    let next = list.last().filter(|_| list.len() == limit).map(|last| last.number);
    answer(&json!({ "now": now, "builds": to_value(&list)?, "next": next }))
}

pub(super) async fn get(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Answer {
    let Path(text) = name.map_err(|_| ApiError::bad("invalid_path", "the path is not valid UTF-8"))?;
    let now = now();
    let mut shown = to_value(&detail(&app, text.parse()?, now).await?)?;
    if let Value::Object(fields) = &mut shown {
        fields.insert("now".into(), now.into());
    }
    answer(&shown)
}

pub(super) async fn get_dag(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let query = Query::parse(&uri, &["build"])?;
    let id = match query.text("build") {
        Some(text) => text.parse()?,
        None => {
            let builds = app.builds.clone();
            blocking(move || builds.newest()).await?.ok_or_else(|| ApiError::not_found("build"))?
        }
    };
    let Detail { build, plan, .. } = detail(&app, id, now()).await?;
    let node = |step: &crate::builds::Step| json!({ "id": step.id, "label": step.label, "stage": step.stage, "state": step.state });
    let nodes: Vec<Value> = plan.iter().map(node).collect();
    let edges: Vec<[u32; 2]> = plan.iter().flat_map(|step| step.inputs.iter().map(|input| [*input, step.id])).collect();
    answer(&json!({ "build": build.id, "nodes": nodes, "edges": edges }))
}

async fn detail(app: &App, id: BuildId, now: i64) -> Result<Detail, ApiError> {
    let builds = app.builds.clone();
    blocking(move || builds.get(&id, now)).await?.ok_or_else(|| ApiError::not_found("build"))
}

pub(super) fn to_value(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|_| ApiError::internal())
}

/// What is known now, which no cache on the way should keep.
pub(super) fn answer(value: &Value) -> Answer {
    let mut response = reply::json(StatusCode::OK, value);
    let no_store = axum::http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(axum::http::header::CACHE_CONTROL, no_store);
    Ok(response)
}
