//! Trace contexts: what ties together all that one build has others do (W3C Trace Context, `traceparent`).

use std::fmt;

/// Which trace something is part of, and which span of it speaks. Shown as the value of `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl TraceContext {
    /// A trace that begins here. The numbers should be random; 0, which stands for none, becomes 1.
    pub fn new(trace: u128, span: u64) -> Self {
        Self { trace: trace.max(1), span: span.max(1), sampled: true }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self, span: u64) -> Self {
        Self { span: span.max(1), ..*self }
    }

    /// Reads a value of `traceparent` (section 3.2): one of any version from 00 to fe, whose later versions may say
    /// more after a `-`. `None` for what does not follow the rules: it is to be ignored, as they demand.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(5, '-');
        let (version, trace) = (hex(parts.next()?, 2)?, hex(parts.next()?, 32)?);
        let (span, flags) = (hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The trace, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span, as 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, sampled } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*sampled))
    }
}

fn hex(text: &str, length: usize) -> Option<&str> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    Some(text).filter(|t| t.len() == length && t.bytes().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn what_is_read_is_what_is_shown() {
        let text = format!("00-{TRACE}-{PARENT}-01");
        let read = TraceContext::parse(&format!(" {text}\n")).unwrap();
        assert_eq!((read.trace_id().as_str(), read.span_id().as_str()), (TRACE, PARENT));
        assert_eq!((read.to_string(), read.is_sampled()), (text, true));
        let not_sampled = TraceContext::parse(&format!("00-{TRACE}-{PARENT}-02")).unwrap();
        assert_eq!((not_sampled.to_string(), not_sampled.is_sampled()), (format!("00-{TRACE}-{PARENT}-00"), false));
        // One of a later version is told in the words of ours.
        let later = TraceContext::parse(&format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings")).unwrap();
        assert_eq!(later, read);
    }

    #[test]
    fn what_follows_no_rule_is_ignored() {
        for bad in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-+{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &PARENT[1..]),
            format!("00_{TRACE}_{PARENT}_01"),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn new_ones_are_valid_whatever_chance_brings() {
        for (trace, span) in [(0, 0), (u128::MAX, u64::MAX), (7, 9)] {
            let context = TraceContext::new(trace, span);
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            let child = context.child(0);
            assert_eq!((child.trace_id(), child.span_id()), (context.trace_id(), "0000000000000001".into()));
            assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
        }
    }
}
