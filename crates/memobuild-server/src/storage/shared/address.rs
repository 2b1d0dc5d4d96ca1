//! `s3://`, `gs://` and `az://`: from an address to a client, with limits on how long it tries.
//!
//! Credentials, endpoints and all else come from the environment, by the names that each provider's own tools have
//! (`AWS_*`, `GOOGLE_*`, `AZURE_*`).

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
};

use crate::storage::{Result, StorageError};

/// How long one request may take, unless the environment says otherwise. A part of 8 MiB at 280 kB/s.
const REQUEST: (ClientConfigKey, &str) = (ClientConfigKey::Timeout, "30 seconds");

/// The same for connecting.
const CONNECT: (ClientConfigKey, &str) = (ClientConfigKey::ConnectTimeout, "5 seconds");

/// What fails in a way that may pass is tried again for about as long as a client waits.
fn retry() -> RetryConfig {
    let rule =
        memobuild_observe::RetryConfig { max_attempts: 5, max_delay: Duration::from_secs(2), ..Default::default() };
    let backoff =
        BackoffConfig { init_backoff: rule.initial_delay, max_backoff: rule.max_delay, base: rule.backoff_factor };
    RetryConfig { backoff, max_retries: rule.max_attempts as usize - 1, retry_timeout: Duration::from_secs(20) }
}

/// A client, and the prefix of all names.
pub(super) fn open(address: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let bad = |reason: String| StorageError::Address { what: address.to_owned(), reason };
    let (scheme, rest) = address.split_once("://").ok_or_else(|| bad("expected s3://, gs:// or az://".into()))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if bucket.is_empty() || !bucket.bytes().all(plain) {
        return Err(bad("expected SCHEME://BUCKET/PREFIX".into()));
    }
    let prefix = Path::parse(prefix).map_err(|error| bad(error.to_string()))?;
    // One provider is linked; other code may have chosen it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{scheme}://{bucket}");
    let built: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        "s3" => {
            let mut builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry());
            for (key, value) in [REQUEST, CONNECT] {
                let key = AmazonS3ConfigKey::Client(key);
                if builder.get_config_value(&key).is_none_or(|v| v.is_empty()) {
                    builder = builder.with_config(key, value);
                }
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry());
            for (key, value) in [REQUEST, CONNECT] {
                let key = GoogleConfigKey::Client(key);
                if builder.get_config_value(&key).is_none_or(|v| v.is_empty()) {
                    builder = builder.with_config(key, value);
                }
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry());
            for (key, value) in [REQUEST, CONNECT] {
                let key = AzureConfigKey::Client(key);
                if builder.get_config_value(&key).is_none_or(|v| v.is_empty()) {
                    builder = builder.with_config(key, value);
                }
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        _ => return Err(bad("expected s3://, gs:// or az://".into())),
    };
    let store = built.map_err(|error| bad(error.to_string()))?;
    Ok((store, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for bad in
            ["bucket", "s3://", "s3:///prefix", "file:///tmp", "s3://bucket/a//b", "s3://a@b/c", "http://host/bucket"]
        {
            assert!(matches!(open(bad), Err(StorageError::Address { .. })), "{bad}");
        }
        for (good, prefix) in
            [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/a/b", "a/b"), ("s3://b.c/a/", "a")]
        {
            assert!(open(good).is_ok_and(|(_, path)| path.as_ref() == prefix), "{good}");
        }
    }
}
