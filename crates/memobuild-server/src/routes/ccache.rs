//! ccache's own HTTP layouts under `/ccache`: `flat` has the key as one part of the path, `subdirs`, the default, has its
//! first two characters apart. Its layout `bazel` is `/ac/`.

use std::sync::Arc;

use axum::Router;

use super::{App, bazel::values};
use crate::{RecordKey, reply::ApiError, results, rexec::digest::Function};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/ccache/{key}", values(slot)).route("/ccache/{start}/{rest}", values(slot))
}

/// Both layouts of a key are one slot. A key is at least a hash of 160 bits; what it looks like is ccache's affair.
fn slot(path: &str) -> Result<RecordKey, ApiError> {
    let key: String = path.trim_start_matches("/ccache/").split('/').collect();
    if !(20..=100).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let message = "expected ccache's key: 20 to 100 letters and digits";
        return Err(ApiError::bad("invalid_key", message));
    }
    Ok(results::key("ccache", "", Function::Sha256, key.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;

    #[test]
    fn layouts_name_the_same() {
        let key = "0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t";
        let (start, rest) = key.split_at(2);
        let flat = slot(&format!("/ccache/{key}")).unwrap();
        assert_eq!(slot(&format!("/ccache/{start}/{rest}")).unwrap(), flat);
        for bad in
            ["", "ab", "ab/..", "ab/../../../../../../../../../etc/passwd", "../0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p"]
        {
            assert!(slot(&format!("/ccache/{bad}")).is_err(), "{bad}");
        }
    }
}
