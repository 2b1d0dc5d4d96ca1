//! What is done around every request: who may, how it is counted, what every answer says.

use std::time::Instant;

use axum::{
    extract::Request,
    http::{HeaderValue, Method, Version, header},
    response::{IntoResponse as _, Response},
};
use hyper::body::Body as _;
use tracing::Instrument as _;

use crate::{
    API_VERSION, linger,
    peer::{Client, Peer},
    rexec,
    routes::App,
};

/// Has a request answered by `work`, if its client may send it. `route`: as metrics name it.
pub(crate) async fn attend<F>(
    app: &App,
    peer: Option<&Peer>,
    route: &str,
    request: Request,
    work: impl FnOnce(Request, Client) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let began = Instant::now();
    let method = known(request.method());
    // Who asks first has sent nothing yet, and is not to be told to.
    // On HTTP/2 what is left is refused for its stream alone.
    let asks = request.body().is_end_stream()
        || request.version() == Version::HTTP_2
        || request.headers().contains_key(header::EXPECT);
    let grpc = rexec::is_grpc(request.headers());
    let (request, rest) = if asks { (request, None) } else { lent(request) };
    let visit = app.guard.arrived(&request, peer);
    let checked = app.auth.check(request.method(), visit.path(), request.headers(), visit.certificate());
    let admitted = app.guard.admit(&visit, checked);
    let client = admitted.as_ref().ok().map(|(client, _)| client.clone());
    let name = client.as_ref().map_or("-", |client| &*client.name);
    let span = visit.span(name, method);
    let mut response = match admitted {
        Ok((client, _upload)) => {
            let request = app.guard.count(&visit, &client, request);
            work(request, client).instrument(span.clone()).await
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
    app.metrics.answered(route, method, status, took);
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
