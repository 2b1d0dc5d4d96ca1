//! A blob being read: in requests for some of its bytes each, whose answers are handed on as they come. An answer that is
//! cut, or a store that drops who takes its time, costs another request.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, stream::BoxStream};
use object_store::{Error, GetOptions, GetRange, ObjectStore, path::Path};

use super::objects::{WHAT, failure};
use crate::storage::{Result, StorageError, waiting::Waiting};

/// Bytes asked for first. Who wants a range reads no more than it; what was asked for in vain is little.
const FIRST: u64 = 1 << 20;

/// Bytes asked for after that.
const WINDOW: u64 = 16 << 20;

/// How long the next bytes may take, with all tries of the request that brings them.
const LIMIT: Duration = Duration::from_secs(30);

/// Failures in a row, without a byte between them.
const TRIES: u32 = 3;

/// Reads an object whose length is known.
pub(super) struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    waiting: Waiting,
    path: Path,
    /// Where the next bytes of `stream` begin.
    position: u64,
    size: u64,
    window: u64,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    piece: Bytes,
    failures: u32,
}

impl ObjectReader {
    /// Makes the first request; `None` if there is no such object. If it fails, after its own tries, that is told at once.
    pub(super) fn open(
        store: Arc<dyn ObjectStore>,
        waiting: Waiting,
        path: Path,
        position: u64,
        size: u64,
    ) -> Result<Option<Self>> {
        let piece = Bytes::new();
        let mut reader =
            Self { store, waiting, path, position, size, window: FIRST, stream: None, piece, failures: TRIES };
        match reader.fill() {
            Ok(()) => Ok(Some(reader)),
            // One of another length was damaged from outside.
            Err(StorageError::Objects(Error::NotFound { .. }) | StorageError::Mismatch(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next piece, unless all were had.
    fn fill(&mut self) -> Result<()> {
        while self.piece.is_empty() && self.position < self.size {
            let waiting = self.waiting.clone();
            match waiting.wait(LIMIT, WHAT, self.next()) {
                Ok(piece) => {
                    self.position += piece.len() as u64;
                    self.piece = piece;
                    self.failures = 0;
                }
                Err(error @ StorageError::Unavailable { .. }) if self.failures + 1 < TRIES => {
                    tracing::debug!("reading {} goes on at {}: {error}", self.path, self.position);
                    self.failures += 1;
                    self.stream = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes of the request under way, or of a new one.
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            if let Some(stream) = &mut self.stream {
                match stream.next().await {
                    Some(Ok(piece)) if piece.is_empty() => continue,
                    Some(Ok(piece)) => return Ok(piece),
                    Some(Err(error)) => return Err(failure(error)),
                    None => self.stream = None,
                }
            }
            let end = self.position.saturating_add(self.window).min(self.size);
            let range = Some(GetRange::Bounded(self.position..end));
            let answer = self.store.get_opts(&self.path, GetOptions { range, ..GetOptions::default() }).await;
            let answer = answer.map_err(failure)?;
            if answer.meta.size != self.size || answer.range != (self.position..end) {
                let (path, size) = (&self.path, self.size);
                return Err(StorageError::Mismatch(format!(
                    "the object {path} is not what was stored: not {size} bytes"
                )));
            }
            self.window = WINDOW;
            self.stream = Some(answer.into_stream());
        }
    }
}

/// A [`StorageError`] is inside the error.
impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.fill().map_err(io::Error::other)?;
        let size = self.piece.len().min(buf.len());
        let (to, _) = buf.split_at_mut(size);
        self.piece.copy_to_slice(to);
        Ok(size)
    }
}
