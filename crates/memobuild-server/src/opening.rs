//! The begin of a connection: a client must say which HTTP it speaks before its time is up, and one that speaks HTTP/2
//! must keep something moving. HTTP/1.1 has time-outs of its own for all that follows.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// What a client that speaks HTTP/2 sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many times the patience for one message an HTTP/2 connection may be quiet: clients keep theirs open between builds.
const QUIET: u32 = 10;

enum Protocol {
    /// So many bytes of the preface came, and nothing else.
    Unknown(usize),
    Http1,
    Http2,
}

/// A connection that is closed if it does not get going.
pub(crate) struct Opening<S> {
    stream: S,
    idle: Duration,
    protocol: Protocol,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Opening<S> {
    pub(crate) fn new(stream: S, idle: Duration) -> Self {
        Self { stream, idle, protocol: Protocol::Unknown(0), deadline: Box::pin(sleep(idle)) }
    }

    fn learn(&mut self, bytes: &[u8]) {
        if let Protocol::Unknown(seen) = self.protocol {
            let rest = PREFACE.get(seen..).unwrap_or_default();
            let n = rest.len().min(bytes.len());
            self.protocol = match rest.get(..n) == bytes.get(..n) {
                false => Protocol::Http1,
                true if n == rest.len() => Protocol::Http2,
                true => Protocol::Unknown(seen + n),
            };
        }
    }

    fn moved(&mut self) {
        if matches!(self.protocol, Protocol::Http2) {
            let quiet = self.idle.saturating_mul(QUIET);
            self.deadline.as_mut().reset(Instant::now() + quiet);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.learn(buf.filled().get(before..).unwrap_or_default());
            self.moved();
            return polled;
        }
        if !matches!(self.protocol, Protocol::Http1) && self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_ready() {
            self.moved();
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if polled.is_ready() {
            self.moved();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(pieces: &[&[u8]]) -> &'static str {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let learnt = runtime.map(|runtime| {
            let _entered = runtime.enter();
            let mut opening = Opening::new((), Duration::from_secs(1));
            pieces.iter().for_each(|piece| opening.learn(piece));
            match opening.protocol {
                Protocol::Unknown(_) => "unknown",
                Protocol::Http1 => "http1",
                Protocol::Http2 => "http2",
            }
        });
        learnt.unwrap_or("no runtime")
    }

    #[test]
    fn the_first_bytes_tell() {
        assert_eq!(protocol(&[]), "unknown");
        assert_eq!(protocol(&[b"P"]), "unknown");
        assert_eq!(protocol(&[b"P", b"UT /"]), "http1");
        assert_eq!(protocol(&[b"GET / HTTP/1.1"]), "http1");
        assert_eq!(protocol(&[PREFACE]), "http2");
        assert_eq!(protocol(&[&PREFACE[..5], &PREFACE[5..]]), "http2");
        assert_eq!(protocol(&[PREFACE, b"frames"]), "http2");
    }
}
