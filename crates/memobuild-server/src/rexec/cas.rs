//! ContentAddressableStorage: which blobs are missing, and small blobs in batches.

use std::{io::Read as _, sync::Arc};

use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{
        self as rex, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
        compressor::Value as Compressor, content_addressable_storage_server::ContentAddressableStorage as Service,
    },
    google::rpc,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    MOST_IN_BATCH,
    digest::{self, Function},
    status,
    tree::{self, Pages},
};
use crate::{
    guard::alarm,
    metrics::add,
    reply::{ApiError, blocking},
    results::whole,
    routes::App,
    storage::{CheckedWriter, StorageError},
};

/// The level at which answers are packed: they are made while the client waits.
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Blobs below this size, in bytes, are not worth packing.
const WORTH_PACKING: u64 = 512;

pub(super) struct Cas {
    app: Arc<App>,
}

impl Cas {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[async_trait]
impl Service for Cas {
    type GetTreeStream = Pages;
    type GetChunkMappingStream = tonic::codegen::tokio_stream::Empty<Result<rex::GetChunkMappingResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<rex::FindMissingBlobsRequest>,
    ) -> Result<Response<rex::FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        let storage = self.app.storage.clone();
        let missing = blocking(move || {
            let function = Function::of(request.digest_function)?;
            let mut missing = Vec::new();
            for digest in request.blob_digests {
                let (id, size) = digest::blob(function, &digest)?;
                if !(digest::is_empty(id) && size == 0) && storage.blob_size(id)? != Some(size) {
                    missing.push(digest);
                }
            }
            Ok::<_, ApiError>(missing)
        })
        .await
        .map_err(status)?;
        Ok(Response::new(rex::FindMissingBlobsResponse { missing_blob_digests: missing }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<rex::BatchUpdateBlobsRequest>,
    ) -> Result<Response<rex::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        let function = Function::of(request.digest_function).map_err(status)?;
        let total: usize = request.requests.iter().map(|request| request.data.len()).sum();
        if total > MOST_IN_BATCH {
            return Err(Status::invalid_argument(format!("more than {MOST_IN_BATCH} bytes in a batch")));
        }
        let app = self.app.clone();
        let (responses, failures) = blocking(move || {
            let mut failures = Vec::new();
            let stored = request.requests.into_iter().map(|request| {
                let digest = request.digest.clone();
                let stored = store(&app, function, request);
                failures.extend(stored.as_ref().err().map(ApiError::failure));
                batch_update_blobs_response::Response { digest, status: Some(told(stored)) }
            });
            let stored: Vec<_> = stored.collect();
            Ok::<_, ApiError>((stored, failures))
        })
        .await
        .map_err(status)?;
        let mut response = Response::new(rex::BatchUpdateBlobsResponse { responses });
        // The call as such went well: logs and webhooks are told of what was worst in it.
        if let Some(worst) = failures.into_iter().max_by_key(|failure| alarm(failure.code).is_some()) {
            response.extensions_mut().insert(worst);
        }
        Ok(response)
    }

    async fn batch_read_blobs(
        &self,
        request: Request<rex::BatchReadBlobsRequest>,
    ) -> Result<Response<rex::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        let function = Function::of(request.digest_function).map_err(status)?;
        let total =
            request.digests.iter().map(|d| u64::try_from(d.size_bytes).unwrap_or(0)).fold(0, u64::saturating_add);
        if total > MOST_IN_BATCH as u64 {
            return Err(Status::invalid_argument(format!("more than {MOST_IN_BATCH} bytes in a batch")));
        }
        let zstd = request.acceptable_compressors.contains(&Compressor::Zstd.into());
        let app = self.app.clone();
        let responses = blocking(move || {
            let read = request.digests.into_iter().map(|digest| {
                let read = load(&app, function, &digest, zstd);
                let (data, compressor) = read.as_ref().map(Clone::clone).unwrap_or_default();
                batch_read_blobs_response::Response {
                    digest: Some(digest),
                    data,
                    compressor,
                    status: Some(told(read.map(drop))),
                }
            });
            Ok::<_, ApiError>(read.collect())
        })
        .await
        .map_err(status)?;
        Ok(Response::new(rex::BatchReadBlobsResponse { responses }))
    }

    async fn get_tree(&self, request: Request<rex::GetTreeRequest>) -> Result<Response<Pages>, Status> {
        let pages = tree::pages(self.app.storage.clone(), request.into_inner()).await.map_err(status)?;
        Ok(Response::new(pages))
    }

    async fn split_blob(
        &self,
        _request: Request<rex::SplitBlobRequest>,
    ) -> Result<Response<rex::SplitBlobResponse>, Status> {
        Err(unsupported())
    }

    async fn get_chunk_mapping(
        &self,
        _request: Request<rex::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(unsupported())
    }

    async fn splice_blob(
        &self,
        _request: Request<rex::SpliceBlobRequest>,
    ) -> Result<Response<rex::SpliceBlobResponse>, Status> {
        Err(unsupported())
    }

    async fn register_chunk_mapping(
        &self,
        _request: Request<Streaming<rex::RegisterChunkMappingRequest>>,
    ) -> Result<Response<rex::RegisterChunkMappingResponse>, Status> {
        Err(unsupported())
    }
}

