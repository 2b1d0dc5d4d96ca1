//! Answers that are no blobs: JSON, of errors too.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use memobuild_observe::log_cas_verify_fail;
use serde_json::{Map, Value};

use crate::{peer::Client, storage::StorageError};

/// An answer as JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// As [`json`], of a type that the API's description has.
pub(crate) fn of(status: StatusCode, answer: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_value(answer) {
        Ok(value) => json(status, &value),
        Err(_) => ApiError::internal().into_response(),
    }
}

/// An answer that says what went wrong: `{"error": CODE, "message": TEXT, ...}`. The code is stable.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    client: Option<Box<Client>>,
    fields: Box<Map<String, Value>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let fields = [("error", Value::from(code)), ("message", Value::from(message.into()))];
        let fields = fields.map(|(k, v)| (k.to_owned(), v)).into_iter().collect();
        let fields = Box::new(fields);
        Self { status, code, client: None, fields, headers: Vec::new() }
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such {what}"))
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("longer than {limit} bytes")).with("limit", limit)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; its log says why")
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// Of a client that is known although it is refused.
    pub(crate) fn of(mut self, client: Client) -> Self {
        self.client = Some(Box::new(client));
        self
    }

    /// What logs and webhooks are told of it.
    pub(crate) fn failure(&self) -> Failure {
        Failure { status: self.status, code: self.code, client: self.client.clone() }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says to people.
    pub(crate) fn message(&self) -> &str {
        self.fields.get("message").and_then(Value::as_str).unwrap_or_default()
    }

    /// With one field more.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What failed, for those who see the answer on its way out: an extension of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}")]
pub(crate) struct Failure {
    /// The answer's own status, or what it would be if it were not gRPC's.
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) client: Option<Box<Client>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let failure = self.failure();
        let mut response = json(self.status, &Value::Object(*self.fields));
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(failure);
        response
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Integrity { expected, actual, size } => {
                log_cas_verify_fail!(expected, actual, size);
                Self::bad("cas_integrity_failure", "the body is not what its digest names")
                    .with("expected", expected.to_string())
                    .with("actual", actual.to_string())
                    .with("data_size", size)
            }
            StorageError::TooLarge { limit } => Self::too_large(limit),
            StorageError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", "the storage is full"),
            error @ StorageError::Unavailable { .. } => {
                tracing::warn!("{}", chain(&error));
                let message = "the storage does not answer now; try again later";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
            // Paths are for the log only.
            error @ (StorageError::Io { .. }
            | StorageError::Database(_)
            | StorageError::Postgres(_)
            | StorageError::Objects(_)
            | StorageError::Address { .. }
            | StorageError::Mismatch(_)
            | StorageError::InUse(_)
            | StorageError::Format { .. }) => {
                tracing::error!("{}", chain(&error));
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "storage_error",
                    "the storage failed; the server's log says why",
                )
            }
        }
    }
}

/// An error and what it comes from, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Runs what blocks on a thread for that. It goes on to its end even if the client goes away.
pub(crate) async fn blocking<T: Send + 'static, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ApiError>
where
    E: Into<ApiError> + Send + 'static,
{
    // Log lines from there belong to the request too.
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => {
            tracing::error!("a request's work ended early: {error}");
            Err(ApiError::internal())
        }
    }
}
