//! ByteStream: blobs of any size, in both directions, plain or as zstd.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::StatusCode;
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
    byte_stream_server::ByteStream,
};
use hyper::body::Body as _;
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::tokio_stream::Stream};

use super::{
    cas::{ZSTD_LEVEL, refused},
    digest::{self, Resource},
    status,
    uploads::Uploads,
};
use crate::{
    body::BlobBody,
    receive::Sink,
    reply::{ApiError, blocking},
    routes::App,
    storage::{CheckedWriter, StorageError},
};

/// Bytes handed to the storage at a time.
const BATCH: usize = 256 << 10;

/// How many times the patience for one message an interrupted upload is kept.
const KEPT: u32 = 10;

pub(super) struct Bytes {
    app: Arc<App>,
    uploads: Arc<Uploads>,
}

impl Bytes {
    pub(super) fn new(app: Arc<App>) -> Self {
        let uploads = Uploads::new(app.config.idle_timeout.saturating_mul(KEPT));
        Self { app, uploads }
    }
}

/// The pieces of a blob as messages.
pub(super) struct Pieces(Option<BlobBody>);

impl Stream for Pieces {
    type Item = Result<ReadResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(ReadResponse { data: frame.into_data().map(Vec::from).unwrap_or_default() }),
            Err(error) => {
                tracing::error!("cannot read a blob: {error}");
                self.0 = None;
                Err(Status::internal("the server failed; its log says why"))
            }
        }))
    }
}

#[async_trait]
impl ByteStream for Bytes {
    type ReadStream = Pieces;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Pieces>, Status> {
        let app = self.app.clone();
        let pieces = blocking(move || pieces(&app, &request.into_inner())).await;
        let found = match &pieces {
            Ok(_) => Some(true),
            Err(error) => (error.status() == StatusCode::NOT_FOUND).then_some(false),
        };
        if let Some(found) = found {
            self.app.metrics.looked_up(false, found);
        }
        pieces.map(Response::new).map_err(status)
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        // On a task of its own: if the client goes away this call is dropped, and what came is to be kept.
        let task = tokio::spawn(receive(self.app.clone(), self.uploads.clone(), request.into_inner()));
        task.await.map_err(|_| status(ApiError::internal()))?.map(Response::new)
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let name = request.into_inner().resource_name;
        let resource = Resource::to_write(&name).map_err(status)?;
        let app = self.app.clone();
        let complete = blocking(move || is_there(&app, &resource)).await.map_err(status)?;
        // Of an upload that is not known nothing was kept: its client begins at 0, as it would anyway.
        let committed = if complete { resource.size } else { self.uploads.committed(&name) };
        Ok(Response::new(QueryWriteStatusResponse { committed_size: signed(committed), complete }))
    }
}

fn pieces(app: &App, request: &ReadRequest) -> Result<Pieces, ApiError> {
    let resource = Resource::to_read(&request.resource_name)?;
    let bad = |message: &str| ApiError::bad("invalid_value", message);
    let limit = u64::try_from(request.read_limit).map_err(|_| bad("the limit is negative"))?;
    let size = resource.size;
    let out_of_range = || ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "no such offset");
    let offset = u64::try_from(request.read_offset).ok().filter(|offset| *offset <= size).ok_or_else(out_of_range)?;
    if resource.zstd && limit > 0 {
        return Err(bad("what is compressed has no limit"));
    }
    if size == 0 && digest::is_empty(resource.id) {
        // Not even no bytes would be zstd.
        let source: Box<dyn std::io::Read + Send> = match resource.zstd {
            true => Box::new(std::io::Cursor::new(zstd::bulk::compress(&[], ZSTD_LEVEL).map_err(reading)?)),
            false => return Ok(Pieces(None)),
        };
        return Ok(Pieces(Some(BlobBody::start(source, None, app.metrics.clone()).map_err(reading)?)));
    }
    let blob = app.storage.blob_read(resource.id, offset)?.filter(|blob| blob.size == size);
    let blob = blob.ok_or_else(|| ApiError::not_found("blob"))?;
    let (source, length): (Box<dyn std::io::Read + Send>, _) = if resource.zstd {
        (Box::new(zstd::stream::read::Encoder::new(blob.content, ZSTD_LEVEL).map_err(reading)?), None)
    } else {
        let rest = size - offset;
        (blob.content, Some(if limit == 0 { rest } else { rest.min(limit) }))
    };
    Ok(Pieces(Some(BlobBody::start(source, length, app.metrics.clone()).map_err(reading)?)))
}

