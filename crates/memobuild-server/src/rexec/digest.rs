//! Digests of the Remote Execution API, and the names that ByteStream gives to blobs.

use bazel_remote_apis::build::bazel::remote::execution::v2 as rex;
use memobuild_tree::{ContentDigest, Sha256Digest};

use crate::{BlobId, reply::ApiError};

/// A digest function that blobs are kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// SHA-256, which is meant where none is named.
    Sha256,
    /// BLAKE3.
    Blake3,
}

impl Function {
    /// The function that a request names by number. Hashes of both have 64 digits: without a number it is SHA-256.
    pub(super) fn of(number: i32) -> Result<Self, ApiError> {
        match rex::digest_function::Value::try_from(number) {
            Ok(rex::digest_function::Value::Unknown | rex::digest_function::Value::Sha256) => Ok(Self::Sha256),
            Ok(rex::digest_function::Value::Blake3) => Ok(Self::Blake3),
            _ => Err(ApiError::bad("invalid_digest", "the digest functions are SHA256 and BLAKE3")),
        }
    }

    /// As resource names have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }
}

/// The blob that a digest names, and its size in bytes.
pub(crate) fn blob(function: Function, digest: &rex::Digest) -> Result<(BlobId, u64), ApiError> {
    let size = u64::try_from(digest.size_bytes).map_err(|_| invalid(&digest.size_bytes.to_string()))?;
    Ok((id(function, &digest.hash)?, size))
}

fn id(function: Function, hash: &str) -> Result<BlobId, ApiError> {
    match function {
        Function::Sha256 => Sha256Digest::from_hex(hash).map(BlobId::Layer),
        Function::Blake3 => ContentDigest::from_hex(hash).map(BlobId::Content),
    }
    .map_err(|_| invalid(hash))
}

fn invalid(text: &str) -> ApiError {
    let text: String = text.chars().take(100).collect();
    ApiError::bad(
        "invalid_digest",
        format!("not a digest: {text:?} (expected 64 lower-case hexadecimal digits and a size)"),
    )
}

/// The other way round.
#[cfg(test)]
pub(crate) fn shown(id: BlobId, size: u64) -> rex::Digest {
    rex::Digest { hash: id.hex(), size_bytes: i64::try_from(size).unwrap_or(i64::MAX) }
}

/// The name of these bytes.
#[cfg(test)]
pub(crate) fn of(function: Function, bytes: &[u8]) -> BlobId {
    match function {
        Function::Sha256 => BlobId::Layer(Sha256Digest::of(bytes)),
        Function::Blake3 => BlobId::Content(ContentDigest::of(bytes)),
    }
}

/// Whether this is the blob of no bytes, which is always there ("Servers MUST behave as though empty blobs are always
/// available").
pub(crate) fn is_empty(id: BlobId) -> bool {
    match id {
        BlobId::Layer(digest) => digest == Sha256Digest::of(b""),
        BlobId::Content(digest) => digest == ContentDigest::of(b""),
    }
}

/// Some of what a result needs is not there.
pub(crate) fn missing(ids: &[BlobId]) -> ApiError {
    const SHOWN: usize = 100;
    let names: Vec<String> = ids.iter().take(SHOWN).map(BlobId::to_string).collect();
    let first = names.first().cloned().unwrap_or_default();
    let message = format!("{} blobs that the result names are not there, {first} among them", ids.len());
    ApiError::new(axum::http::StatusCode::CONFLICT, "missing_blobs", message).with("missing", names)
}

/// A blob as ByteStream names it (remote_execution.proto, at the service ContentAddressableStorage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resource {
    /// The blob.
    pub(super) id: BlobId,
    /// Its size in bytes, without compression.
    pub(super) size: u64,
    /// Whether its bytes travel as zstd.
    pub(super) zstd: bool,
}

impl Resource {
    /// Reads `{instance}/blobs/{function/}{hash}/{size}` and `{instance}/compressed-blobs/zstd/...`.
    pub(super) fn to_read(name: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = name.split('/').collect();
        let at = parts.iter().position(|part| matches!(*part, "blobs" | "compressed-blobs"));
        let rest = at.and_then(|at| parts.get(at..)).ok_or_else(|| unknown(name))?;
        match Self::parse(name, rest)? {
            (resource, []) => Ok(resource),
            _ => Err(unknown(name)),
        }
    }

