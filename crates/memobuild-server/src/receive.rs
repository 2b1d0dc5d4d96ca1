//! Bodies of requests: into a blob, or into memory. A client that sends nothing for too long, or keeps a connection busy
//! with a few bytes, is sent away.

use std::{
    io::{self, Write as _},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use hyper::body::Body as _;
use tokio::task::JoinHandle;

use crate::{
    metrics::{Metrics, add},
    reply::{ApiError, blocking},
    storage::{CheckedWriter, Committed, StorageError},
};

/// Bytes handed to the storage at a time. While it writes, the next are received.
const BATCH: usize = 256 << 10;

/// The least that a client must send on average once its first patience is over, in bytes per second.
const LEAST_RATE: u64 = 1024;

/// A body being received.
pub(crate) struct Incoming {
    body: Body,
    idle: Duration,
    began: Instant,
    received: u64,
    metrics: Arc<Metrics>,
}

impl Incoming {
    pub(crate) fn new(body: Body, idle: Duration, metrics: Arc<Metrics>) -> Self {
        Self { body, idle, began: Instant::now(), received: 0, metrics }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let frame = tokio::time::timeout(self.idle, frame).await.map_err(|_| too_slow())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| ApiError::bad("incomplete_body", "the body ended early"))?;
            // Trailers are of no use here.
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            add(&self.metrics.received_bytes, bytes.len() as u64);
            let took = self.began.elapsed();
            if took > self.idle && self.received < took.as_secs().saturating_mul(LEAST_RATE) {
                return Err(too_slow());
            }
            return Ok(Some(bytes));
        }
    }

    /// All of it, of at most `limit` bytes.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > limit {
                return Err(ApiError::too_large(limit as u64));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// Into a blob, which is there once this has given its answer.
    pub(crate) async fn into_blob(mut self, sink: Sink) -> Result<Committed, ApiError> {
        let mut state = State::Idle(sink);
        let mut batch = Vec::new();
        let mut size = 0;
        loop {
            let bytes = self.next().await?;
            let last = bytes.is_none();
            size += bytes.as_ref().map_or(0, Bytes::len);
            batch.extend(bytes);
            if !last && size < BATCH {
                continue;
            }
            let mut sink = state.finished().await?;
            let full = std::mem::take(&mut batch);
            size = 0;
            if last {
                return blocking(move || {
                    full.iter().try_for_each(|bytes| sink.write(bytes))?;
                    sink.finish()
                })
                .await;
            }
            state = State::Writing(tokio::task::spawn_blocking(move || {
                full.iter().try_for_each(|bytes| sink.write(bytes))?;
                Ok(sink)
            }));
        }
    }
}

enum State {
    Idle(Sink),
    Writing(JoinHandle<Result<Sink, ApiError>>),
}

impl State {
    async fn finished(self) -> Result<Sink, ApiError> {
        match self {
            Self::Idle(sink) => Ok(sink),
            Self::Writing(task) => task.await.map_err(|_| ApiError::internal())?,
        }
    }
}

/// What a blob's body is written to, decoded if it is encoded.
pub(crate) enum Sink {
    Plain(CheckedWriter),
    Zstd(Box<zstd::stream::write::Decoder<'static, CheckedWriter>>),
}

impl Sink {
    /// Decodes zstd, whose frames may ask for windows of at most 128 MiB (RFC 8878 section 3.1.1.1.2).
    pub(crate) fn zstd(writer: CheckedWriter) -> Result<Self, ApiError> {
        let mut decoder = zstd::stream::write::Decoder::new(writer).map_err(|_| ApiError::internal())?;
        decoder.window_log_max(27).map_err(|_| ApiError::internal())?;
        Ok(Self::Zstd(Box::new(decoder)))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        match self {
            Self::Plain(writer) => Ok(writer.take(bytes)?),
            Self::Zstd(decoder) => decoder.write_all(bytes).map_err(decoding),
        }
    }

    /// The writer, with all that could be decoded.
    pub(crate) fn into_writer(self) -> Result<CheckedWriter, ApiError> {
        match self {
            Self::Plain(writer) => Ok(writer),
            Self::Zstd(mut decoder) => {
                decoder.flush().map_err(decoding)?;
                Ok(decoder.into_inner())
            }
        }
    }

    fn finish(self) -> Result<Committed, ApiError> {
        Ok(self.into_writer()?.finish()?)
    }
}

/// A failure of the storage is inside the decoder's; anything else is the body's fault.
fn decoding(error: io::Error) -> ApiError {
    match error.downcast::<StorageError>() {
        Ok(error) => error.into(),
        Err(_) => ApiError::bad("invalid_encoding", "the body is not valid zstd"),
    }
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body comes too slowly")
}
