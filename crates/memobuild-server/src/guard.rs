//! What watches over requests: limits, the audit log, ids, and webhooks about what went wrong.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use hyper::body::Body as _;
use serde_json::{Value, json};

use crate::{
    Security, ServerError,
    audit::{Audit, Entry, LIMITED_FOR, SEEN_FOR},
    auth::is_change,
    limits::{Limits, Upload},
    meter::{Metered, Payer},
    metrics::head,
    peer::{Client, How, Peer},
    reply::{ApiError, Failure},
    tls::Tls,
    trace::{Ids, Trace, traceparent},
    webhooks::{Event, Webhooks},
};

/// What an answer tells the audit log beyond what every answer does: an extension of it.
#[derive(Clone)]
pub(crate) struct Detail(pub(crate) Value);

/// How much of a path logs have, in characters.
const LONGEST_PATH: usize = 1024;

/// See the head of the file.
pub(crate) struct Guard {
    pub(crate) tls: Option<Tls>,
    pub(crate) hooks: Webhooks,
    limits: Arc<Limits>,
    audit: Option<Audit>,
    ids: Ids,
}

/// A request, as far as this is concerned.
pub(crate) struct Visit<'a> {
    id: HeaderValue,
    trace: Option<Trace>,
    peer: Option<&'a Peer>,
    uri: Uri,
    changes: bool,
    has_body: bool,
    /// Bytes of the body that were taken, where they are counted.
    received: Option<Arc<AtomicU64>>,
}

impl Visit<'_> {
    /// What log lines about it have in common.
    pub(crate) fn span(&self, client: &str, method: &str) -> tracing::Span {
        let trace_id = self.trace.as_ref().map(|trace| trace.trace_id.as_str());
        let parent_id = self.trace.as_ref().map(|trace| trace.parent_id.as_str());
        let path = self.path();
        tracing::info_span!("request", request_id = self.id(), trace_id, parent_id, client, method, path)
    }

    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The path for logs: the start of it says what it was meant to be.
    fn short_path(&self) -> String {
        self.path().chars().take(LONGEST_PATH).collect()
    }

    /// The name in the client's certificate.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.peer?.certificate.as_deref()
    }

    fn id(&self) -> &str {
        // Always ASCII.
        self.id.to_str().unwrap_or_default()
    }
}

impl Guard {
    /// Reads and opens all that the settings name.
    pub(crate) fn open(security: &Security) -> Result<Self, ServerError> {
        let audit = security.audit_log.as_ref().map(|path| Audit::open(path).map_err(cannot_log(path))).transpose()?;
        let tls = security.tls.as_ref().map(Tls::open).transpose()?;
        let hooks = Webhooks::start(&security.webhooks, security.webhook_secret.as_deref(), security.webhook_retry)?;
        Ok(Self { tls, hooks, limits: Arc::new(Limits::new(security)), audit, ids: Ids::new() })
    }

    /// Reads certificates and secrets again and opens the log anew. Each is tried; the first failure is given.
    pub(crate) fn reload(&self, security: &Security) -> Result<(), ServerError> {
        let tls = self.tls.as_ref().map_or(Ok(()), |tls| tls.reload().map_err(ServerError::from));
        let hooks = self.hooks.reload().map_err(ServerError::from);
        let log = match (&self.audit, &security.audit_log) {
            (Some(audit), Some(path)) => audit.reopen().map_err(cannot_log(path)),
            _ => Ok(()),
        };
        tls.and(hooks).and(log)
    }

    /// A line of the audit log about the server itself.
    pub(crate) fn note(&self, event: &'static str, error: Option<&str>) {
        if let Some(audit) = &self.audit {
            audit.write(&Entry { event, error, ..Entry::default() });
        }
    }

    /// Counts for Prometheus, of what is in use.
    pub(crate) fn metrics(&self) -> String {
        let mut out = String::new();
        if let Some(audit) = &self.audit {
            head(&mut out, "memobuild_audit_failures_total", "counter", "Lines that the audit log lacks.");
            let _ = writeln!(out, "memobuild_audit_failures_total {}", audit.failures());
        }
        if self.hooks.any() {
            let name = "memobuild_webhook_deliveries_total";
            head(&mut out, name, "counter", "Events sent to webhooks, given up, or dropped for want of room.");
            let counts = &self.hooks.counts;
            for (result, n) in
                [("delivered", &counts.delivered), ("failed", &counts.failed), ("dropped", &counts.dropped)]
            {
                let _ = writeln!(out, "{name}{{result=\"{result}\"}} {}", n.load(Ordering::Relaxed));
            }
        }
        out
    }

