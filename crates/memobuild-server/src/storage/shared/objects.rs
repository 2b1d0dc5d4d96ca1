//! Objects: uploaded from a file, deleted, and the one that says which database they belong to.

use std::{io::Read, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, path::Path};
use tokio::{sync::Semaphore, task::JoinSet};

use super::reader::ObjectReader;
use crate::storage::{Result, StorageError, waiting::Waiting};

/// Bytes of a part. What is longer is sent in parts of this length: at most 10,000 of them, which is above the longest
/// blob, each at least 5 MiB (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
const PART: u64 = 8 << 20;

/// Parts of one blob sent at once.
const AT_ONCE: usize = 4;

/// MiB in memory of all that is being uploaded.
const MEMORY: u32 = 96;

/// How long a short request may take, with all tries.
const LIMIT: Duration = Duration::from_secs(30);

/// The same for what only says whether it answers.
const READY_LIMIT: Duration = Duration::from_secs(3);

/// What the object store is called where it does not answer.
pub(super) const WHAT: &str = "the object store";

/// The object that says which database the others belong to.
const MARKER: &str = "memobuild-server";

/// An object store, and a prefix in it.
pub(in crate::storage) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    waiting: Waiting,
    memory: Arc<Semaphore>,
}

impl Objects {
    pub(in crate::storage) fn new(store: Arc<dyn ObjectStore>, prefix: Path, waiting: Waiting) -> Self {
        Self { store, prefix, waiting, memory: Arc::new(Semaphore::new(MEMORY as usize)) }
    }

    fn path(&self, object: &str) -> Path {
        // Names are ours: of letters, digits, dots and slashes.
        Path::from_iter(self.prefix.parts().chain(Path::from(object).parts()))
    }

    /// How long an upload may take: it is given up then. 256 KiB a second and five minutes.
    pub(super) fn upload_limit(size: u64) -> Duration {
        Duration::from_secs(300 + size / (256 << 10))
    }

    /// Uploads so many bytes. The object is there whole after this, or not at all.
    pub(super) fn put(&self, object: &str, content: &mut impl Read, size: u64) -> Result<()> {
        let path = self.path(object);
        self.waiting.wait(Self::upload_limit(size), WHAT, async {
            if size <= PART {
                let _memory = self.memory(size).await?;
                let payload = PutPayload::from(read(content, size)?);
                self.store.put(&path, payload).await.map_err(failure)?;
                return Ok(());
            }
            let mut upload = self.store.put_multipart(&path).await.map_err(failure)?;
            let mut parts = JoinSet::new();
            let sent: Result<()> = async {
                let mut rest = size;
                while rest > 0 {
                    if parts.len() >= AT_ONCE {
                        joined(parts.join_next().await)?;
                    }
                    let length = rest.min(PART);
                    let memory = self.memory(length).await?;
                    let part = upload.put_part(PutPayload::from(read(content, length)?));
                    parts.spawn(async move {
                        let _memory = memory;
                        part.await
                    });
                    rest -= length;
                }
                while !parts.is_empty() {
                    joined(parts.join_next().await)?;
                }
                upload.complete().await.map(drop).map_err(failure)
            }
            .await;
            if sent.is_err() {
                parts.shutdown().await;
                // What can't be taken back is what a rule of the bucket for unfinished uploads is for.
                if let Err(error) = upload.abort().await {
                    tracing::warn!("cannot take back the unfinished upload of {path}: {error}");
                }
            }
            sent
        })
    }

    async fn memory(&self, size: u64) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let megabytes = u32::try_from(size.div_ceil(1 << 20)).unwrap_or(MEMORY).clamp(1, MEMORY);
        // Never closed.
        self.memory.clone().acquire_many_owned(megabytes).await.map_err(|error| unavailable(error.into()))
    }

    /// An object's bytes from here on; `None` if it is not there.
    pub(super) fn read(&self, object: &str, from: u64, size: u64) -> Result<Option<ObjectReader>> {
        ObjectReader::open(self.store.clone(), self.waiting.clone(), self.path(object), from, size)
    }

    /// Deletes objects; those that are not there are fine.
    pub(super) fn delete(&self, objects: &[String]) -> Result<()> {
        let paths: Vec<_> = objects.iter().map(|object| Ok(self.path(object))).collect();
        self.waiting.wait(LIMIT, WHAT, async {
            let mut deleted = self.store.delete_stream(futures_util::stream::iter(paths).boxed());
            while let Some(result) = deleted.next().await {
                match result {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(failure(error)),
                }
            }
            Ok(())
        })
    }

    /// Whether the marker can be read.
    pub(super) fn ready(&self) -> Result<()> {
        let path = self.path(MARKER);
        self.waiting.wait(READY_LIMIT, WHAT, async {
            match self.store.head(&path).await {
                Ok(_) => Ok(()),
                Err(error @ Error::NotFound { .. }) => Err(unavailable(error.into())),
                Err(error) => Err(failure(error)),
            }
        })
    }

    /// Checks that these objects are those of this database, and notes it the first time; `empty`: it has no blobs yet.
    pub(super) fn belong_to(&self, identity: &str, empty: bool) -> Result<()> {
        let path = self.path(MARKER);
        let expected = format!("memobuild-server 1\n{identity}\n");
        self.waiting.wait(LIMIT, WHAT, async {
            let found = match self.store.get(&path).await {
                Ok(found) => Some(found.bytes().await.map_err(failure)?),
                Err(Error::NotFound { .. }) => None,
                Err(error) => return Err(failure(error)),
            };
            match found {
                Some(found) if found == expected.as_bytes() => Ok(()),
                Some(found) if !found.starts_with(b"memobuild-server 1\n") => {
                    Err(StorageError::Mismatch(format!("the object {path} is not of this version")))
                }
                Some(_) => Err(StorageError::Mismatch(format!("the objects beside {path} belong to another database"))),
                None if empty => {
                    // Servers that start at once write the same. A store that can't create without replacing may replace.
                    let payload = || PutPayload::from(expected.clone());
                    match self.store.put_opts(&path, payload(), PutMode::Create.into()).await {
                        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => self.same(&path, &expected).await,
                        Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                            self.store.put(&path, payload()).await.map(drop).map_err(failure)
                        }
                        other => other.map(drop).map_err(failure),
                    }
                }
                None => Err(StorageError::Mismatch(format!(
                    "the database knows of blobs, and there is no object {path}: it belongs to another bucket or prefix, or the objects were deleted"
                ))),
            }
        })
    }

    async fn same(&self, path: &Path, expected: &str) -> Result<()> {
        let found = self.store.get(path).await.map_err(failure)?.bytes().await.map_err(failure)?;
        if found == expected.as_bytes() {
            return Ok(());
        }
        Err(StorageError::Mismatch(format!("the objects beside {path} belong to another database")))
    }
}

fn read(content: &mut impl Read, size: u64) -> Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let failed = |source| StorageError::Io { what: "read what was received".into(), source };
    content.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes.into())
}

fn joined(part: Option<std::result::Result<object_store::Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match part {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(failure(error)),
        Some(Err(error)) => Err(unavailable(error.into())),
    }
}

/// What the store fails in, after all tries, apart from what it refuses.
pub(super) fn failure(error: Error) -> StorageError {
    match error {
        Error::Generic { .. } | Error::JoinError { .. } => unavailable(error.into()),
        _ => StorageError::Objects(error),
    }
}

fn unavailable(source: Box<dyn std::error::Error + Send + Sync>) -> StorageError {
    StorageError::Unavailable { what: WHAT, source }
}