    /// Reads `{instance}/uploads/{uuid}/blobs/{function/}{hash}/{size}{/anything}` and that with `compressed-blobs`.
    pub(super) fn to_write(name: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = name.split('/').collect();
        let at = parts.iter().position(|part| *part == "uploads");
        match at.and_then(|at| parts.get(at + 1..)) {
            Some([uuid, rest @ ..]) if !uuid.is_empty() => Ok(Self::parse(name, rest)?.0),
            _ => Err(unknown(name)),
        }
    }

    fn parse<'a>(name: &str, parts: &'a [&'a str]) -> Result<(Self, &'a [&'a str]), ApiError> {
        let (zstd, parts) = match parts {
            ["blobs", rest @ ..] => (false, rest),
            ["compressed-blobs", "zstd", rest @ ..] => (true, rest),
            ["compressed-blobs", "identity", rest @ ..] => (false, rest),
            ["compressed-blobs", ..] => {
                return Err(ApiError::bad("unsupported_encoding", "blobs may be compressed with zstd only"));
            }
            _ => return Err(unknown(name)),
        };
        let (function, parts) = match parts {
            ["blake3", rest @ ..] => (Function::Blake3, rest),
            // It should not be there, and says what it means.
            ["sha256", rest @ ..] => (Function::Sha256, rest),
            _ => (Function::Sha256, parts),
        };
        let [hash, size, rest @ ..] = parts else { return Err(unknown(name)) };
        let digits = size.bytes().all(|b| b.is_ascii_digit());
        let size = Some(size).filter(|_| digits).and_then(|size| size.parse::<i64>().ok());
        let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(|| unknown(name))?;
        Ok((Self { id: id(function, hash)?, size, zstd }, rest))
    }
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(200).collect();
    ApiError::bad("invalid_path", format!("not the name of a blob: {name:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;

    #[test]
    fn resource_names() {
        let hex = Sha256Digest::of(b"x").hex();
        let sha256 = BlobId::Layer(Sha256Digest::of(b"x"));
        let blake3 = BlobId::Content(ContentDigest::from_hex(&hex).unwrap());
        for (name, id, zstd) in [
            (format!("blobs/{hex}/1"), sha256, false),
            (format!("a/b/blobs/{hex}/1"), sha256, false),
            (format!("a/blobs/blake3/{hex}/1"), blake3, false),
            (format!("compressed-blobs/zstd/{hex}/1"), sha256, true),
            (format!("a/compressed-blobs/zstd/blake3/{hex}/1"), blake3, true),
            (format!("compressed-blobs/identity/{hex}/1"), sha256, false),
        ] {
            let expected = Resource { id, size: 1, zstd };
            assert_eq!(Resource::to_read(&name).unwrap(), expected, "{name}");
            let (instance, rest) = name.split_at(name.find("blobs").unwrap());
            let instance = instance.strip_suffix("compressed-").unwrap_or(instance);
            let rest = if zstd || name.contains("identity") { format!("compressed-{rest}") } else { rest.to_owned() };
            for end in ["", "/main.o", "/a/b"] {
                let name = format!("{instance}uploads/uuid/{rest}{end}");
                assert_eq!(Resource::to_write(&name).unwrap(), expected, "{name}");
            }
        }
        for name in [
            String::new(),
            "blobs".into(),
            format!("blobs/{hex}"),
            format!("blobs/{hex}/-1"),
            format!("blobs/{hex}/+1"),
            format!("blobs/{hex}/99999999999999999999"),
            format!("blobs/{hex}/1/more"),
            format!("blobs/{}/1", hex.to_uppercase()),
            format!("blobs/../{hex}/1"),
            format!("compressed-blobs/brotli/{hex}/1"),
            format!("uploads/blobs/{hex}/"),
        ] {
            assert!(Resource::to_read(&name).is_err(), "{name}");
            assert!(Resource::to_write(&name).is_err(), "{name}");
        }
        assert!(Resource::to_write(&format!("blobs/{hex}/1")).is_err());
    }
}
