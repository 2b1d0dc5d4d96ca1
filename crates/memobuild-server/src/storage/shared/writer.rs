//! A blob being received: in memory while it is short, then in a file without a name, which is gone with the process.

use std::{
    io::{Seek as _, Write as _},
    sync::Arc,
    time::Duration,
};

use tempfile::SpooledTempFile;

use super::{Begun, Inner, objects::Objects};
use crate::{
    BlobId,
    storage::{BlobWriter, Committed, Result, StorageError},
};

/// Bytes kept in memory.
const SHORT: usize = 256 << 10;

/// How much longer than an upload its lease is: who gave up an upload must have done so before others think it.
const MARGIN: Duration = Duration::from_secs(300);

/// A blob that nobody else sees.
pub(super) struct SpoolWriter {
    inner: Arc<Inner>,
    id: BlobId,
    spool: SpooledTempFile,
    size: u64,
}

impl SpoolWriter {
    pub(super) fn new(inner: Arc<Inner>, id: BlobId) -> Self {
        let spool = tempfile::spooled_tempfile_in(SHORT, &inner.spool);
        Self { inner, id, spool, size: 0 }
    }
}

impl BlobWriter for SpoolWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        self.spool.write_all(bytes).map_err(StorageError::io("write to", &self.inner.spool))
    }

    fn commit(mut self: Box<Self>) -> Result<Committed> {
        let Self { inner, id, spool, size } = &mut *self;
        spool.rewind().map_err(StorageError::io("read from", &inner.spool))?;
        let lease = Objects::upload_limit(*size) + MARGIN;
        let begun = inner.with_room(*size, || {
            Ok(match inner.metadata.begin(*id, *size, lease)? {
                Begun::NoRoom => None,
                begun => Some(begun),
            })
        })?;
        let Begun::Upload(object) = begun else {
            inner.touch([super::Used::Blob(*id)])?;
            return Ok(Committed::Existed);
        };
        let done = inner.objects.put(&object, spool, *size).and_then(|()| inner.metadata.finish(*id, &object));
        match done {
            Ok(Some(committed)) => Ok(committed),
            Ok(None) => {
                let source = "the upload took longer than its lease".into();
                Err(StorageError::Unavailable { what: super::objects::WHAT, source })
            }
            Err(error) => {
                // If the row was made after all and only the answer was lost, this changes nothing. If the database does
                // not know of it, the lease ends by itself.
                if let Err(error) = inner.metadata.abandon(&object) {
                    tracing::debug!("cannot tell the database that {object} was given up: {error}");
                }
                Err(error)
            }
        }
    }
}