fn reading(source: std::io::Error) -> StorageError {
    StorageError::Io { what: "read a blob".into(), source }
}

/// Whether there is nothing left to upload.
fn is_there(app: &App, resource: &Resource) -> Result<bool, StorageError> {
    let empty = resource.size == 0 && digest::is_empty(resource.id);
    Ok(empty || app.storage.blob_size(resource.id)? == Some(resource.size))
}

/// Takes an upload to its end, or as far as it comes.
async fn receive(
    app: Arc<App>,
    uploads: Arc<Uploads>,
    mut messages: Streaming<WriteRequest>,
) -> Result<WriteResponse, Status> {
    let mut message = messages.message().await?.ok_or_else(|| Status::invalid_argument("there is no message"))?;
    let name = message.resource_name.clone();
    let resource = Resource::to_write(&name).map_err(status)?;
    let limit = app.config.max_blob.min(app.config.max_size.unwrap_or(u64::MAX));
    if resource.size > limit {
        return Err(status(ApiError::too_large(limit)));
    }
    let there = {
        let app = app.clone();
        blocking(move || is_there(&app, &resource)).await.map_err(status)?
    };
    if there {
        uploads.restart(&name);
        return Ok(WriteResponse { committed_size: if resource.zstd { -1 } else { signed(resource.size) } });
    }
    let mut expected = message.write_offset;
    let mut sink = begin(&app, &uploads, &name, resource, expected).await.map_err(status)?;
    let mut batch = Vec::new();
    loop {
        if message.write_offset != expected || !(message.resource_name.is_empty() || message.resource_name == name) {
            return Err(Status::invalid_argument(format!("expected more of the same upload, at offset {expected}")));
        }
        expected = expected.saturating_add(i64::try_from(message.data.len()).unwrap_or(i64::MAX));
        // Most often a message is all that there is.
        match batch.is_empty() {
            true => batch = message.data,
            false => batch.extend_from_slice(&message.data),
        }
        if message.finish_write {
            let app = app.clone();
            blocking(move || finish(&app, sink, &batch, resource)).await.map_err(status)?;
            return Ok(WriteResponse { committed_size: expected });
        }
        if batch.len() >= BATCH {
            let full = std::mem::take(&mut batch);
            sink = blocking(move || written(sink, &full)).await.map_err(status)?;
        }
        let next = messages.message().await;
        if let Ok(Some(next)) = next {
            message = next;
            continue;
        }
        let writer = blocking(move || written(sink, &batch)?.into_writer()).await.map_err(status)?;
        let committed = writer.size();
        uploads.park(name, writer);
        return next.map(|_| WriteResponse { committed_size: signed(committed) });
    }
}

async fn begin(
    app: &Arc<App>,
    uploads: &Uploads,
    name: &str,
    resource: Resource,
    offset: i64,
) -> Result<Sink, ApiError> {
    let writer = if offset == 0 {
        uploads.restart(name);
        let app = app.clone();
        let create = move || app.storage.blob_create(resource.id);
        CheckedWriter::new(resource.id, resource.size, Some(blocking(create).await?))
    } else {
        let kept = u64::try_from(offset).ok().and_then(|offset| uploads.resume(name, offset));
        kept.ok_or_else(|| {
            let committed = uploads.committed(name);
            ApiError::bad("invalid_value", format!("the upload goes on at offset {committed}, not {offset}"))
        })?
    };
    if resource.zstd { Sink::zstd(writer) } else { Ok(Sink::Plain(writer)) }
}

fn written(mut sink: Sink, bytes: &[u8]) -> Result<Sink, ApiError> {
    sink.write(bytes).map_err(|error| match error.code() {
        // The name says how long the blob is.
        "too_large" => ApiError::bad("cas_integrity_failure", "the blob is longer than its name says"),
        _ => error,
    })?;
    Ok(sink)
}

fn finish(app: &App, sink: Sink, rest: &[u8], resource: Resource) -> Result<(), ApiError> {
    let writer = written(sink, rest)?.into_writer()?;
    if writer.size() != resource.size {
        let message = format!("{} bytes of a blob of {}", writer.size(), resource.size);
        return Err(ApiError::bad("cas_integrity_failure", message));
    }
    writer.finish().map(drop).map_err(|error| refused(app, error))
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
