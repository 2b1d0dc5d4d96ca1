//! Results of actions: what the protocols of other tools keep under a digest of their own making, and may overwrite.
//!
//! They are kept in *slots* ([`Storage::slot`]), one for each instance, digest function and hash. A value that is an
//! `ActionResult` of the Remote Execution API names the blobs that it needs, those inside its directories included, so
//! that it goes when one of them does; any other value needs none. Values above 64 KiB are blobs themselves.

use std::io::Read as _;

use bazel_remote_apis::build::bazel::remote::execution::v2 as rex;
use memobuild_tree::ContentDigest;
use prost::Message as _;

use crate::{
    BlobId, RecordKey,
    reply::ApiError,
    rexec::digest::{self, Function},
    storage::{CheckedWriter, Record, Storage, StorageError},
};

/// Bytes of the largest value that stands in its record.
const INLINE: usize = 64 << 10;

/// Blobs that one result may need.
const MOST_BLOBS: usize = 50_000;

/// Bytes of a message that lists a directory's contents.
const LISTING: u64 = 32 << 20;

/// How a record's value begins.
const FORMAT: u8 = 1;
const HERE: u8 = 0;
const IN_BLOB: u8 = 1;
const REMOVED: u8 = 2;

/// The slot of a result. The size of the action is no part of it: HTTP does not tell it.
pub(crate) fn key(namespace: &'static str, instance: &str, function: Function, name: &[u8]) -> RecordKey {
    let mut hasher = blake3::Hasher::new_derive_key("memobuild-server action result slot 1");
    for part in [instance.as_bytes(), function.name().as_bytes(), name] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    RecordKey::of(namespace, *hasher.finalize().as_bytes())
}

/// The value in a slot; `None` if there is none, or not all of what it needs. Blocks.
pub(crate) fn get(storage: &dyn Storage, key: &RecordKey) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(record) = storage.slot(key)? else { return Ok(None) };
    match record.value.split_at_checked(2) {
        Some((&[FORMAT, HERE], value)) => Ok(Some(value.to_vec())),
        Some((&[FORMAT, IN_BLOB], digest)) => {
            let Ok(digest) = <[u8; 32]>::try_from(digest) else { return Ok(None) };
            let id = BlobId::Content(ContentDigest::from_bytes(digest));
            let Some(blob) = storage.blob_read(id, 0)? else { return Ok(None) };
            let mut value = Vec::new();
            let read = blob.content.take(blob.size).read_to_end(&mut value);
            read.map_err(|source| StorageError::Io { what: "read a blob".into(), source })?;
            Ok((BlobId::Content(ContentDigest::of(&value)) == id).then_some(value))
        }
        // What another version wrote is not there for this one.
        _ => Ok(None),
    }
}

/// Puts a value in a slot, in the place of another that may be there. Gives the blobs that are missing: none if it was
/// stored. Blocks.
pub(crate) fn put(
    storage: &dyn Storage,
    key: &RecordKey,
    value: &[u8],
    mut blobs: Vec<BlobId>,
) -> Result<Vec<BlobId>, StorageError> {
    let mut stored = vec![FORMAT, HERE];
    if value.len() <= INLINE {
        stored.extend_from_slice(value);
    } else {
        let digest = ContentDigest::of(value);
        let id = BlobId::Content(digest);
        if storage.blob_size(id)?.is_none() {
            let mut writer = CheckedWriter::new(id, value.len() as u64, Some(storage.blob_create(id)?));
            writer.take(value)?;
            writer.finish()?;
        }
        blobs.push(id);
        stored = vec![FORMAT, IN_BLOB];
        stored.extend_from_slice(digest.as_bytes());
    }
    storage.slot_put(key, &Record { value: stored, blobs })
}

/// Empties a slot; whether there was something in it. Blocks.
pub(crate) fn remove(storage: &dyn Storage, key: &RecordKey) -> Result<bool, StorageError> {
    let there = get(storage, key)?.is_some();
    if there {
        storage.slot_put(key, &Record { value: vec![FORMAT, REMOVED], blobs: Vec::new() })?;
    }
    Ok(there)
}

