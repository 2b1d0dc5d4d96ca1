//! Blobs in both directions: small ones in one message, others as streams. A stream that broke off goes on where the
//! server has it.

use std::{
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{Read as _, Seek as _, SeekFrom, Write},
    pin::Pin,
    task::{Context, Poll},
};

use bazel_remote_apis::{
    build::bazel::remote::execution::v2::{self as rex, batch_update_blobs_request},
    google::{
        bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest, byte_stream_client::ByteStreamClient},
        rpc,
    },
};
use tokio::sync::mpsc;
use tonic::{Code, Status, codegen::tokio_stream::Stream, transport::Channel};

use super::{ANSWER, Grpc, SETTLED, SILENCE, encoding::digest, within};
use crate::remote::{Blob, RemoteError};

/// Bytes in one message of a stream.
const PIECE: usize = 256 << 10;

/// How often one upload goes on after its stream broke off.
const RESUMED: u32 = 3;

impl Grpc {
    fn bytes(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone()).max_decoding_message_size(ANSWER)
    }

    fn resource(&self, blob: &Blob, upload: Option<&str>) -> String {
        let name = format!("blobs/{}/{}", blob.digest.hex(), blob.size);
        let upload = upload.map(|id| format!("uploads/{id}/")).unwrap_or_default();
        let instance = Some(&self.instance).filter(|i| !i.is_empty()).map(|i| format!("{i}/")).unwrap_or_default();
        format!("{instance}{upload}{name}")
    }

    pub(super) fn fetch_small(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let request = self.request(rex::BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: vec![digest(blob)],
            digest_function: rex::digest_function::Value::Sha256.into(),
            ..Default::default()
        });
        let reply = self.wait(self.cas().batch_read_blobs(request)).map_err(|status| self.error(status))?;
        let [one] =
            <[_; 1]>::try_from(reply.responses).map_err(|_| RemoteError::Odd("not one answer for one blob".into()))?;
        self.checked(one.status, blob)?;
        if one.compressor != i32::from(rex::compressor::Value::Identity) {
            return Err(RemoteError::Odd("a blob is compressed and was not asked for like that".into()));
        }
        to.write_all(&one.data).map_err(RemoteError::Local)
    }

    pub(super) fn send_small(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        let mut data = Vec::new();
        from.seek(SeekFrom::Start(0)).map_err(RemoteError::Local)?;
        from.take(blob.size).read_to_end(&mut data).map_err(RemoteError::Local)?;
        let one = batch_update_blobs_request::Request { digest: Some(digest(blob)), data, compressor: 0 };
        let request = self.request(rex::BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests: vec![one],
            digest_function: rex::digest_function::Value::Sha256.into(),
        });
        let call = async { self.cas().batch_update_blobs(request).await };
        let reply = self.calls.block_on(within(SETTLED, call)).map_err(|status| self.error(status))?;
        let [one] = <[_; 1]>::try_from(reply.into_inner().responses)
            .map_err(|_| RemoteError::Odd("not one answer for one blob".into()))?;
        self.checked(one.status, blob)
    }

    /// How it went with one blob of a batch.
    fn checked(&self, status: Option<rpc::Status>, blob: &Blob) -> Result<(), RemoteError> {
        let status = status.unwrap_or_default();
        match Code::from_i32(status.code) {
            Code::Ok => Ok(()),
            Code::NotFound => Err(RemoteError::NoBlob(blob.digest)),
            code => Err(self.error(Status::new(code, status.message))),
        }
    }

    pub(super) fn fetch_stream(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        let request =
            self.request(ReadRequest { resource_name: self.resource(blob, None), read_offset: 0, read_limit: 0 });
        let told = |status: Status| match status.code() {
            Code::NotFound => RemoteError::NoBlob(blob.digest),
            _ => self.error(status),
        };
        // What is written here blocks this thread alone: the connection has one of its own.
        self.calls.block_on(async {
            let mut client = self.bytes();
            let mut pieces = within(SILENCE, client.read(request)).await.map_err(told)?.into_inner();
            let mut size = 0;
            while let Some(piece) = within(SILENCE, pieces.message()).await.map_err(told)? {
                size += piece.data.len() as u64;
                if size > blob.size {
                    return Err(RemoteError::Damaged(blob.digest));
                }
                to.write_all(&piece.data).map_err(RemoteError::Local)?;
            }
            if size < blob.size { Err(RemoteError::Damaged(blob.digest)) } else { Ok(()) }
        })
    }

    pub(super) fn send_stream(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        let name = self.resource(blob, Some(&identifier()));
        let mut offset = 0;
        for turn in 0.. {
            let failed = match self.calls.block_on(self.upload(blob, from, &name, offset)) {
                Err(Failed::Call(status)) => status,
                Err(Failed::Here(error)) => return Err(error),
                Ok(committed) if committed == blob.size => return Ok(()),
                Ok(committed) => {
                    return Err(RemoteError::Odd(format!("{committed} of {} bytes were taken", blob.size)));
                }
            };
            let error = self.error(failed);
            if turn >= RESUMED || !error.is_transient() {
                return Err(error);
            }
            let request = self.request(QueryWriteStatusRequest { resource_name: name.clone() });
            match self.wait(self.bytes().query_write_status(request)) {
                Ok(status) if status.complete => return Ok(()),
                Ok(status) => match u64::try_from(status.committed_size) {
                    // As long as it gets on.
                    Ok(committed) if committed > offset && committed <= blob.size => offset = committed,
                    _ => return Err(error),
                },
                Err(_) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the bytes from an offset on; how many the server has then.
    async fn upload(&self, blob: &Blob, from: &mut File, name: &str, offset: u64) -> Result<u64, Failed> {
        from.seek(SeekFrom::Start(offset)).map_err(Failed::local)?;
        let (sender, receiver) = mpsc::channel(4);
        let mut client = self.bytes();
        let call = client.write(self.request(Messages(receiver)));
        let feed = feed(blob, from, name, offset, sender);
        tokio::pin!(call, feed);
        // A server that has the blob says so at once, and reads no further.
        let fed = tokio::select! {
            said = &mut call => return committed(said, blob),
            fed = &mut feed => fed,
        };
        fed?;
        committed(within(SETTLED, call).await, blob)
    }
}

/// What the server says that it has. Servers that had it all along may say -1.
fn committed(
    said: Result<tonic::Response<bazel_remote_apis::google::bytestream::WriteResponse>, Status>,
    blob: &Blob,
) -> Result<u64, Failed> {
    let size = said.map_err(Failed::Call)?.into_inner().committed_size;
    Ok(u64::try_from(size).unwrap_or(blob.size))
}

async fn feed(
    blob: &Blob,
    from: &mut File,
    name: &str,
    mut offset: u64,
    to: mpsc::Sender<WriteRequest>,
) -> Result<(), Failed> {
    let mut name = name.to_owned();
    loop {
        let mut data = Vec::with_capacity(PIECE);
        from.take(blob.size.saturating_sub(offset).min(PIECE as u64)).read_to_end(&mut data).map_err(Failed::local)?;
        let end = offset + data.len() as u64;
        if data.is_empty() && end < blob.size {
            return Err(Failed::local(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let finish_write = end == blob.size;
        let write_offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let message = WriteRequest { resource_name: std::mem::take(&mut name), write_offset, finish_write, data };
        let sent = tokio::time::timeout(SILENCE, to.send(message)).await;
        let sent = sent.map_err(|_| Failed::Call(Status::deadline_exceeded("the server takes nothing")))?;
        // Who no longer listens has given an answer, or will.
        if sent.is_err() || finish_write {
            return Ok(());
        }
        offset = end;
    }
}

enum Failed {
    Call(Status),
    Here(RemoteError),
}

impl Failed {
    fn local(error: std::io::Error) -> Self {
        Self::Here(RemoteError::Local(error))
    }
}

/// The messages of an upload.
struct Messages(mpsc::Receiver<WriteRequest>);

impl Stream for Messages {
    type Item = WriteRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WriteRequest>> {
        self.0.poll_recv(cx)
    }
}

/// A UUID of version 4 (RFC 9562 section 5.4). It keeps uploads apart and no secret.
fn identifier() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ_and_have_their_form() {
        let (one, other) = (identifier(), identifier());
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
