//! The routes, one file each, and what is done for all of them: who may, how it is counted, what every answer says.

mod analytics;
mod bazel;
pub(crate) mod blob;
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

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Path, Request, State, rejection::PathRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing,
};

use crate::{
    Config, IdError,
    attend::attend,
    auth::Auth,
    builds::{Builds, Live},
    guard::Guard,
    metrics::Metrics,
    peer::Peer,
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

/// Around every request that takes the table of routes, those that no route takes included.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let peer = request.extensions().get::<Peer>().cloned();
    attend(&app, peer.as_ref(), route, request, |mut request, client| {
        request.extensions_mut().insert(client);
        next.run(request)
    })
    .await
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
