//! What ties a request to log lines, here and at its client: an id for each, and the trace it is part of where the client
//! says so (W3C Trace Context, `traceparent`).

use std::{
    fs::File,
    io::Read as _,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::http::{HeaderMap, HeaderValue};
use memobuild_observe::TraceContext;

/// The longest id that is taken from a client.
const LONGEST_ID: usize = 128;

/// Gives out ids that no other run of the server gives out.
pub(crate) struct Ids {
    run: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
        // Without random numbers the time tells runs apart well enough.
        let run = if read.is_ok() { u64::from_le_bytes(random) } else { crate::clock::now().cast_unsigned() };
        Self { run, next: AtomicU64::new(0) }
    }

    /// An id of 32 hexadecimal digits.
    pub(crate) fn next(&self) -> [u8; 32] {
        let n = u128::from(self.run) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed));
        let mut id = [b'0'; 32];
        for (i, digit) in id.iter_mut().rev().enumerate() {
            // Every request has one, and `format!` takes its time.
            *digit = b"0123456789abcdef"[(n >> (4 * i)) as usize & 15];
        }
        id
    }

    /// The client's own id (`X-Request-Id`) if it is one that a log may have, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let sent = headers.get("x-request-id");
        sent.filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(allowed))
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_bytes(&self.next()).unwrap_or_else(|_| HeaderValue::from_static("-")))
    }
}

/// Which trace a request is part of, and which step of it sent the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// 16 hexadecimal digits.
    pub(crate) parent_id: String,
}

/// Reads `traceparent`. Several of them, or one that does not follow the rules, are ignored.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<Trace> {
    let mut values = headers.get_all("traceparent").iter();
    let (text, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let sent = TraceContext::parse(text)?;
    Some(Trace { trace_id: sent.trace_id(), parent_id: sent.span_id() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;

    #[test]
    fn trace_contexts() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("traceparent", value.parse().unwrap());
            }
            traceparent(&headers)
        };
        let good = format!("00-{trace}-{parent}-01");
        let expected = Some(Trace { trace_id: trace.to_owned(), parent_id: parent.to_owned() });
        let (good, wrong) = (good.as_str(), format!("{good}-more"));
        assert_eq!(read(&[good]), expected);
        // Of two, nobody knows which is meant.
        for bad in [vec![], vec![""], vec![good, good], vec![wrong.as_str()]] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ids_are_new_or_harmless() {
        let ids = Ids::new();
        assert_ne!(ids.next(), ids.next());
        let of = |id: &str| ids.of(&HeaderMap::from_iter([("x-request-id".parse().unwrap(), id.parse().unwrap())]));
        assert_eq!(of("build-7.a_b"), "build-7.a_b");
        for bad in ["", "a b", "a\"b", "<b>", &"a".repeat(129)] {
            assert_eq!(of(bad).len(), 32, "{bad}");
        }
    }
}
