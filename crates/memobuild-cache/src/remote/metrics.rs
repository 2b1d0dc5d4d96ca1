//! Counts what is asked of a server, by kind.

use std::{
    fs::File,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Blob, Put, RecordName, Remote, RemoteError};

/// What was asked and moved so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Records and lists that were asked for.
    pub(super) asked: AtomicU64,
    /// Of these, those that were there.
    pub(super) found: AtomicU64,
    /// Blobs that came.
    pub(super) fetched: AtomicU64,
    /// Blobs that were sent.
    pub(super) sent: AtomicU64,
    /// Records and items of lists that were sent.
    pub(super) told: AtomicU64,
    /// Bytes of blobs and values.
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// All requests, and those that failed.
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
}

/// Counts.
pub(super) struct Metrics<R> {
    inner: R,
    counts: Arc<Counts>,
}

impl<R> Metrics<R> {
    pub(super) fn new(inner: R, counts: Arc<Counts>) -> Self {
        Self { inner, counts }
    }

    fn counted<T>(
        &self,
        what: &str,
        about: &dyn std::fmt::Display,
        ask: impl FnOnce() -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        let answer = ask();
        self.counts.requests.fetch_add(1, Relaxed);
        let ms = begun.elapsed().as_millis();
        match &answer {
            Ok(_) => tracing::debug!("remote {what} {about}: {ms} ms"),
            Err(e) => {
                self.counts.failures.fetch_add(1, Relaxed);
                tracing::debug!("remote {what} {about}: {ms} ms: {e}");
            }
        }
        answer
    }
}

fn size(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

impl<R: Remote> Remote for Metrics<R> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        let value = self.counted("record", name, || self.inner.record(name))?;
        self.counts.asked.fetch_add(1, Relaxed);
        if let Some(value) = &value {
            self.counts.found.fetch_add(1, Relaxed);
            self.counts.bytes_in.fetch_add(size(value), Relaxed);
        }
        Ok(value)
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        let put = self.counted("record put", name, || self.inner.record_put(name, value, blobs))?;
        self.counts.bytes_out.fetch_add(size(value), Relaxed);
        if put == Put::Stored {
            self.counts.told.fetch_add(1, Relaxed);
        }
        Ok(put)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        let items = self.counted("list", name, || self.inner.list(name))?;
        self.counts.asked.fetch_add(1, Relaxed);
        self.counts.found.fetch_add(u64::from(!items.is_empty()), Relaxed);
        self.counts.bytes_in.fetch_add(items.iter().map(|item| size(item)).sum(), Relaxed);
        Ok(items)
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        let missing = self.counted("list add", name, || self.inner.list_add(name, value, blobs))?;
        self.counts.bytes_out.fetch_add(size(value), Relaxed);
        self.counts.told.fetch_add(u64::from(missing.is_empty()), Relaxed);
        Ok(missing)
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        let about = format_args!("of {}", blobs.len());
        self.counted("missing", &about, || self.inner.missing(blobs))
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let mut to = Counted { to, bytes: &self.counts.bytes_in };
        self.counted("fetch", &blob.digest, || self.inner.fetch(blob, &mut to))?;
        self.counts.fetched.fetch_add(1, Relaxed);
        Ok(())
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.counted("send", &blob.digest, || self.inner.send(blob, from))?;
        self.counts.sent.fetch_add(1, Relaxed);
        self.counts.bytes_out.fetch_add(blob.size, Relaxed);
        Ok(())
    }
}

struct Counted<'a> {
    to: &'a mut dyn Write,
    bytes: &'a AtomicU64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.bytes.fetch_add(count as u64, Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::{Fake, blob, file, name};

    #[test]
    fn what_moves_is_counted() {
        let counts = Arc::<Counts>::default();
        let metrics = Metrics::new(Fake::default(), counts.clone());
        let bytes = [7; 1000];
        metrics.send(&blob(&bytes), &mut file(&bytes)).unwrap();
        metrics.fetch(&blob(&bytes), &mut Vec::new()).unwrap();
        metrics.record(&name(1)).unwrap();
        metrics.record_put(&name(1), b"1234", &[]).unwrap();
        metrics.record(&name(1)).unwrap();
        metrics.fetch(&blob(b"other"), &mut Vec::new()).unwrap_err();
        let of = |count: &AtomicU64| count.load(Relaxed);
        assert_eq!((of(&counts.asked), of(&counts.found)), (2, 1));
        assert_eq!((of(&counts.bytes_in), of(&counts.bytes_out)), (1004, 1004));
        assert_eq!((of(&counts.requests), of(&counts.failures)), (6, 1));
    }
}
