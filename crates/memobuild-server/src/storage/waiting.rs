//! How functions that block wait for what is asynchronous: a small runtime of the storage's own, and a limit on each wait.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};

use super::{Result, StorageError};

/// A runtime that sockets to databases and object stores live on. Clones share it; the last one ends it.
#[derive(Clone)]
pub(super) struct Waiting {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken when dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Waiting {
    pub(super) fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("storage").enable_all().build();
        let runtime =
            runtime.map_err(|source| StorageError::Io { what: "start threads for the storage".into(), source })?;
        let handle = runtime.handle().clone();
        Ok(Self { inner: Arc::new(Inner { runtime: Some(runtime), handle }) })
    }

    /// Waits for it, at most so long. Must not be called where asynchronous code runs.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if it takes longer; it is given up then.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        what: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.inner.handle.block_on(async {
            match tokio::time::timeout(limit, work).await {
                Ok(result) => result,
                Err(_) => Err(StorageError::Unavailable { what, source: "no answer in time".into() }),
            }
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last user may be asynchronous code, which must not wait for threads to end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
