//! Bazel's HTTP cache: `GET|HEAD|PUT /ac/{sha256}` and `/cas/{sha256}`, also behind an instance name of one or two parts.
//!
//! `/cas/` is the same blobs as `/cache/layer/`. What `PUT /ac/` brings takes the place of what was there; ccache, which
//! has a layout for this protocol, also asks for `DELETE`.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
    routing::{self, MethodRouter},
};
use memobuild_tree::Sha256Digest;

use super::{Answer, App, blob, conditions::text};
use crate::{
    BlobId, IdError, RecordKey,
    reply::{self, ApiError, blocking},
    results,
    rexec::digest::{self, Function},
};

/// Bytes of a value under `/ac/`: ccache keeps whole object files there. It is received into memory.
const VALUE_LIMIT: usize = 32 << 20;

pub(super) fn routes(mut router: Router<Arc<App>>) -> Router<Arc<App>> {
    for instance in ["", "/{instance}", "/{instance}/{part}"] {
        router = router
            .route(&format!("{instance}/cas/{{sha256}}"), cas())
            .route(&format!("{instance}/ac/{{sha256}}"), values(slot));
    }
    router
}

fn cas() -> MethodRouter<Arc<App>> {
    routing::get(cas_get).head(cas_head).put(cas_put)
}

/// `GET|HEAD|PUT|DELETE` of values in the slots that paths name.
pub(super) fn values(slot: fn(&str) -> Result<RecordKey, ApiError>) -> MethodRouter<Arc<App>> {
    routing::get(async move |State(app): State<Arc<App>>, uri: Uri| get(app, slot(uri.path())?).await)
        .put(async move |State(app): State<Arc<App>>, request: Request| {
            let key = slot(request.uri().path())?;
            put(app, key, request).await
        })
        .delete(async move |State(app): State<Arc<App>>, uri: Uri| remove(app, slot(uri.path())?).await)
}

/// An instance name and a hash, out of `{instance}/ac/{hash}`.
fn parts(path: &str) -> Result<(&str, Sha256Digest), ApiError> {
    let (front, hash) = path.rsplit_once('/').unwrap_or_default();
    let instance = front.rsplit_once('/').map_or("", |(instance, _)| instance).trim_start_matches('/');
    let hash = Sha256Digest::from_hex(hash)
        .map_err(|_| ApiError::bad("invalid_digest", IdError::Blob(hash.chars().take(100).collect()).to_string()))?;
    Ok((instance, hash))
}

/// Instances share blobs and not results.
fn slot(path: &str) -> Result<RecordKey, ApiError> {
    let (instance, hash) = parts(path)?;
    Ok(results::key("ac", instance, Function::Sha256, hash.as_bytes()))
}

async fn cas_head(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer {
    let id = BlobId::Layer(parts(uri.path())?.1);
    if digest::is_empty(id) {
        return Ok(empty());
    }
    blob::answer_head(&app, id, &headers).await
}

async fn cas_get(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer {
    let id = BlobId::Layer(parts(uri.path())?.1);
    if digest::is_empty(id) {
        return Ok(empty());
    }
    blob::answer_get(&app, id, &headers).await
}

async fn cas_put(State(app): State<Arc<App>>, request: Request) -> Answer {
    let id = BlobId::Layer(parts(request.uri().path())?.1);
    blob::receive(app, id, request).await
}

/// The blob of no bytes is always there.
fn empty() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

async fn get(app: Arc<App>, key: RecordKey) -> Answer {
    let storage = app.storage.clone();
    let value = blocking(move || results::get(&*storage, &key)).await?;
    app.metrics.looked_up(true, value.is_some());
    let value = value.ok_or_else(|| ApiError::not_found("value"))?;
    let mut response = Response::new(Body::from(value));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // It may be another one at any time.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn put(app: Arc<App>, key: RecordKey, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    if text(&parts.headers, header::CONTENT_ENCODING).is_some_and(|c| !c.eq_ignore_ascii_case("identity")) {
        let message = "values are taken as they are, without an encoding";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message));
    }
    let length = text(&parts.headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > VALUE_LIMIT as u64) {
        return Err(ApiError::too_large(VALUE_LIMIT as u64));
    }
    let value = app.incoming(body).whole(VALUE_LIMIT).await?;
    let storage = app.storage.clone();
    let missing = blocking(move || {
        let result = results::action_result(&value);
        let blobs = result.map_or_else(|| Ok(Vec::new()), |r| results::needs(&*storage, Function::Sha256, &r))?;
        results::put(&*storage, &key, &value, blobs).map_err(ApiError::from)
    })
    .await?;
    if !missing.is_empty() {
        return Err(digest::missing(&missing));
    }
    Ok(reply::json(StatusCode::OK, &serde_json::json!({ "stored": true })))
}

async fn remove(app: Arc<App>, key: RecordKey) -> Answer {
    let storage = app.storage.clone();
    if !blocking(move || results::remove(&*storage, &key)).await? {
        return Err(ApiError::not_found("value"));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;

    #[test]
    fn paths_name_an_instance_and_a_hash() {
        let hash = Sha256Digest::of(b"x");
        let hex = hash.hex();
        for (path, instance) in [("/ac", ""), ("/main/ac", "main"), ("/a/b/cas", "a/b")] {
            assert_eq!(parts(&format!("{path}/{hex}")).unwrap(), (instance, hash));
        }
        for path in ["/ac/", "/ac/..", "/ac/xyz"] {
            assert!(parts(path).is_err(), "{path}");
        }
        assert_ne!(slot(&format!("/ac/{hex}")).unwrap(), slot(&format!("/main/ac/{hex}")).unwrap());
    }
}
