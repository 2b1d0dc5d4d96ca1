//! The time of day, for what is written down or compared with what was.

use std::time::SystemTime;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The time as RFC 3339 has it, in UTC, to the millisecond.
pub(crate) fn timestamp() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = since.subsec_millis().saturating_mul(1_000_000);
    memobuild_image::time::rfc3339(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos)
}
