//! Packs: the contents that a bundle brought with it.
//!
//! ```text
//! "memobuild pack\0\0"  then of each content: length (u32), bytes
//! ```
//! as one zstd frame. Contents have no names here: their digests are taken on arrival, and the bundle is only made if
//! each one that its diff names is there.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use memobuild_store::{LARGE_FILE, OciBlobWriter, Store};
use memobuild_tree::{BundleId, Change, ContentDigest, Diff, Node};

use crate::{
    CacheError,
    directory::{Blob, Large},
};

const MAGIC: &[u8; 16] = b"memobuild pack\0\0";
/// Files longer than this many bytes travel alone: an edit beside them does not move them again.
pub(crate) const ALONE: u64 = 1 << 20;
/// zstd level of packs: faster than most networks.
const LEVEL: i32 = 3;

/// What goes where of a bundle's contents.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Into the pack, in the order of the diff.
    pub(crate) packed: Vec<ContentDigest>,
    /// Beside it.
    pub(crate) large: Vec<ContentDigest>,
    /// Bundles to be sent as well, since they hold the rest.
    pub(crate) needs: Vec<BundleId>,
}

/// Sorts the contents of a diff. Those that other bundles hold are left there, unless that would mean to send a bundle
/// for less than a quarter of its bytes.
pub(crate) fn contents(store: &Store, id: &BundleId, diff: &Diff) -> Result<Contents, CacheError> {
    let mut out = Contents::default();
    let mut seen = HashSet::new();
    let mut elsewhere: BTreeMap<BundleId, (u64, Vec<ContentDigest>)> = BTreeMap::new();
    diff.walk(&mut |_, change| {
        let Change::Put(Node::File(file)) = change else { return };
        if file.size == 0 || !seen.insert(file.content) {
            return;
        }
        if file.size > ALONE {
            out.large.push(file.content);
        } else if file.size > LARGE_FILE {
            out.packed.push(file.content);
        } else {
            match store.bundle_of(&file.content).filter(|other| other != id) {
                Some(other) => {
                    let (bytes, all) = elsewhere.entry(other).or_default();
                    *bytes += file.size;
                    all.push(file.content);
                }
                None => out.packed.push(file.content),
            }
        }
    });
    for (other, (bytes, contents)) in elsewhere {
        let total = store.bundle_bytes(&other)?.unwrap_or(u64::MAX);
        if bytes.saturating_mul(4) < total {
            out.packed.extend(contents);
        } else {
            out.needs.push(other);
        }
    }
    Ok(out)
}

/// Writes a pack into the store's image blobs.
pub(crate) fn write(store: &Store, packed: &[ContentDigest]) -> Result<Blob, CacheError> {
    let mut to = encoder(store)?;
    let io_error = CacheError::io("a pack");
    let written = (|| {
        to.write_all(MAGIC)?;
        for digest in packed {
            let content = store.content(digest).map_err(io::Error::other)?;
            let len = u32::try_from(content.len()).map_err(io::Error::other)?;
            to.write_all(&len.to_le_bytes())?;
            io::copy(&mut content.reader(), &mut to)?;
        }
        to.finish()
    })();
    let (digest, size) = written.map_err(io_error)?.finish(None)?;
    Ok(Blob { digest, size })
}

/// Writes a large file as a blob.
pub(crate) fn write_large(store: &Store, content: &ContentDigest) -> Result<Large, CacheError> {
    let mut to = encoder(store)?;
    let mut from = store.content(content)?.reader();
    let written = io::copy(&mut from, &mut to).and_then(|_| to.finish());
    let (digest, size) = written.map_err(CacheError::io("a large file"))?.finish(None)?;
    Ok(Large { content: *content, blob: Blob { digest, size } })
}

fn encoder(store: &Store) -> Result<zstd::Encoder<'static, OciBlobWriter>, CacheError> {
    zstd::Encoder::new(store.oci_blob_writer()?, LEVEL).map_err(CacheError::io("a pack"))
}

/// Reads a pack whose digest was verified, and makes the bundle. All that the diff names besides must be there.
pub(crate) fn read(store: &Store, path: &Path, diff: &Diff) -> Result<BundleId, CacheError> {
    let writer = store.bundle_writer();
    let file = File::open(path).map_err(CacheError::io(path))?;
    let mut from = zstd::Decoder::new(file).map_err(CacheError::io(path))?;
    let mut magic = [0; 16];
    from.read_exact(&mut magic).map_err(CacheError::io(path))?;
    if magic != *MAGIC {
        return Err(CacheError::io(path)(io::Error::other("not a pack")));
    }
    let mut bytes = Vec::new();
    loop {
        let mut len = [0; 4];
        match from.read(&mut len).map_err(CacheError::io(path))? {
            0 => break,
            n => from.read_exact(len.get_mut(n..).unwrap_or_default()).map_err(CacheError::io(path))?,
        }
        let len = u64::from(u32::from_le_bytes(len));
        if len > ALONE {
            return Err(CacheError::io(path)(io::Error::other("an impossible length in a pack")));
        }
        bytes.clear();
        from.by_ref().take(len).read_to_end(&mut bytes).map_err(CacheError::io(path))?;
        if bytes.len() as u64 != len {
            return Err(CacheError::io(path)(io::ErrorKind::UnexpectedEof.into()));
        }
        writer.add_bytes(&bytes)?;
    }
    Ok(writer.finish(diff)?)
}

/// Puts a large file that came as a blob into the store.
pub(crate) fn read_large(store: &Store, path: &Path, content: &ContentDigest) -> Result<(), CacheError> {
    let file = File::open(path).map_err(CacheError::io(path))?;
    let mut from = zstd::Decoder::new(file).map_err(CacheError::io(path))?;
    let (digest, _) = store.bundle_writer().add_reader(&mut from, LARGE_FILE + 1)?;
    match digest == *content {
        true => Ok(()),
        false => Err(CacheError::io(path)(io::Error::other(format!("content {digest} came for {content}")))),
    }
}
