//! Any cache that speaks the Remote Execution API (github.com/bazelbuild/remote-apis, version 2) over gRPC.
//!
//! Records are entries of its action cache ([`encoding`] says how), blobs are in its content-addressed storage by SHA-256.
//! What that API lacks is best effort: two that put a record at once may both be told that theirs is the first, and one of
//! two items that are added to a list at once may be lost. Neither is wrong: equal names have values that are equally good.
//!
//! It has a small runtime of its own; its functions block as those of any other.

mod encoding;
mod lazy;
mod status;
mod transfer;

use std::{fs::File, future::Future, io::Write, str::FromStr as _, sync::OnceLock, time::Duration};

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    self as rex, action_cache_client::ActionCacheClient, capabilities_client::CapabilitiesClient,
    content_addressable_storage_client::ContentAddressableStorageClient,
};
use memobuild_oci::registry::{ClientPem, client_pem, trusted_pem};
use tokio::runtime::{Handle, Runtime};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

pub(super) use self::lazy::Lazy;
use self::{
    encoding::{Item, Kind, action, digest},
    status::{failed, is_missing},
};
use super::{Blob, MAX_VALUE, Put, RecordName, Remote, RemoteError, RemoteOptions};

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest wait for an answer, or for the next piece of one.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest wait for the answer to a blob, which is on disk by then.
const SETTLED: Duration = Duration::from_secs(60);

/// Bytes of a message that every server takes: gRPC's own default is 4 MiB.
const MESSAGE: u64 = 3 << 20;
/// Bytes of a blob up to which it travels in one message.
const SMALL: u64 = 1 << 20;
/// Bytes of the longest answer that is taken: a list, and the blobs that it names.
const ANSWER: usize = 8 << 20;

/// A server that speaks it.
struct Grpc {
    /// Where calls run; the runtime is here to be ended.
    calls: Handle,
    runtime: Option<Runtime>,
    channel: Channel,
    instance: String,
    authorization: Option<MetadataValue<Ascii>>,
    traceparent: Option<MetadataValue<Ascii>>,
    /// What the server said of itself, once it was asked.
    limits: OnceLock<Limits>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of a blob up to which it travels in one message.
    small: u64,
}

impl Grpc {
    /// A server at `grpc://HOST:PORT`, or `grpcs://` with TLS; a path is the name of the instance. Nothing is sent yet.
    ///
    /// # Errors
    /// [`RemoteError::Foreign`] for an address, a token or certificates that can't be used, [`RemoteError::Local`] without a thread.
    fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        let RemoteOptions { url, token, certificates, trace, .. } = options;
        let wrong = |what: &dyn std::fmt::Display| RemoteError::Foreign(format!("{url:?} can't be used: {what}"));
        let (tls, rest) = match (url.strip_prefix("grpc://"), url.strip_prefix("grpcs://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong(&"expected grpc://HOST:PORT or grpcs://HOST")),
        };
        let (host, instance) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = if tls { "https" } else { "http" };
        let uri = Uri::from_str(&format!("{scheme}://{host}")).map_err(|e| wrong(&e))?;
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SILENCE)
            .keep_alive_timeout(SILENCE)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        if tls {
            let mut tls = match trusted_pem(certificates).map_err(RemoteError::Foreign)? {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_webpki_roots(),
            };
            if let Some(ClientPem { certificate, key }) = client_pem(certificates).map_err(RemoteError::Foreign)? {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(|e| wrong(&e))?;
        }
        let authorization = token.as_ref().map(|token| token.bearer().reveal().parse()).transpose();
        let authorization = authorization.map_err(|_| RemoteError::Foreign("the token can't be sent".into()))?;
        let traceparent = trace.and_then(|trace| trace.to_string().parse().ok());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("memobuild-grpc")
            .enable_all()
            .build()
            .map_err(RemoteError::Local)?;
        let channel = {
            let _entered = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self {
            calls: runtime.handle().clone(),
            runtime: Some(runtime),
            channel,
            instance: instance.trim_matches('/').to_owned(),
            authorization,
            traceparent,
            limits: OnceLock::new(),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            let mut value = authorization.clone();
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(traceparent) = &self.traceparent {
            request.metadata_mut().insert("traceparent", traceparent.clone());
        }
        request
    }

    /// Waits for one answer.
    fn wait<T>(&self, call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
        self.calls.block_on(within(SILENCE, call)).map(tonic::Response::into_inner)
    }

    fn error(&self, status: Status) -> RemoteError {
        failed(status, self.authorization.is_some())
    }

    fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(ANSWER)
    }

    fn results(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone()).max_decoding_message_size(ANSWER)
    }

    /// Asked once; a server that keeps no blobs by SHA-256 is of no use.
    fn limits(&self) -> Result<Limits, RemoteError> {
        if let Some(limits) = self.limits.get() {
            return Ok(*limits);
        }
        let request = self.request(rex::GetCapabilitiesRequest { instance_name: self.instance.clone() });
        let mut client = CapabilitiesClient::new(self.channel.clone());
        let cache = match self.wait(client.get_capabilities(request)) {
            Ok(said) => {
                said.cache_capabilities.ok_or_else(|| RemoteError::Foreign("the server has no cache".into()))?
            }
            // A server that says nothing of itself is tried.
            Err(status) if status.code() == Code::Unimplemented => rex::CacheCapabilities {
                digest_functions: vec![rex::digest_function::Value::Sha256.into()],
                ..Default::default()
            },
            Err(status) => return Err(self.error(status)),
        };
        if !cache.digest_functions.contains(&rex::digest_function::Value::Sha256.into()) {
            return Err(RemoteError::Foreign("the server does not keep blobs by SHA-256".into()));
        }
        // 0: any size that a message may have.
        let batch = u64::try_from(cache.max_batch_total_size_bytes).ok().filter(|n| *n > 0).unwrap_or(MESSAGE);
        Ok(*self.limits.get_or_init(|| Limits { small: batch.min(SMALL) }))
    }

