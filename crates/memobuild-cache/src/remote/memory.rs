//! The tier in front: what the server said of a record holds for the rest of the build, "not there" included.

use std::{fs::File, io::Write};

use super::{Blob, Put, RecordName, Remote, RemoteError, flight::Flights};

/// Remembers records and lists.
pub(super) struct Memory<R> {
    inner: R,
    records: Flights<RecordName, Option<Vec<u8>>>,
    lists: Flights<RecordName, Vec<Vec<u8>>>,
}

impl<R> Memory<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, records: Flights::default(), lists: Flights::default() }
    }

    /// Whether the server is known to have this record.
    pub(super) fn has(&self, name: &RecordName) -> bool {
        matches!(self.records.peek(name), Some(Some(_)))
    }
}

impl<R: Remote> Remote for Memory<R> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.records.get(name.clone(), || self.inner.record(name))
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        let put = self.inner.record_put(name, value, blobs)?;
        match &put {
            Put::Stored => self.records.set(name.clone(), Some(value.to_vec())),
            Put::Existing(first) => self.records.set(name.clone(), Some(first.clone())),
            Put::Missing(_) => {}
        }
        Ok(put)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.lists.get(name.clone(), || self.inner.list(name))
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        let missing = self.inner.list_add(name, value, blobs)?;
        if missing.is_empty() {
            self.lists.forget(name);
        }
        Ok(missing)
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.inner.missing(blobs)
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.inner.fetch(blob, to)
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.inner.send(blob, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::{Fake, name};

    #[test]
    fn a_record_is_asked_for_once() {
        let memory = Memory::new(Fake::default());
        for _ in 0..3 {
            assert_eq!(memory.record(&name(1)).unwrap(), None);
            assert!(memory.list(&name(1)).unwrap().is_empty());
        }
        assert_eq!(memory.inner.calls(), ["record", "list"]);
        assert!(!memory.has(&name(1)));
        assert_eq!(memory.record_put(&name(1), b"v", &[]).unwrap(), Put::Stored);
        assert!(memory.has(&name(1)));
        assert_eq!(memory.record(&name(1)).unwrap().as_deref(), Some(b"v".as_slice()));
        memory.list_add(&name(1), b"v", &[]).unwrap();
        assert_eq!(memory.list(&name(1)).unwrap(), [b"v"]);
        assert_eq!(memory.inner.calls(), ["record", "list", "record_put", "list_add", "list"]);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let memory = Memory::new(Fake::failing(1));
        assert!(memory.record(&name(1)).is_err());
        assert_eq!(memory.record(&name(1)).unwrap(), None);
    }
}
