//! What is left of a body after its answer is known is taken for a while: a connection that is closed with unread bytes is
//! reset, and the answer may be lost with it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// The most bytes and the longest time for which a refused body is taken. A client with more to send asks first
/// (`Expect: 100-continue`), or may not hear why it was refused.
const MOST_BYTES: usize = 16 << 20;
const LONGEST: Duration = Duration::from_secs(2);

/// A body that comes back when whoever had it is done.
struct Lent {
    body: Body,
    back: Arc<Mutex<Option<Body>>>,
}

/// Where it comes back to.
pub(crate) struct Rest(Arc<Mutex<Option<Body>>>);

/// A body to read from, and what is left of it afterwards.
pub(crate) fn lend(body: Body) -> (Body, Rest) {
    let back = Arc::new(Mutex::new(None));
    (Body::new(Lent { body, back: back.clone() }), Rest(back))
}

impl Rest {
    /// Takes what still comes, within bounds.
    pub(crate) async fn drain(self) {
        let Some(mut body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let all = async {
            let mut taken = 0;
            while taken < MOST_BYTES && !body.is_end_stream() {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                taken += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Whether all came makes no difference: the answer is sent now.
        let _ = tokio::time::timeout(LONGEST, all).await;
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }
}
