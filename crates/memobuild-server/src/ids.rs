//! Names of blobs and records, checked when they are read: nothing else reaches a storage or a path.

use std::{fmt, str::FromStr};

use memobuild_tree::{ContentDigest, KeyDigest, Sha256Digest};

/// A text that names no blob or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hexadecimal digits, or `sha256:` and these.
    #[error("not a digest: {0:?} (expected 64 lower-case hexadecimal digits)")]
    Blob(String),
    /// Not a namespace and a key.
    #[error(
        "not a record's key: {0:?} (expected NAMESPACE:KEY, of at most 32 of a-z, 0-9, - and _, and 64 hexadecimal digits)"
    )]
    Record(String),
}

/// A blob's name: by BLAKE3 (written as 64 hexadecimal digits), or by SHA-256 (`sha256:` and 64 hexadecimal digits),
/// which is what layers of images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobId {
    /// By BLAKE3.
    Content(ContentDigest),
    /// By SHA-256.
    Layer(Sha256Digest),
}

impl BlobId {
    /// The 64 hexadecimal digits, without a prefix.
    pub fn hex(&self) -> String {
        match self {
            Self::Content(digest) => digest.hex(),
            Self::Layer(digest) => digest.hex(),
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Content(digest) => digest.as_bytes(),
            Self::Layer(digest) => digest.as_bytes(),
        }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(digest) => digest.fmt(f),
            Self::Layer(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for BlobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let id = match text.starts_with("sha256:") {
            true => text.parse().map(Self::Layer),
            false => text.parse().map(Self::Content),
        };
        id.map_err(|_| IdError::Blob(shortened(text)))
    }
}

/// A record's name: a namespace, which keeps kinds of records apart, and a key of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    namespace: String,
    key: KeyDigest,
}

impl RecordKey {
    /// A key in a namespace of the server's own.
    pub(crate) fn of(namespace: &'static str, key: [u8; 32]) -> Self {
        Self { namespace: namespace.to_owned(), key: KeyDigest::from_bytes(key) }
    }

    /// One to 32 of `a-z`, `0-9`, `-` and `_`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The 32 bytes.
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.key)
    }
}

impl FromStr for RecordKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Record(shortened(text));
        let (namespace, key) = text.split_once(':').ok_or_else(bad)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if !(1..=32).contains(&namespace.len()) || !namespace.bytes().all(allowed) {
            return Err(bad());
        }
        Ok(Self { namespace: namespace.to_owned(), key: key.parse().map_err(|_| bad())? })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_bad_ones_are_refused() {
        let hex = "ab".repeat(32);
        for text in [hex.clone(), format!("sha256:{hex}")] {
            assert_eq!(text.parse::<BlobId>().map(|id| id.to_string()), Ok(text));
        }
        for text in [format!("result:{hex}"), format!("path-sets_2:{hex}")] {
            assert_eq!(text.parse::<RecordKey>().map(|key| key.to_string()), Ok(text));
        }
        for bad in ["", "..", "../../etc/passwd", "sha256:", "sha512:ab", &hex[1..], &hex.to_uppercase(), "é"] {
            assert!(bad.parse::<BlobId>().is_err(), "{bad}");
        }
        let long = "a".repeat(33);
        for namespace in ["", "A", "a/b", "..", "a b", &long, "a:b"] {
            assert!(format!("{namespace}:{hex}").parse::<RecordKey>().is_err(), "{namespace}");
        }
        assert!(hex.parse::<RecordKey>().is_err());
    }
}
