//! `GET /` and `GET /assets/{name}`: the dashboard. A page, its style and its scripts are in the program; nothing in them
//! comes from a client or another host, and a browser is told to allow nothing else.

use axum::{
    body::Body,
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};

use super::{Answer, conditions::has_it, schemas::ErrorBody};
use crate::reply::ApiError;

/// Scripts, styles and answers of this server only, in no other site's frame. Markup has no script or style of its own,
/// so that text that came to be markup by mistake could do nothing either.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const PAGE: &str = include_str!("../page/index.html");

/// The files beside the page.
const ASSETS: [(&str, &str, &str); 8] = [
    ("style.css", CSS, include_str!("../page/style.css")),
    ("main.js", JS, include_str!("../page/main.js")),
    ("api.js", JS, include_str!("../page/api.js")),
    ("dom.js", JS, include_str!("../page/dom.js")),
    ("overview.js", JS, include_str!("../page/overview.js")),
    ("build.js", JS, include_str!("../page/build.js")),
    ("graph.js", JS, include_str!("../page/graph.js")),
    ("icon.svg", SVG, include_str!("../page/icon.svg")),
];

/// The dashboard
#[utoipa::path(get, path = "/", tag = "builds", operation_id = "get_page", security(()),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn page(headers: HeaderMap) -> Answer {
    file(&headers, HTML, PAGE)
}

/// Style and script of the dashboard
#[utoipa::path(get, path = "/assets/{name}", tag = "builds", operation_id = "get_asset", security(()), params(("name" = String, Path, description = "A file's name")),
    responses((status = 200, description = "The file", body = String), (status = 404, description = "No such file", body = ErrorBody)))]
pub(super) async fn asset(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Answer {
    let found = name.ok().and_then(|Path(name)| ASSETS.into_iter().find(|(known, ..)| *known == name));
    let (_, kind, content) = found.ok_or_else(|| ApiError::not_found("file"))?;
    file(&headers, kind, content)
}

fn file(headers: &HeaderMap, kind: &'static str, content: &'static str) -> Answer {
    let tag = format!("\"{}\"", blake3::hash(content.as_bytes()).to_hex());
    let known = has_it(headers, &[&tag]);
    let tag = HeaderValue::try_from(tag).map_err(|_| ApiError::internal())?;
    let mut response = Response::new(if known { Body::empty() } else { Body::from(content) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    for (name, value) in [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Asked for each time, so that page and server are of one version.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag),
    ] {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