/// As the capabilities say.
fn unsupported() -> Status {
    Status::unimplemented("blobs are not split here")
}

/// How it went with one blob of a batch.
fn told(result: Result<(), ApiError>) -> rpc::Status {
    match result {
        Ok(()) => rpc::Status::default(),
        Err(error) => {
            let status = status(error);
            rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: Vec::new() }
        }
    }
}

fn store(app: &App, function: Function, request: batch_update_blobs_request::Request) -> Result<(), ApiError> {
    let digest = request.digest.ok_or_else(|| ApiError::bad("invalid_digest", "a blob has no digest"))?;
    let (id, size) = digest::blob(function, &digest)?;
    let data = match Compressor::try_from(request.compressor) {
        Ok(Compressor::Identity) => request.data,
        Ok(Compressor::Zstd) => unpacked(&request.data, size)?,
        _ => return Err(ApiError::bad("unsupported_encoding", "blobs may be compressed with zstd only")),
    };
    if data.len() as u64 != size {
        return Err(ApiError::bad("cas_integrity_failure", format!("{} bytes of a blob of {size}", data.len())));
    }
    let inner = match size == 0 || app.storage.blob_size(id)?.is_some() {
        true => None,
        false => Some(app.storage.blob_create(id)?),
    };
    let mut writer = CheckedWriter::new(id, size, inner);
    writer.take(&data)?;
    writer.finish().map(drop).map_err(|error| refused(app, error))
}

/// A blob may be a little bigger than a batch once it is unpacked, and no more.
fn unpacked(data: &[u8], size: u64) -> Result<Vec<u8>, ApiError> {
    if size > 16 * MOST_IN_BATCH as u64 {
        return Err(ApiError::too_large(16 * MOST_IN_BATCH as u64));
    }
    let bad = |_| ApiError::bad("invalid_encoding", "a blob is not valid zstd");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(bad)?;
    decoder.window_log_max(27).map_err(bad)?;
    let mut bytes = Vec::new();
    decoder.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(bad)?;
    Ok(bytes)
}

/// Counts what came damaged.
pub(super) fn refused(app: &App, error: StorageError) -> ApiError {
    if matches!(error, StorageError::Integrity { .. }) {
        add(&app.metrics.integrity_failures, 1);
    }
    error.into()
}

/// A blob's bytes and how they are compressed.
fn load(app: &App, function: Function, digest: &rex::Digest, zstd: bool) -> Result<(Vec<u8>, i32), ApiError> {
    let (id, size) = digest::blob(function, digest)?;
    let blob = whole(&*app.storage, id, size)?;
    app.metrics.looked_up(false, blob.is_some());
    let bytes = blob.ok_or_else(|| ApiError::not_found("blob"))?;
    let packed = match zstd && size >= WORTH_PACKING {
        true => zstd::bulk::compress(&bytes, ZSTD_LEVEL).ok().filter(|packed| packed.len() < bytes.len()),
        false => None,
    };
    let (data, compressor) = match packed {
        Some(packed) => (packed, Compressor::Zstd),
        None => (bytes, Compressor::Identity),
    };
    add(&app.metrics.sent_bytes, data.len() as u64);
    Ok((data, compressor.into()))
}
