//! What answers and requests consist of, as `/openapi.json` describes it. Handlers answer with these types.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong. Some codes come with more fields.
#[derive(ToSchema)]
#[schema(as = Error)]
#[expect(dead_code, reason = "describes what `ApiError` writes, field by field")]
pub(crate) struct ErrorBody {
    /// A stable code, like `not_found`.
    pub(crate) error: String,
    /// For people; may change at any time.
    pub(crate) message: String,
    /// Of `cas_integrity_failure`: the digest that was asked for.
    #[schema(nullable = false)]
    pub(crate) expected: Option<String>,
    /// Of `cas_integrity_failure`: the body's digest.
    #[schema(nullable = false)]
    pub(crate) actual: Option<String>,
    /// Of `cas_integrity_failure`: bytes that came.
    #[schema(nullable = false)]
    pub(crate) data_size: Option<u64>,
    /// Of `missing_blobs`: their digests.
    #[schema(nullable = false)]
    pub(crate) missing: Option<Vec<String>>,
    /// Of `too_large` and `too_many`: the most that there may be.
    #[schema(nullable = false)]
    pub(crate) limit: Option<u64>,
    /// Of `range_not_satisfiable`: bytes of the whole blob.
    #[schema(nullable = false)]
    pub(crate) size: Option<u64>,
    /// Of `forbidden`: what the client would need.
    #[schema(nullable = false)]
    pub(crate) scope: Option<String>,
    /// Of `rate_limited`: seconds to wait.
    #[schema(nullable = false)]
    pub(crate) retry_after: Option<u64>,
}

/// A blob that is there now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stored {
    /// Its digest: 64 hexadecimal digits, with `sha256:` before them for a layer.
    pub(crate) digest: String,
    /// It was not there before.
    pub(crate) created: bool,
}

/// A small value and the blobs that it is useless without.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Record)]
pub(crate) struct RecordBody {
    /// At most 256 KiB, as base64 (RFC 4648 section 4, padded).
    #[schema(content_encoding = "base64")]
    pub(crate) value: String,
    /// Digests of at most 4096 blobs.
    #[serde(default)]
    #[schema(max_items = 4096)]
    pub(crate) blobs: Vec<String>,
}

/// The record that is under a key now.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordStored {
    /// As base64.
    #[schema(content_encoding = "base64")]
    pub(crate) value: String,
    /// The blobs that it names.
    pub(crate) blobs: Vec<String>,
    /// It is the one that was sent; else another was first.
    pub(crate) stored: bool,
}

/// The items of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Items {
    /// Newest first.
    #[schema(max_items = 32)]
    pub(crate) items: Vec<RecordBody>,
}

/// An item that is at the head of its list now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Added {
    /// Always true.
    pub(crate) added: bool,
}

/// What a collection removed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Collected {
    /// Blobs removed.
    pub(crate) removed_blobs: u64,
    /// Records and items of lists removed.
    pub(crate) removed_records: u64,
    /// Bytes of all of them.
    pub(crate) freed_bytes: u64,
    /// Bytes that are kept.
    pub(crate) stored_bytes: u64,
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// `ok` or `ready`.
    pub(crate) status: String,
}
