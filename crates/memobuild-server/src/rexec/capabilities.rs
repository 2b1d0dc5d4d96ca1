//! Capabilities: what clients may expect, and whether this one may write.

use std::sync::Arc;

use bazel_remote_apis::build::bazel::{
    remote::execution::v2::{self as rex, capabilities_server::Capabilities as Service},
    semver::SemVer,
};
use tonic::{Request, Response, Status, async_trait};

use super::{MOST_IN_BATCH, status};
use crate::{auth::Scope, peer::Peer, routes::App};

pub(super) struct Capabilities {
    app: Arc<App>,
}

impl Capabilities {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[async_trait]
impl Service for Capabilities {
    async fn get_capabilities(
        &self,
        request: Request<rex::GetCapabilitiesRequest>,
    ) -> Result<Response<rex::ServerCapabilities>, Status> {
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.as_deref());
        let (_, scope) = self.app.auth.client(request.metadata().as_ref(), certificate).map_err(status)?;
        let limit = self.app.config.max_blob.min(self.app.config.max_size.unwrap_or(u64::MAX));
        let zstd = vec![rex::compressor::Value::Zstd.into()];
        let cache = rex::CacheCapabilities {
            digest_functions: vec![
                rex::digest_function::Value::Sha256.into(),
                rex::digest_function::Value::Blake3.into(),
            ],
            action_cache_update_capabilities: Some(rex::ActionCacheUpdateCapabilities {
                update_enabled: scope >= Scope::Write,
            }),
            max_batch_total_size_bytes: i64::try_from(MOST_IN_BATCH).unwrap_or(i64::MAX),
            max_cas_blob_size_bytes: i64::try_from(limit).unwrap_or(i64::MAX),
            symlink_absolute_path_strategy: rex::symlink_absolute_path_strategy::Value::Allowed.into(),
            supported_compressors: zstd.clone(),
            supported_batch_update_compressors: zstd,
            ..Default::default()
        };
        let version = |minor| SemVer { major: 2, minor, ..Default::default() };
        Ok(Response::new(rex::ServerCapabilities {
            cache_capabilities: Some(cache),
            low_api_version: Some(version(0)),
            high_api_version: Some(version(3)),
            ..Default::default()
        }))
    }
}
