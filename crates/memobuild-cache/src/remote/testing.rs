//! A server in memory, for tests of what stands around one.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Seek as _, Write},
    sync::Mutex,
};

use memobuild_tree::{KeyDigest, Sha256Digest};

use super::{Blob, Put, RecordName, Remote, RemoteError};

/// Keeps what it is given; fails the first so many requests.
#[derive(Default)]
pub(super) struct Fake {
    blobs: Mutex<HashMap<Sha256Digest, Vec<u8>>>,
    records: Mutex<HashMap<RecordName, Vec<u8>>>,
    lists: Mutex<HashMap<RecordName, Vec<Vec<u8>>>>,
    calls: Mutex<Vec<&'static str>>,
    failing: Mutex<u32>,
}

pub(super) fn name(number: u8) -> RecordName {
    RecordName { ns: "test".into(), key: KeyDigest::from_bytes([number; 32]) }
}

pub(super) fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Sha256Digest::of(bytes), size: bytes.len() as u64 }
}

pub(super) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

impl Fake {
    pub(super) fn failing(times: u32) -> Self {
        Self { failing: Mutex::new(times), ..Self::default() }
    }

    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn replace(&self, blob: &Blob, bytes: &[u8]) {
        self.blobs.lock().unwrap().insert(blob.digest, bytes.to_vec());
    }

    fn call(&self, what: &'static str) -> Result<(), RemoteError> {
        self.calls.lock().unwrap().push(what);
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(RemoteError::Unreachable("it is off".into()));
        }
        Ok(())
    }
}

impl Remote for Fake {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.call("record")?;
        Ok(self.records.lock().unwrap().get(name).cloned())
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        self.call("record_put")?;
        let there = self.blobs.lock().unwrap();
        let missing: Vec<Blob> = blobs.iter().filter(|b| !there.contains_key(&b.digest)).copied().collect();
        if !missing.is_empty() {
            return Ok(Put::Missing(missing));
        }
        let mut records = self.records.lock().unwrap();
        if let Some(first) = records.get(name) {
            return Ok(Put::Existing(first.clone()));
        }
        records.insert(name.clone(), value.to_vec());
        Ok(Put::Stored)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.call("list")?;
        Ok(self.lists.lock().unwrap().get(name).cloned().unwrap_or_default())
    }

    fn list_add(&self, name: &RecordName, value: &[u8], _: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.call("list_add")?;
        self.lists.lock().unwrap().entry(name.clone()).or_default().insert(0, value.to_vec());
        Ok(Vec::new())
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.call("missing")?;
        let there = self.blobs.lock().unwrap();
        Ok(blobs.iter().filter(|b| !there.contains_key(&b.digest)).copied().collect())
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.call("fetch")?;
        let there = self.blobs.lock().unwrap();
        let bytes = there.get(&blob.digest).ok_or(RemoteError::NoBlob(blob.digest))?;
        to.write_all(bytes).map_err(RemoteError::Local)
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.call("send")?;
        let mut bytes = Vec::new();
        from.rewind().unwrap();
        from.read_to_end(&mut bytes).unwrap();
        self.blobs.lock().unwrap().insert(blob.digest, bytes);
        Ok(())
    }
}
