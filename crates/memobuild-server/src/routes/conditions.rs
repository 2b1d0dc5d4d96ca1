//! What a GET asks for beyond the bytes: a range, other than what it has, an encoding (RFC 9110 sections 12 to 14).

use axum::http::{HeaderMap, HeaderName, header};

/// A header's text, if it is there and readable.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Which bytes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// All.
    Whole,
    /// From the first to the last, both included.
    Part(u64, u64),
    /// None that there are.
    Unsatisfiable,
}

/// Reads `Range` (section 14.2). What is not one range of bytes is answered with all, as the RFC allows; so is one for
/// another version than this (`If-Range`).
pub(super) fn range(headers: &HeaderMap, etag: &str, size: u64) -> Range {
    if text(headers, header::IF_RANGE).is_some_and(|tag| tag.trim() != etag) {
        return Range::Whole;
    }
    let spec = text(headers, header::RANGE).and_then(|range| range.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Range::Whole };
    let number = |text: &str| Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok());
    let (first, last): (Option<u64>, Option<u64>) = (number(first), number(last));
    match (spec.map(|s| (s.starts_with('-'), s.ends_with('-'))), first, last) {
        (Some((true, false)), None, Some(0)) => Range::Unsatisfiable,
        (Some((true, false)), None, Some(_)) if size == 0 => Range::Unsatisfiable,
        (Some((true, false)), None, Some(n)) => Range::Part(size.saturating_sub(n), size - 1),
        (Some((false, open)), Some(first), last) if open || last.is_some_and(|last| last >= first) => {
            if first >= size {
                return Range::Unsatisfiable;
            }
            Range::Part(first, last.unwrap_or(u64::MAX).min(size - 1))
        }
        _ => Range::Whole,
    }
}

/// Whether the client has one of these already (`If-None-Match`, section 13.1.2, which compares weakly).
pub(super) fn has_it(headers: &HeaderMap, etags: &[&str]) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').map(str::trim).any(|tag| tag == "*" || etags.contains(&tag.strip_prefix("W/").unwrap_or(tag)))
    })
}

/// Whether `Accept-Encoding` names zstd (section 12.5.3), with a weight above zero.
pub(super) fn accepts_zstd(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("zstd"));
            let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
            named && weight.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0))
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn ranges() {
        for (value, size, expected) in [
            ("bytes=0-0", 10, Range::Part(0, 0)),
            ("bytes=2-5", 10, Range::Part(2, 5)),
            ("bytes=2-", 10, Range::Part(2, 9)),
            ("bytes=2-99", 10, Range::Part(2, 9)),
            ("bytes=-3", 10, Range::Part(7, 9)),
            ("bytes=-30", 10, Range::Part(0, 9)),
            ("bytes=10-", 10, Range::Unsatisfiable),
            ("bytes=-0", 10, Range::Unsatisfiable),
            ("bytes=0-", 0, Range::Unsatisfiable),
            ("bytes=-1", 0, Range::Unsatisfiable),
            ("bytes=5-2", 10, Range::Whole),
            ("bytes=0-1,4-5", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("bytes=+1-2", 10, Range::Whole),
            ("bytes=1-x", 10, Range::Whole),
            ("bytes=99999999999999999999-", 10, Range::Whole),
            ("lines=1-2", 10, Range::Whole),
        ] {
            assert_eq!(range(&with(header::RANGE, value), "\"t\"", size), expected, "{value} of {size}");
        }
        let mut headers = with(header::RANGE, "bytes=1-2");
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(range(&headers, "\"t\"", 10), Range::Whole);
        headers.insert(header::IF_RANGE, "\"t\"".parse().unwrap());
        assert_eq!(range(&headers, "\"t\"", 10), Range::Part(1, 2));
    }

    #[test]
    fn tags_and_encodings() {
        for (value, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"b\"", false), ("a", false)]
        {
            assert_eq!(has_it(&with(header::IF_NONE_MATCH, value), &["\"a\""]), expected, "{value}");
        }
        for (value, expected) in [
            ("zstd", true),
            ("gzip, ZSTD;q=0.5", true),
            ("zstd;q=0", false),
            ("gzip", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(accepts_zstd(&with(header::ACCEPT_ENCODING, value)), expected, "{value}");
        }
    }
}
