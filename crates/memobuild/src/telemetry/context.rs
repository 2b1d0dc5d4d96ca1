//! The trace that this process's build is part of, and random numbers for names.

use std::{
    collections::hash_map::RandomState,
    fs::File,
    hash::{BuildHasher as _, Hasher as _},
    io::Read as _,
    sync::OnceLock,
};

use memobuild_observe::TraceContext;

/// Where whoever started memobuild says which trace it is part of.
const VARIABLE: &str = "TRACEPARENT";

/// A trace, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace, and the span that this build is.
    pub(crate) own: TraceContext,
    /// The span that started the build, if the trace is not its own.
    pub(crate) parent: Option<TraceContext>,
}

/// This process's trace: that of `TRACEPARENT` if there is a valid one, else a new one. The same however often it is
/// asked for.
pub(crate) fn trace() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    TRACE.get_or_init(|| Trace::part_of(std::env::var(VARIABLE).ok().as_deref()))
}

impl Trace {
    fn part_of(parent: Option<&str>) -> Self {
        let parent = parent.and_then(TraceContext::parse);
        let span = u64::from_le_bytes(random());
        let own = match parent {
            Some(parent) => parent.child(span),
            None => TraceContext::new(u128::from_le_bytes(random()), span),
        };
        Self { own, parent }
    }
}

/// Random bytes, to tell things apart with. They keep no secret.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).is_err() {
        // What keeps the hash tables of two processes apart does for names too.
        for part in bytes.chunks_mut(8) {
            let word = RandomState::new().build_hasher().finish().to_le_bytes();
            part.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_given_trace_is_gone_on_with() {
        let trace = Trace::part_of(Some(GIVEN));
        let parent = trace.parent.unwrap();
        assert_eq!(parent.to_string(), GIVEN);
        assert_eq!(trace.own.trace_id(), parent.trace_id());
        assert_ne!(trace.own.span_id(), parent.span_id());
    }

    #[test]
    fn without_a_valid_one_there_is_a_new_one_each_time() {
        for none in [None, Some(""), Some("00-0-0-01"), Some(&GIVEN[1..])] {
            let (one, other) = (Trace::part_of(none), Trace::part_of(none));
            assert_eq!(one.parent, None);
            assert_ne!(one.own.trace_id(), other.own.trace_id());
            assert!(TraceContext::parse(&one.own.to_string()).unwrap().is_sampled());
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (one, other): ([u8; 20], [u8; 20]) = (random(), random());
        assert!(one != other && one != [0; 20]);
    }
}
