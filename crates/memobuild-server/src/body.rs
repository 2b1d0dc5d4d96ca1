//! A blob as the body of an answer: read in pieces, on threads for blocking work, never ahead of the client by more than
//! one.

use std::{
    future::Future as _,
    io::{self, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::metrics::{Metrics, add};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

type Source = Box<dyn Read + Send>;

enum State {
    /// Bytes that are there, and where the next come from.
    Ready(Bytes, Option<Source>),
    Reading(JoinHandle<io::Result<(Bytes, Source)>>),
    Done,
}

/// Sends what a reader gives.
pub(crate) struct BlobBody {
    state: State,
    /// Bytes to come, where that is known.
    remaining: Option<u64>,
    metrics: Arc<Metrics>,
}

impl BlobBody {
    /// Reads the first piece: call it where blocking is allowed. `length`: how many bytes are to be sent; without one, all
    /// that come.
    pub(crate) fn start(source: Source, length: Option<u64>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let source: Source = match length {
            Some(length) => Box::new(source.take(length)),
            None => source,
        };
        let (first, source) = read(source, length)?;
        // What fits in one piece needs no second look.
        let whole = length.is_some_and(|length| length == first.len() as u64);
        let state = State::Ready(first, if whole { None } else { Some(source) });
        Ok(Self { state, remaining: length, metrics })
    }
}

fn read(mut source: Source, remaining: Option<u64>) -> io::Result<(Bytes, Source)> {
    let room = remaining.map_or(PIECE, |n| usize::try_from(n).unwrap_or(PIECE).min(PIECE));
    let mut piece = Vec::with_capacity(room);
    source.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
    Ok((Bytes::from(piece), source))
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Reading(mut task) => match Pin::new(&mut task).poll(cx) {
                    Poll::Pending => {
                        self.state = State::Reading(task);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Ok((piece, source)))) => self.state = State::Ready(piece, Some(source)),
                    Poll::Ready(Ok(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                },
                State::Ready(piece, source) => {
                    if piece.is_empty() {
                        // A file that is shorter than it was must not pass for whole.
                        let cut = self.remaining.is_some_and(|n| n > 0);
                        return Poll::Ready(cut.then(|| Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    let size = piece.len() as u64;
                    self.remaining = self.remaining.map(|n| n.saturating_sub(size));
                    add(&self.metrics.sent_bytes, size);
                    let remaining = self.remaining;
                    self.state = match source.filter(|_| remaining != Some(0)) {
                        Some(source) => State::Reading(tokio::task::spawn_blocking(move || read(source, remaining))),
                        None => State::Done,
                    };
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
