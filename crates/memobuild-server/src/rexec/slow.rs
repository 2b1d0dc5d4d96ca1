//! The body of a call, whose client must go on sending. Streams may be open as long as something comes.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::metrics::{Metrics, add};

/// The least that must come in each span of patience, in bytes per second on average.
const LEAST_RATE: u64 = 1024;

pub(super) struct Slow {
    body: Body,
    idle: Duration,
    /// When the client's patience is up, and what came in this span of it.
    deadline: Pin<Box<Sleep>>,
    received: u64,
    metrics: Arc<Metrics>,
}

impl Slow {
    pub(super) fn new(body: Body, idle: Duration, metrics: Arc<Metrics>) -> Self {
        Self { body, idle, deadline: Box::pin(sleep(idle)), received: 0, metrics }
    }
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, Bytes::len) as u64;
                add(&self.metrics.received_bytes, size);
                self.received += size;
                // One that sends little may do so for its first span only.
                if self.received >= LEAST_RATE.saturating_mul(self.idle.as_secs()) {
                    self.received = 0;
                    let next = Instant::now() + self.idle;
                    self.deadline.as_mut().reset(next);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(Status::cancelled("the call ended early")))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.deadline.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    Poll::Ready(Some(Err(Status::deadline_exceeded("the call's messages come too slowly"))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
