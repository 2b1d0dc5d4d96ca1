//! A client that is made when it is first asked something: a build of which all is here starts no thread for it, and an
//! address that can't be used is told as any other fault of a server.

use std::{fs::File, io::Write, sync::OnceLock};

use super::Grpc;
use crate::remote::{Blob, Put, RecordName, Remote, RemoteError, RemoteOptions};

/// Becomes a [`Grpc`].
pub(in crate::remote) struct Lazy {
    options: RemoteOptions,
    client: OnceLock<Result<Grpc, String>>,
}

impl Lazy {
    pub(in crate::remote) fn new(options: &RemoteOptions) -> Self {
        Self { options: options.clone(), client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Grpc, RemoteError> {
        let made = self.client.get_or_init(|| Grpc::new(&self.options).map_err(|error| error.to_string()));
        made.as_ref().map_err(|error| RemoteError::Foreign(error.clone()))
    }
}

impl Remote for Lazy {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.client()?.record(name)
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        self.client()?.record_put(name, value, blobs)
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.client()?.list(name)
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.client()?.list_add(name, value, blobs)
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.client()?.missing(blobs)
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.client()?.fetch(blob, to)
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.client()?.send(blob, from)
    }
}