    /// TLS was not agreed on. Only what a client's certificate was refused for is worth a line.
    pub(crate) fn refused_handshake(&self, addr: std::net::SocketAddr, error: &std::io::Error) {
        tracing::debug!("no TLS with {addr}: {error}");
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let certificate =
            matches!(refused, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented));
        if let (true, Some(audit)) = (certificate, &self.audit) {
            let (address, error) = (Some(addr.ip().to_canonical()), error.to_string());
            audit.write(&Entry { event: "refusal", address, error: Some(&error), ..Entry::default() });
        }
    }

    /// A request has come.
    pub(crate) fn arrived<'a>(&self, request: &Request, peer: Option<&'a Peer>) -> Visit<'a> {
        let has_body = !request.body().is_end_stream();
        Visit {
            id: self.ids.of(request.headers()),
            trace: traceparent(request.headers()),
            peer,
            uri: request.uri().clone(),
            changes: is_change(request.method(), request.uri().path()),
            has_body,
            received: (has_body && (self.audit.is_some() || self.limits.counts_bytes())).then(Arc::default),
        }
    }

    /// Whether it may go on as far as limits are concerned: one more of its client's requests, good or bad, and perhaps an
    /// upload. What needs no leave is not counted.
    pub(crate) fn admit(
        &self,
        visit: &Visit<'_>,
        checked: Result<Client, ApiError>,
    ) -> Result<(Client, Option<Upload>), ApiError> {
        let now = Instant::now();
        let client = match checked {
            Ok(client) if client.how == How::Unknown || !self.limits.any() => return Ok((client, None)),
            Ok(client) => client,
            Err(error) => {
                // Who guesses tokens must not guess fast, nor use up what the owner of a token may send.
                let key = Client::unknown().key(visit.peer);
                return Err(self.limits.admit(&key, now).err().map_or(error, |wait| rate_limited(wait, None)));
            }
        };
        let key = client.key(visit.peer);
        if let Err(wait) = self.limits.admit(&key, now) {
            return Err(rate_limited(wait, Some(client)));
        }
        if !visit.changes || !visit.has_body {
            return Ok((client, None));
        }
        match self.limits.upload(&key, now) {
            Ok(upload) => Ok((client, upload)),
            Err(_) => {
                let message = "the client is sending as many bodies at once as it may";
                Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_uploads", message)
                    .with_header(header::RETRY_AFTER, HeaderValue::from(1))
                    .of(client))
            }
        }
    }

    /// The request, with its body counted.
    pub(crate) fn count(&self, visit: &Visit<'_>, client: &Client, request: Request) -> Request {
        let Some(received) = visit.received.clone() else { return request };
        let payer = self.payer(visit, client);
        request.map(|body| Body::new(Metered::new(body, received, payer)))
    }

    fn payer(&self, visit: &Visit<'_>, client: &Client) -> Option<Payer> {
        let charged = self.limits.counts_bytes() && client.how != How::Unknown;
        charged.then(|| Payer { limits: self.limits.clone(), client: client.key(visit.peer) })
    }

    /// The answer is known: it is told to whom it concerns.
    pub(crate) fn answered(&self, visit: &Visit<'_>, client: Option<&Client>, method: &str, response: &mut Response) {
        let failure = response.extensions().get::<Failure>().cloned();
        let client = client.or(failure.as_ref().and_then(|failure| failure.client.as_deref()));
        let code = failure.as_ref().map(|failure| failure.code);
        let status = failure.as_ref().map_or(response.status(), |failure| failure.status);
        if let Some(audit) = &self.audit {
            let address = Self::address(visit);
            let event = event(visit, status).or_else(|| {
                let known = client.filter(|c| matches!(c.how, How::Token | How::Certificate))?;
                audit.is_new(&known.key(None), address, SEEN_FOR, Instant::now()).then_some("authenticated")
            });
            let limited = status == StatusCode::TOO_MANY_REQUESTS;
            let flood = limited.then(|| format!("429 {}", client.map_or_else(String::new, |c| c.key(None))));
            let told = flood.is_some_and(|what| !audit.is_new(&what, address, LIMITED_FOR, Instant::now()));
            if let Some(event) = event.filter(|_| !told) {
                audit.write(&Entry {
                    event,
                    client: client.map(|c| &*c.name),
                    auth: Some(client.map_or(How::Unknown, |c| c.how)),
                    address,
                    method: Some(method),
                    path: Some(&visit.short_path()),
                    status: Some(status.as_u16()),
                    error: code,
                    bytes: visit.received.as_ref().map(|bytes| bytes.load(Ordering::Relaxed)),
                    request_id: Some(visit.id()),
                    trace_id: visit.trace.as_ref().map(|trace| trace.trace_id.as_str()),
                    detail: response.extensions().get::<Detail>().map(|detail| &detail.0),
                });
            }
        }
        if let Some(event) = code.and_then(alarm) {
            let name = client.map_or("-", |c| &*c.name);
            self.hooks.send(event, json!({ "client": name, "path": visit.short_path(), "request_id": visit.id() }));
        }
        if let Some(payer) = client.and_then(|client| self.payer(visit, client)) {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::new(Metered::new(body, Arc::default(), Some(payer)));
        }
        response.headers_mut().insert("x-request-id", visit.id.clone());
    }

    fn address(visit: &Visit<'_>) -> Option<std::net::IpAddr> {
        visit.peer.map(|peer| peer.addr.ip().to_canonical())
    }
}

/// What webhooks are told about an error.
pub(crate) fn alarm(code: &str) -> Option<Event> {
    match code {
        "storage_full" => Some(Event::StorageFull),
        "cas_integrity_failure" => Some(Event::IntegrityFailure),
        _ => None,
    }
}

/// Whether an answer is worth a line by itself.
fn event(visit: &Visit<'_>, status: StatusCode) -> Option<&'static str> {
    let refused = matches!(status.as_u16(), 401 | 403 | 429);
    match (visit.changes, status) {
        _ if refused => Some("refusal"),
        (false, _) => None,
        (true, status) if status.is_server_error() => Some("failure"),
        (true, status) if status.is_client_error() => Some("refusal"),
        (true, _) if visit.path() == "/gc" => Some("gc"),
        (true, _) => Some("change"),
    }
}

fn rate_limited(wait: Duration, client: Option<Client>) -> ApiError {
    // Whole seconds (RFC 9110 section 10.2.3), and never none.
    let seconds = wait.as_secs().saturating_add(1);
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "the client sends too many requests")
        .with("retry_after", seconds)
        .with_header(header::RETRY_AFTER, HeaderValue::from(seconds));
    match client {
        Some(client) => error.of(client),
        None => error,
    }
}

fn cannot_log(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ServerError {
    let path: PathBuf = path.to_owned();
    move |source| ServerError::AuditLog { path, source }
}
