//! The Remote Execution API's caching half (github.com/bazelbuild/remote-apis, version 2) over gRPC: the services
//! ContentAddressableStorage, ActionCache and Capabilities, and ByteStream for large blobs. Nothing is executed.
//!
//! Blobs are those of the other routes; instances share them, and each has results of its own. Every call is a route of
//! the one router: who may, and how it is counted, is as for all.

mod action_cache;
mod bytestream;
mod capabilities;
mod cas;
pub(crate) mod digest;
mod slow;
mod tree;
mod uploads;

use std::{convert::Infallible, error::Error as _, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        action_cache_server::ActionCacheServer, capabilities_server::CapabilitiesServer,
        content_addressable_storage_server::ContentAddressableStorageServer,
    },
    google::bytestream::byte_stream_server::ByteStreamServer,
};
use tonic::{Code, Status, codegen::Service};

use crate::{
    auth::Scope,
    reply::{ApiError, Failure},
    routes::App,
};

/// Bytes of blobs in one batch; what clients are told.
const MOST_IN_BATCH: usize = 4 << 20;

/// Bytes of a message: a batch, and the digests in it.
const MESSAGE: usize = MOST_IN_BATCH + (1 << 20);

const ACTION_CACHE: &str = "/build.bazel.remote.execution.v2.ActionCache/";
const CAPABILITIES: &str = "/build.bazel.remote.execution.v2.Capabilities/";
const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/";
const BYTE_STREAM: &str = "/google.bytestream.ByteStream/";

/// The calls that change nothing, and those that do.
const READING: [(&str, &[&str]); 4] = [
    (ACTION_CACHE, &["GetActionResult"]),
    (CAPABILITIES, &["GetCapabilities"]),
    (CAS, &["FindMissingBlobs", "BatchReadBlobs", "GetTree"]),
    (BYTE_STREAM, &["Read"]),
];
const WRITING: [(&str, &[&str]); 3] = [
    (ACTION_CACHE, &["UpdateActionResult"]),
    (CAS, &["BatchUpdateBlobs"]),
    (BYTE_STREAM, &["Write", "QueryWriteStatus"]),
];

/// The scope that a call needs; `None` if the path is no call's.
pub(crate) fn needed(path: &str) -> Option<Scope> {
    let among = |calls: &[(&str, &[&str])]| {
        calls.iter().any(|(service, names)| path.strip_prefix(service).is_some_and(|name| names.contains(&name)))
    };
    if among(&READING) {
        Some(Scope::Read)
    } else if among(&WRITING) {
        Some(Scope::Write)
    } else {
        None
    }
}

/// Whether a request is a call, by its type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// An error as the answer to a call.
pub(crate) fn refusal(error: ApiError) -> Response {
    let mut response: Response = told(&error).into_http();
    response.extensions_mut().insert(error.failure());
    response
}

/// An error as calls end with; what the audit log is told of it is inside.
fn status(error: ApiError) -> Status {
    let mut status = told(&error);
    status.set_source(Arc::new(error.failure()));
    status
}

/// What the audit log and webhooks are told of a call that failed.
fn failure(status: &Status) -> Failure {
    if let Some(failure) = status.source().and_then(|source| source.downcast_ref::<Failure>()) {
        return failure.clone();
    }
    let (status, code) = match status.code() {
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_argument"),
        Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Code::DeadlineExceeded => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        Code::Cancelled => (StatusCode::BAD_REQUEST, "cancelled"),
        Code::OutOfRange => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Code::Unimplemented => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    Failure { status, code, client: None }
}

/// What a call is told.
fn told(error: &ApiError) -> Status {
    let code = match error.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::CONFLICT => Code::FailedPrecondition,
        StatusCode::RANGE_NOT_SATISFIABLE => Code::OutOfRange,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE | StatusCode::TOO_MANY_REQUESTS => {
            Code::ResourceExhausted
        }
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.message())
}

/// The routes of all calls.
pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let cas = cas::Cas::new(app.clone());
    let cas = ContentAddressableStorageServer::new(cas).max_decoding_message_size(MESSAGE);
    let results = action_cache::ActionCache::new(app.clone());
    let results = ActionCacheServer::new(results).max_decoding_message_size(MESSAGE);
    let bytes = bytestream::Bytes::new(app.clone());
    let bytes = ByteStreamServer::new(bytes).max_decoding_message_size(MESSAGE);
    let capabilities = CapabilitiesServer::new(capabilities::Capabilities::new(app.clone()));
    let mut router = Router::new();
    for (service, names) in READING.into_iter().chain(WRITING) {
        router = match service {
            CAS => calls(router, service, names, &cas),
            ACTION_CACHE => calls(router, service, names, &results),
            BYTE_STREAM => calls(router, service, names, &bytes),
            _ => calls(router, service, names, &capabilities),
        };
    }
    router.layer(middleware::from_fn_with_state(app.clone(), around))
}

/// A route for each call, so that each is counted by itself.
fn calls<S>(mut router: Router<Arc<App>>, service: &str, names: &[&str], calls: &S) -> Router<Arc<App>>
where
    S: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    for name in names {
        router = router.route(&format!("{service}{name}"), routing::post_service(calls.clone()));
    }
    router
}

/// Around every call: one that sends too slowly is ended, and those that failed are counted by why.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let request = request.map(|body| Body::new(slow::Slow::new(body, app.config.idle_timeout, app.metrics.clone())));
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions().get::<Status>().map(failure) {
        response.extensions_mut().insert(failure);
    }
    // What fails after its first message says so in trailers, and is not counted here.
    if let Some(code) = response.headers().get(Status::GRPC_STATUS) {
        let code = Code::from_bytes(code.as_bytes());
        if code != Code::Ok {
            app.metrics.call_failed(&path, code as i32);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_need_what_they_do() {
        for (call, scope) in [
            ("/google.bytestream.ByteStream/Read", Some(Scope::Read)),
            ("/google.bytestream.ByteStream/Write", Some(Scope::Write)),
            ("/build.bazel.remote.execution.v2.ActionCache/GetActionResult", Some(Scope::Read)),
            ("/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult", Some(Scope::Write)),
            ("/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs", Some(Scope::Read)),
            ("/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs", Some(Scope::Write)),
            ("/build.bazel.remote.execution.v2.ContentAddressableStorage/", None),
            ("/cache/missing", None),
        ] {
            assert_eq!(needed(call), scope, "{call}");
        }
    }
}
