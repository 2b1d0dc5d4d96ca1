//! `ADD` of an http(s) address.
#![allow(missing_docs, unused_variables, clippy::todo)]
use memobuild_store::{BundleWriter, Store};
use memobuild_tree::{ContentDigest, Sha256Digest};
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Store(#[from] memobuild_store::StoreError),
}
/// A downloaded file: mode 0600.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub name: Vec<u8>,
    pub content: ContentDigest,
    pub size: u64,
    pub sha256: Sha256Digest,
    /** seconds, from Last-Modified */
    pub mtime: Option<i64>,
}
/// Asks the server again (by etag) unless `checksum` says what is wanted and the store has it. The content is in a bundle of the store.
pub fn fetch(url: &str, checksum: Option<&Sha256Digest>, store: &Store) -> Result<Fetched, HttpError> {
    todo!()
}
