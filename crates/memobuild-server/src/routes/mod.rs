//! The routes, one file each, and what is done for all of them: who may, how it is counted, what every answer says.

mod analytics;
mod bazel;
mod blob;
mod builds;
mod ccache;
mod conditions;
mod gc;
mod health;
mod metrics;
mod missing;
mod openapi;
mod page;
mod query;
mod record;
mod schemas;
mod ws;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing,
};
use hyper::body::Body as _;
use tracing::Instrument as _;

use crate::{
    API_VERSION, Config, IdError,
    auth::Auth,
    builds::{Builds, Live},
    guard::Guard,
    linger,
    metrics::Metrics,
    receive::Incoming,
    reply::ApiError,
    rexec,
    storage::Storage,
};

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) auth: Auth,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) guard: Guard,
    pub(crate) builds: Arc<dyn Builds>,
    pub(crate) live: Arc<Live>,
}

impl App {
    pub(crate) fn incoming(&self, body: Body) -> Incoming {
        Incoming::new(body, self.config.idle_timeout, self.metrics.clone())
    }
}

type Answer = Result<Response, ApiError>;

pub(crate) fn router(app: Arc<App>) -> Router {
    bazel::routes(Router::new())
        .merge(ccache::routes())
        .merge(rexec::routes(&app))
        .route("/cache/missing", routing::post(missing::missing))
        .route("/cache/{digest}", routing::head(blob::head).get(blob::get).put(blob::put))
        .route("/cache/layer/{digest}", routing::head(blob::head_layer).get(blob::get_layer).put(blob::put_layer))
        .route("/record/{key}", routing::get(record::get).put(record::put))
        .route("/record/{key}/list", routing::get(record::list).post(record::add))
        .route("/gc", routing::post(gc::gc))
        .route("/healthz", routing::get(health::healthz))
        .route("/readyz", routing::get(health::readyz))
        .route("/metrics", routing::get(metrics::metrics))
        .route("/openapi.json", routing::get(openapi::openapi))
        .route("/build-event", routing::post(builds::event))
        .route("/dag", routing::get(builds::get_dag).post(builds::put_dag))
        .route("/analytics", routing::post(builds::counted))
        .route("/api/analytics", routing::get(analytics::analytics))
        .route("/api/builds", routing::get(builds::list))
        .route("/api/builds/{id}", routing::get(builds::get))
        .route("/api/layers", routing::get(analytics::layers))
        .route("/ws", routing::get(ws::ws))
        .route("/", routing::get(page::page))
        .route("/assets/{name}", routing::get(page::asset))
        .fallback(async || ApiError::not_found("route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the route has no such method")
        })
        .layer(middleware::from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Around every request, those that no route takes included.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    // Who asks first has sent nothing yet, and is not to be told to.
    // On HTTP/2 what is left is refused for its stream alone.
    let asks = request.version() == Version::HTTP_2
        || request.headers().contains_key(header::EXPECT)
        || request.body().is_end_stream();
    let grpc = rexec::is_grpc(request.headers());
    let (request, rest) = if asks { (request, None) } else { lent(request) };
    let visit = app.guard.arrived(&request);
    let checked = app.auth.check(request.method(), &path, request.headers(), visit.certificate());
    let admitted = app.guard.admit(&visit, checked);
    let client = admitted.as_ref().ok().map(|(client, _)| client.clone());
    let name = client.as_ref().map_or("-", |client| client.name.as_str());
    let span = visit.span(name, method, &path);
    let mut response = match admitted {
        Ok((client, _upload)) => {
            let mut request = app.guard.count(&visit, &client, request);
            request.extensions_mut().insert(client);
            next.run(request).instrument(span.clone()).await
        }
        Err(error) => {
            drop(request);
            if grpc { rexec::refusal(error) } else { error.into_response() }
        }
    };
    if let Some(rest) = rest {
        rest.drain().await;
    }
    app.guard.answered(&visit, client.as_ref(), method, &mut response);
    let headers = response.headers_mut();
    headers.insert("x-memobuild-api-version", HeaderValue::from_static(API_VERSION));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    let (status, took) = (response.status().as_u16(), began.elapsed());
    app.metrics.answered(route.as_ref().map_or("other", MatchedPath::as_str), method, status, took);
    span.in_scope(|| tracing::debug!(status, ms = took.as_millis(), "request"));
    response
}

fn lent(request: Request) -> (Request, Option<linger::Rest>) {
    let (parts, body) = request.into_parts();
    let (body, rest) = linger::lend(body);
    (Request::from_parts(parts, body), Some(rest))
}

/// A method as a label: a client may make up any other.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What a path names, taken apart by `parse`.
fn named<T>(
    path: Result<Path<String>, PathRejection>,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, ApiError> {
    let Path(text) = path.map_err(|_| ApiError::bad("invalid_path", "the path is not valid UTF-8"))?;
    parse(&text).map_err(|error| {
        let code = match error {
            IdError::Blob(_) => "invalid_digest",
            IdError::Record(_) => "invalid_key",
        };
        ApiError::bad(code, error.to_string())
    })
}
