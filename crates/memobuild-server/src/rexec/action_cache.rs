//! ActionCache: results under the digests of their actions.
//!
//! A result is given only while all that it names is there: the storage sees to that for every blob that was found in it
//! when it came.

use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    self as rex, action_cache_server::ActionCache as Service,
};
use prost::Message as _;
use tonic::{Request, Response, Status, async_trait};

use super::{
    digest::{self, Function},
    status,
};
use crate::{
    RecordKey,
    reply::{ApiError, blocking},
    results,
    routes::App,
    storage::Storage,
};

/// Bytes of blobs that are put into one answer because the client asked for them. The answer must stay below the 4 MiB
/// that gRPC clients take.
const INLINE: u64 = 2 << 20;

pub(super) struct ActionCache {
    app: Arc<App>,
}

impl ActionCache {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// The slot of an action. Over HTTP it is the same one, for SHA-256.
fn slot(instance: &str, function: Function, action: Option<&rex::Digest>) -> Result<RecordKey, ApiError> {
    let action = action.ok_or_else(|| ApiError::bad("invalid_digest", "the action has no digest"))?;
    let (id, _) = digest::blob(function, action)?;
    Ok(results::key("ac", instance.trim_matches('/'), function, id.as_bytes()))
}

#[async_trait]
impl Service for ActionCache {
    async fn get_action_result(
        &self,
        request: Request<rex::GetActionResultRequest>,
    ) -> Result<Response<rex::ActionResult>, Status> {
        let request = request.into_inner();
        let storage = self.app.storage.clone();
        let found = blocking(move || {
            let function = Function::of(request.digest_function)?;
            let key = slot(&request.instance_name, function, request.action_digest.as_ref())?;
            let value = results::get(&*storage, &key)?;
            // Over HTTP anything may be put there.
            let Some(mut result) = value.and_then(|v| rex::ActionResult::decode(v.as_slice()).ok()) else {
                return Ok(None);
            };
            inline(&*storage, function, &request, &mut result)?;
            Ok::<_, ApiError>(Some(result))
        })
        .await
        .map_err(status)?;
        self.app.metrics.looked_up(true, found.is_some());
        found.map(Response::new).ok_or_else(|| Status::not_found("no result of this action"))
    }

    async fn update_action_result(
        &self,
        request: Request<rex::UpdateActionResultRequest>,
    ) -> Result<Response<rex::ActionResult>, Status> {
        let request = request.into_inner();
        let storage = self.app.storage.clone();
        let result = blocking(move || {
            let function = Function::of(request.digest_function)?;
            let key = slot(&request.instance_name, function, request.action_digest.as_ref())?;
            let result = request.action_result.ok_or_else(|| ApiError::bad("invalid_value", "there is no result"))?;
            let blobs = results::needs(&*storage, function, &result)?;
            let missing = results::put(&*storage, &key, &result.encode_to_vec(), blobs)?;
            if missing.is_empty() { Ok(result) } else { Err(digest::missing(&missing)) }
        })
        .await
        .map_err(status)?;
        Ok(Response::new(result))
    }
}

/// Puts the contents that a client asked for into the result, as far as there is room: it may fetch the others.
fn inline(
    storage: &dyn Storage,
    function: Function,
    request: &rex::GetActionResultRequest,
    result: &mut rex::ActionResult,
) -> Result<(), ApiError> {
    let mut room = INLINE.saturating_sub(result.encoded_len() as u64);
    let mut fill = |digest: Option<&rex::Digest>, into: &mut Vec<u8>| {
        let Some(digest) = digest.filter(|_| into.is_empty()) else { return Ok(()) };
        let (id, size) = digest::blob(function, digest)?;
        if size == 0 || size > room {
            return Ok(());
        }
        if let Some(bytes) = results::whole(storage, id, size)? {
            *into = bytes;
            room -= size;
        }
        Ok::<_, ApiError>(())
    };
    if request.inline_stdout {
        fill(result.stdout_digest.as_ref(), &mut result.stdout_raw)?;
    }
    if request.inline_stderr {
        fill(result.stderr_digest.as_ref(), &mut result.stderr_raw)?;
    }
    for file in &mut result.output_files {
        if request.inline_output_files.contains(&file.path) {
            fill(file.digest.as_ref(), &mut file.contents)?;
        }
    }
    Ok(())
}