/// The blobs without which a result is useless. Blocks.
///
/// # Errors
/// `invalid_digest` for a digest that is none; `missing_blobs` if a directory's list is not there; `invalid_value` if it
/// is no such list; `too_many` if there are too many.
pub(crate) fn needs(
    storage: &dyn Storage,
    function: Function,
    result: &rex::ActionResult,
) -> Result<Vec<BlobId>, ApiError> {
    let mut needs = Needs { storage, function, blobs: Vec::new() };
    for file in &result.output_files {
        needs.file(file.digest.as_ref())?;
    }
    for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
        needs.file(Some(digest))?;
    }
    for directory in &result.output_directories {
        if let Some(digest) = &directory.tree_digest {
            let tree: rex::Tree = needs.listing(digest)?;
            for directory in tree.root.iter().chain(&tree.children) {
                needs.files(directory)?;
            }
        }
        if let Some(digest) = &directory.root_directory_digest {
            needs.directories(digest)?;
        }
    }
    let mut blobs = needs.blobs;
    blobs.sort_unstable();
    blobs.dedup();
    Ok(blobs)
}

/// All of a blob that has this size.
pub(crate) fn whole(storage: &dyn Storage, id: BlobId, size: u64) -> Result<Option<Vec<u8>>, StorageError> {
    if size == 0 && digest::is_empty(id) {
        return Ok(Some(Vec::new()));
    }
    let Some(blob) = storage.blob_read(id, 0)?.filter(|blob| blob.size == size) else { return Ok(None) };
    let failed = |source| StorageError::Io { what: "read a blob".into(), source };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    blob.content.take(size).read_to_end(&mut bytes).map_err(failed)?;
    // A file that is shorter than it was must not pass for whole.
    if bytes.len() as u64 != size {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(bytes))
}

struct Needs<'a> {
    storage: &'a dyn Storage,
    function: Function,
    blobs: Vec<BlobId>,
}

impl Needs<'_> {
    fn file(&mut self, digest: Option<&rex::Digest>) -> Result<(), ApiError> {
        let digest = digest.ok_or_else(|| ApiError::bad("invalid_digest", "a file has no digest"))?;
        let (id, size) = digest::blob(self.function, digest)?;
        if size == 0 {
            return Ok(());
        }
        self.blobs.push(id);
        if self.blobs.len() > MOST_BLOBS {
            return Err(ApiError::bad("too_many", format!("a result needs more than {MOST_BLOBS} blobs")));
        }
        Ok(())
    }

    fn files(&mut self, directory: &rex::Directory) -> Result<(), ApiError> {
        directory.files.iter().try_for_each(|file| self.file(file.digest.as_ref()))
    }

    fn listing<M: prost::Message + Default>(&mut self, digest: &rex::Digest) -> Result<M, ApiError> {
        self.file(Some(digest))?;
        let (id, size) = digest::blob(self.function, digest)?;
        if size > LISTING {
            return Err(ApiError::too_large(LISTING));
        }
        let bytes = whole(self.storage, id, size)?.ok_or_else(|| digest::missing(&[id]))?;
        M::decode(bytes.as_slice())
            .map_err(|_| ApiError::bad("invalid_value", format!("{id} does not list a directory's contents")))
    }

    /// A directory and those below it, each a blob of its own. Equal ones are looked at once.
    fn directories(&mut self, root: &rex::Digest) -> Result<(), ApiError> {
        let mut seen = std::collections::HashSet::new();
        let mut open = vec![root.clone()];
        while let Some(digest) = open.pop() {
            if !seen.insert(digest.hash.clone()) {
                continue;
            }
            let directory: rex::Directory = self.listing(&digest)?;
            self.files(&directory)?;
            for child in directory.directories {
                open.push(child.digest.ok_or_else(|| ApiError::bad("invalid_digest", "a directory has no digest"))?);
            }
        }
        Ok(())
    }
}

