//! A body whose bytes are counted, and held back where its client has had more than its share.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::limits::Limits;

/// Whom bytes are charged to.
pub(crate) struct Payer {
    pub(crate) limits: Arc<Limits>,
    pub(crate) client: String,
}

/// A body, counted as it passes.
pub(crate) struct Metered {
    body: Body,
    count: Arc<AtomicU64>,
    payer: Option<Payer>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    pub(crate) fn new(body: Body, count: Arc<AtomicU64>, payer: Option<Payer>) -> Self {
        Self { body, count, payer, pause: None }
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(bytes) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(|f| f.data_ref()) {
            self.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let pause = self.payer.as_ref().map(|p| p.limits.charge(&p.client, bytes.len(), Instant::now()));
            self.pause = pause.filter(|pause| !pause.is_zero()).map(|pause| Box::pin(sleep(pause)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
