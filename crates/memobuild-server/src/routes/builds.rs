//! What clients tell of their builds (`POST /build-event`, `/dag`, `/analytics`), and what is known of them
//! (`GET /api/builds`, `/api/builds/{id}`, `/dag`).

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Answer, App,
    query::Query,
    schemas::{ErrorBody, Taken},
};
use crate::{
    builds::{Batch, BatchError, BuildId, Detail},
    peer::Client,
    reply::{self, ApiError, blocking},
    webhooks::Event,
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

/// Events of a build, one or a batch, as `--progress=rawjson` has them
#[utoipa::path(post, path = "/build-event", tag = "builds", operation_id = "post_build_event", request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "Taken", body = Taken), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn event(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::events).await
}

/// The steps of a build
#[utoipa::path(post, path = "/dag", tag = "builds", operation_id = "post_dag", request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "Taken", body = Taken), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn put_dag(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::dag).await
}

/// What a build came to
#[utoipa::path(post, path = "/analytics", tag = "builds", operation_id = "post_analytics", request_body(content = Object, content_type = "application/json"),
    responses((status = 200, description = "Taken", body = Taken), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn counted(State(app): State<Arc<App>>, request: Request) -> Answer {
    take(app, request, Batch::counted).await
}

async fn take(app: Arc<App>, request: Request, parse: fn(&[u8]) -> Result<Batch, BatchError>) -> Answer {
    let client = request.extensions().get::<Client>().map_or_else(|| "-".into(), |client| client.name.clone());
    let body = app.incoming(request.into_body()).whole(BODY_LIMIT).await?;
    let builds = app.builds.clone();
    let change = blocking(move || {
        let batch = parse(&body)?;
        Ok::<_, ApiError>(builds.take(&batch, &client, builds.now()?)?)
    })
    .await?;
    app.live.taken(&change);
    if change.ended {
        app.guard.hooks.send(Event::BuildFinished, to_value(&change.build)?);
    }
    let taken = Taken { build: change.build.id.to_string(), next: change.build.next };
    Ok(reply::json(StatusCode::OK, &json!(taken)))
}

/// Builds, newest first
#[utoipa::path(get, path = "/api/builds", tag = "builds", operation_id = "list_builds", params(
        ("limit" = Option<u32>, Query, description = "How many"),
        ("before" = Option<u64>, Query, description = "Older than this one: `next` of the page before")),
    responses((status = 200, description = "A page of them", body = Object), (status = 400, description = "What came is not what this takes", body = ErrorBody)))]
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let query = Query::parse(&uri, &["before", "limit"])?;
    let before = query.number("before", 0..=i64::MAX)?;
    let limit = query.number("limit", 1..=LARGEST_PAGE as i64)?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(PAGE);
    let builds = app.builds.clone();
    let (now, list) = blocking(move || {
        let now = builds.now()?;
        Ok::<_, ApiError>((now, builds.list(before, limit, now)?))
    })
    .await?;
    // A page that is not full is the last one.
    let next = list.last().filter(|_| list.len() == limit).map(|last| last.number);
    answer(&json!({ "now": now, "builds": to_value(&list)?, "next": next }))
}

/// A build: its steps, why each ran, the end of what they wrote
#[utoipa::path(get, path = "/api/builds/{id}", tag = "builds", operation_id = "get_build", params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The build", body = Object), (status = 404, description = "No such build", body = ErrorBody)))]
pub(super) async fn get(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Answer {
    let Path(text) = name.map_err(|_| ApiError::bad("invalid_path", "the path is not valid UTF-8"))?;
    let (now, detail) = detail(&app, text.parse()?).await?;
    let mut shown = to_value(&detail)?;
    if let Value::Object(fields) = &mut shown {
        fields.insert("now".into(), now.into());
    }
    answer(&shown)
}

/// The graph of a build, by default of the newest
#[utoipa::path(get, path = "/dag", tag = "builds", operation_id = "get_dag", params(("build" = Option<String>, Query, description = "Its id")),
    responses((status = 200, description = "Nodes and edges", body = Object), (status = 404, description = "No such build", body = ErrorBody)))]
pub(super) async fn get_dag(State(app): State<Arc<App>>, uri: Uri) -> Answer {
    let query = Query::parse(&uri, &["build"])?;
    let id = match query.text("build") {
        Some(text) => text.parse()?,
        None => {
            let builds = app.builds.clone();
            blocking(move || builds.newest()).await?.ok_or_else(|| ApiError::not_found("build"))?
        }
    };
    let (_, Detail { build, plan, .. }) = detail(&app, id).await?;
    let node = |step: &crate::builds::Step| json!({ "id": step.id, "label": step.label, "stage": step.stage, "state": step.state });
    let nodes: Vec<Value> = plan.iter().map(node).collect();
    let edges: Vec<[u32; 2]> = plan.iter().flat_map(|step| step.inputs.iter().map(|input| [*input, step.id])).collect();
    answer(&json!({ "build": build.id, "nodes": nodes, "edges": edges }))
}

/// A build, and when it is.
async fn detail(app: &App, id: BuildId) -> Result<(i64, Detail), ApiError> {
    let builds = app.builds.clone();
    blocking(move || {
        let now = builds.now()?;
        Ok::<_, ApiError>((now, builds.get(&id, now)?.ok_or_else(|| ApiError::not_found("build"))?))
    })
    .await
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