/// Takes a value for an `ActionResult` if it is one in all its parts: other tools keep other things under `/ac/`.
pub(crate) fn action_result(value: &[u8]) -> Option<rex::ActionResult> {
    let result = rex::ActionResult::decode(value).ok()?;
    let files = result.output_files.iter().map(|file| file.digest.as_ref());
    let others = [&result.stdout_digest, &result.stderr_digest].into_iter().flatten().map(Some);
    let trees = result.output_directories.iter().map(|d| d.tree_digest.as_ref().or(d.root_directory_digest.as_ref()));
    let is_digest = |digest: Option<&rex::Digest>| digest.is_some_and(|d| digest::blob(Function::Sha256, d).is_ok());
    let whole = files.chain(others).chain(trees).all(is_digest);
    whole.then_some(result)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use super::*;
    use crate::storage::DiskStorage;

    fn stored(storage: &DiskStorage, bytes: &[u8]) -> rex::Digest {
        let id = digest::of(Function::Sha256, bytes);
        let mut writer = CheckedWriter::new(id, 1 << 20, Some(storage.blob_create(id).unwrap()));
        writer.take(bytes).and_then(|()| writer.finish().map(drop)).unwrap();
        digest::shown(id, bytes.len() as u64)
    }

    #[test]
    fn values_of_any_size_come_back_and_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let key = key("ac", "", Function::Sha256, b"name");
        assert_eq!(get(&storage, &key).unwrap(), None);
        for size in [0, 10, INLINE, INLINE + 1, 3 * INLINE] {
            let value = vec![7; size];
            assert_eq!(put(&storage, &key, &value, Vec::new()).unwrap(), []);
            assert_eq!(get(&storage, &key).unwrap(), Some(value));
        }
        assert!(remove(&storage, &key).unwrap());
        assert!(!remove(&storage, &key).unwrap());
        assert_eq!(get(&storage, &key).unwrap(), None);
        // Only the last is kept.
        assert_eq!(storage.usage().unwrap().records, 1);
    }

    #[test]
    fn slots_are_kept_apart() {
        let name = [1; 32];
        let one = key("ac", "a", Function::Sha256, &name);
        for other in [
            key("ac", "", Function::Sha256, &name),
            key("ac", "a", Function::Blake3, &name),
            key("ccache", "a", Function::Sha256, &name),
            key("ac", "a", Function::Sha256, &name[1..]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_result_needs_what_its_directories_list() {
        let dir = tempfile::tempdir().unwrap();
        let storage = DiskStorage::open(dir.path(), None).unwrap();
        let file = stored(&storage, b"a file");
        let node = rex::FileNode { name: "f".into(), digest: Some(file.clone()), ..Default::default() };
        let below = rex::Directory { files: vec![node], ..Default::default() };
        let tree = rex::Tree { root: None, children: vec![below.clone()] };
        let tree = stored(&storage, &tree.encode_to_vec());
        let below = stored(&storage, &below.encode_to_vec());
        let child = rex::DirectoryNode { name: "d".into(), digest: Some(below.clone()) };
        let root = stored(&storage, &rex::Directory { directories: vec![child], ..Default::default() }.encode_to_vec());
        let with = |tree: Option<&rex::Digest>, root: Option<&rex::Digest>| rex::ActionResult {
            output_directories: vec![rex::OutputDirectory {
                tree_digest: tree.cloned(),
                root_directory_digest: root.cloned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let ids = |digests: &[&rex::Digest]| {
            let mut ids: Vec<_> = digests.iter().map(|d| digest::blob(Function::Sha256, d).unwrap().0).collect();
            ids.sort_unstable();
            ids
        };
        let found = needs(&storage, Function::Sha256, &with(Some(&tree), None)).unwrap();
        assert_eq!(found, ids(&[&tree, &file]));
        let found = needs(&storage, Function::Sha256, &with(None, Some(&root))).unwrap();
        assert_eq!(found, ids(&[&root, &below, &file]));
        let gone = digest::shown(digest::of(Function::Sha256, b"never stored"), 12);
        let error = needs(&storage, Function::Sha256, &with(Some(&gone), None)).unwrap_err();
        assert_eq!(error.code(), "missing_blobs");
        let error = needs(&storage, Function::Sha256, &with(Some(&file), None)).unwrap_err();
        assert_eq!(error.code(), "invalid_value");
    }

    #[test]
    fn only_whole_results_are_taken_for_results() {
        let digest = digest::shown(digest::of(Function::Sha256, b"x"), 1);
        let file = rex::OutputFile { path: "x".into(), digest: Some(digest), ..Default::default() };
        let mut result = rex::ActionResult { output_files: vec![file], ..Default::default() };
        assert_eq!(action_result(&result.encode_to_vec()), Some(result.clone()));
        result.output_files[0].digest = None;
        assert_eq!(action_result(&result.encode_to_vec()), None);
        assert_eq!(action_result(b"cCaC anything else"), None);
    }
}