    /// The value under an action's digest.
    fn value(&self, kind: Kind, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.limits()?;
        let request = self.request(rex::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action(kind, name)),
            inline_stdout: true,
            digest_function: rex::digest_function::Value::Sha256.into(),
            ..Default::default()
        });
        let result = match self.wait(self.results().get_action_result(request)) {
            Ok(result) => result,
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(self.error(status)),
        };
        match result.stdout_digest {
            // A server may move it among its blobs, and is asked to bring it along but need not.
            Some(digest) if result.stdout_raw.is_empty() && digest.size_bytes > 0 => self.moved(&digest),
            _ => Ok(Some(result.stdout_raw)),
        }
    }

    fn moved(&self, digest: &rex::Digest) -> Result<Option<Vec<u8>>, RemoteError> {
        let odd = || RemoteError::Odd("a value under a digest that is none".into());
        let size = u64::try_from(digest.size_bytes).map_err(|_| odd())?;
        if size > ANSWER as u64 {
            return Err(RemoteError::Odd(format!("a value of {size} bytes")));
        }
        let blob = Blob { digest: memobuild_tree::Sha256Digest::from_hex(&digest.hash).map_err(|_| odd())?, size };
        let mut value = Vec::new();
        match self.fetch(&blob, &mut value) {
            Ok(()) if memobuild_tree::Sha256Digest::of(&value) == blob.digest => Ok(Some(value)),
            Ok(()) => Err(RemoteError::Damaged(blob.digest)),
            Err(RemoteError::NoBlob(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a value under an action's digest, if its blobs are there; those that are not.
    fn update(&self, kind: Kind, name: &RecordName, value: Vec<u8>, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        // Not every server looks itself.
        let missing = self.missing(blobs)?;
        if !missing.is_empty() {
            return Ok(missing);
        }
        let request = self.request(rex::UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action(kind, name)),
            action_result: Some(encoding::result(value, blobs)),
            digest_function: rex::digest_function::Value::Sha256.into(),
            ..Default::default()
        });
        match self.wait(self.results().update_action_result(request)) {
            Ok(_) => Ok(Vec::new()),
            Err(status) => {
                // One may have gone in between.
                if is_missing(&status) {
                    let missing = self.missing(blobs)?;
                    if !missing.is_empty() {
                        return Ok(missing);
                    }
                }
                Err(self.error(status))
            }
        }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        // A name server that does not answer must not hold up the end of a build.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Gives up on a call after a while.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("nothing came for {} s", limit.as_secs()))))
}

impl Remote for Grpc {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.value(Kind::Record, name)
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        if value.len() > MAX_VALUE {
            return Err(RemoteError::Odd(format!("a value of {} bytes", value.len())));
        }
        if let Some(first) = self.record(name)? {
            return Ok(Put::Existing(first));
        }
        let missing = self.update(Kind::Record, name, value.to_vec(), blobs)?;
        Ok(if missing.is_empty() { Put::Stored } else { Put::Missing(missing) })
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        let value = self.value(Kind::List, name)?.unwrap_or_default();
        // One of another version is as good as none.
        Ok(encoding::items(&value).unwrap_or_default().into_iter().map(|item| item.value).collect())
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        if value.len() > MAX_VALUE {
            return Err(RemoteError::Odd(format!("a value of {} bytes", value.len())));
        }
        let missing = self.missing(blobs)?;
        if !missing.is_empty() {
            return Ok(missing);
        }
        let items = encoding::items(&self.value(Kind::List, name)?.unwrap_or_default()).unwrap_or_default();
        let head = Item { value: value.to_vec(), blobs: blobs.to_vec() };
        if items.first() == Some(&head) {
            return Ok(Vec::new());
        }
        let mut items = encoding::with_head(head, items);
        loop {
            let all: Vec<Blob> = items.iter().flat_map(|item| item.blobs.iter().copied()).collect();
            let missing = self.update(Kind::List, name, encoding::list(&items), &all)?;
            if missing.is_empty() || blobs.iter().any(|blob| missing.contains(blob)) {
                return Ok(missing.into_iter().filter(|blob| blobs.contains(blob)).collect());
            }
            // Older items go with what they need. Each turn takes one at least, and the head stays.
            items.retain(|item| !item.blobs.iter().any(|blob| missing.contains(blob)));
        }
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        if blobs.is_empty() {
            return Ok(Vec::new());
        }
        self.limits()?;
        let request = self.request(rex::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: blobs.iter().map(digest).collect(),
            digest_function: rex::digest_function::Value::Sha256.into(),
        });
        let said = self.wait(self.cas().find_missing_blobs(request)).map_err(|status| self.error(status))?;
        let missing: std::collections::HashSet<&str> =
            said.missing_blob_digests.iter().map(|digest| digest.hash.as_str()).collect();
        Ok(blobs.iter().filter(|blob| missing.contains(blob.digest.hex().as_str())).copied().collect())
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        if blob.size <= self.limits()?.small { self.fetch_small(blob, to) } else { self.fetch_stream(blob, to) }
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        if blob.size <= self.limits()?.small { self.send_small(blob, from) } else { self.send_stream(blob, from) }
    }
}

#[cfg(test)]
mod tests;
