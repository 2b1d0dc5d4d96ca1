//! Chunks of a byte stream handed from thread to thread: one producer, any number of consumers, bounded memory.

use std::{
    io::{self, Read},
    ops::Deref,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
};

/// Bytes in a chunk.
pub(super) const CHUNK: usize = 256 * 1024;
/// Chunks that may wait for each consumer.
const DEPTH: usize = 8;

/// A chunk; its buffer is used again once the last consumer has dropped it.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    back: Sender<Vec<u8>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Fails only when the producer is gone, and then nobody wants the buffer.
        let _ = self.back.send(std::mem::take(&mut self.bytes));
    }
}

/// The producer's end.
pub(super) struct Chunks {
    to: Vec<SyncSender<Arc<Chunk>>>,
    back: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

/// All consumers have gone: they met an error of their own.
#[derive(Debug)]
pub(super) struct Gone;

impl Chunks {
    /// A producer for that many consumers.
    pub(super) fn new(consumers: usize) -> (Self, Vec<Receiver<Arc<Chunk>>>) {
        let (to, from) = (0..consumers).map(|_| sync_channel(DEPTH)).unzip();
        let (back, free) = channel();
        (Self { to, back, free }, from)
    }

    /// An empty buffer to fill.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.free.try_recv().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Hands a filled buffer to every consumer. A consumer that has gone gets nothing; fails if any has.
    pub(super) fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let chunk = Arc::new(Chunk { bytes, back: self.back.clone() });
        self.to.iter().try_for_each(|to| to.send(chunk.clone()).map_err(|_| Gone))
    }

    /// Reads a stream to its end and hands it on. `Ok(Err(Gone))`: a consumer did not want it all.
    pub(super) fn pump(&self, from: &mut dyn Read) -> io::Result<Result<(), Gone>> {
        loop {
            let mut buffer = self.buffer();
            buffer.resize(CHUNK, 0);
            let mut filled = 0;
            while let Some(rest) = buffer.get_mut(filled..).filter(|r| !r.is_empty()) {
                match from.read(rest) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            buffer.truncate(filled);
            if filled == 0 {
                return Ok(Ok(()));
            }
            if self.send(buffer).is_err() {
                return Ok(Err(Gone));
            }
        }
    }
}

/// A consumer's end as a stream.
pub(super) struct ChunkReader {
    from: Receiver<Arc<Chunk>>,
    chunk: Option<Arc<Chunk>>,
    at: usize,
}

impl ChunkReader {
    pub(super) fn new(from: Receiver<Arc<Chunk>>) -> Self {
        Self { from, chunk: None, at: 0 }
    }

    /// Throws away what is still to come, so that the producer is not stopped.
    pub(super) fn drain(mut self) {
        self.chunk = None;
        while self.from.recv().is_ok() {}
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.chunk.as_ref().and_then(|c| c.get(self.at..)).unwrap_or_default();
            if let (Some(from), true) = (rest.get(..out.len().min(rest.len())), !rest.is_empty()) {
                if let Some(out) = out.get_mut(..from.len()) {
                    out.copy_from_slice(from);
                }
                self.at += from.len();
                return Ok(from.len());
            }
            match self.from.recv() {
                Ok(chunk) => (self.chunk, self.at) = (Some(chunk), 0),
                Err(_) => return Ok(0),
            }
        }
    }
}
