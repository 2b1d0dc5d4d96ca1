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

use memobuild_store::{LARGE_FILE, Store};
use memobuild_tree::{BundleId, Change, ContentDigest, Diff, Node, Sha256Digest};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{CacheError, directory::Blob};

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
/// for less than a quarter of its bytes, or that bundle is one of `avoided`. What is in `like`, another bundle and its
/// diff, is left there too, though this store holds it in both.
pub(crate) fn contents(
    store: &Store,
    id: &BundleId,
    diff: &Diff,
    avoided: &[BundleId],
    like: Option<(&BundleId, &Diff)>,
) -> Result<Contents, CacheError> {
    let mut out = Contents::default();
    let (mut alike, mut alike_bytes) = (HashSet::new(), 0);
    if let Some((_, diff)) = like {
        diff.walk(&mut |_, change| {
            if let Change::Put(Node::File(file)) = change
                && file.size <= ALONE
                && alike.insert(file.content)
            {
                alike_bytes += file.size;
            }
        });
    }
    let mut seen = HashSet::new();
    let mut elsewhere: BTreeMap<BundleId, (u64, Vec<ContentDigest>)> = BTreeMap::new();
    diff.walk(&mut |_, change| {
        let Change::Put(Node::File(file)) = change else { return };
        if file.size == 0 || !seen.insert(file.content) {
            return;
        }
        if file.size > ALONE {
            out.large.push(file.content);
        } else if let Some((other, _)) = like.filter(|_| alike.contains(&file.content)) {
            let (bytes, all) = elsewhere.entry(*other).or_default();
            *bytes += file.size;
            all.push(file.content);
        } else if file.size > LARGE_FILE {
            out.packed.push(file.content);
        } else {
            match store.bundle_of(&file.content).filter(|other| other != id && !avoided.contains(other)) {
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
        let total = match like {
            Some((like, _)) if *like == other => alike_bytes,
            _ => store.bundle_bytes(&other)?.unwrap_or(u64::MAX),
        };
        if bytes.saturating_mul(4) < total {
            out.packed.extend(contents);
        } else {
            out.needs.push(other);
        }
    }
    Ok(out)
}

/// A blob that was made, in a file of the maker's own.
pub(crate) struct Made {
    pub(crate) blob: Blob,
    pub(crate) file: NamedTempFile,
}

/// Writes a pack into a new file of that directory.
pub(crate) fn write(store: &Store, packed: &[ContentDigest], dir: &Path) -> Result<Made, CacheError> {
    make(dir, |to| {
        to.write_all(MAGIC)?;
        for digest in packed {
            let content = store.content(digest).map_err(io::Error::other)?;
            let len = u32::try_from(content.len()).map_err(io::Error::other)?;
            to.write_all(&len.to_le_bytes())?;
            io::copy(&mut content.reader(), to)?;
        }
        Ok(())
    })
}

/// The same of a large file.
pub(crate) fn write_large(store: &Store, content: &ContentDigest, dir: &Path) -> Result<Made, CacheError> {
    make(dir, |to| io::copy(&mut store.content(content).map_err(io::Error::other)?.reader(), to).map(drop))
}

fn make(dir: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Made, CacheError> {
    let made = (|| {
        let file = NamedTempFile::new_in(dir)?;
        let mut to = zstd::Encoder::new(Hashed { to: file, hasher: Sha256::new(), size: 0 }, LEVEL)?;
        fill(&mut to)?;
        let Hashed { to: file, hasher, size } = to.finish()?;
        Ok(Made { blob: Blob { digest: Sha256Digest::from_bytes(hasher.finalize().into()), size }, file })
    })();
    made.map_err(CacheError::io(dir))
}

/// Hashes what is written.
struct Hashed {
    to: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads a pack whose digest was verified, and makes the bundle. All that the diff names besides must be there.
pub(crate) fn read(store: &Store, file: File, diff: &Diff) -> Result<BundleId, CacheError> {
    let path = Path::new("a pack");
    let writer = store.bundle_writer();
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
pub(crate) fn read_large(store: &Store, file: File, content: &ContentDigest) -> Result<(), CacheError> {
    let path = Path::new("a large file");
    let mut from = zstd::Decoder::new(file).map_err(CacheError::io(path))?;
    let (digest, _) = store.bundle_writer().add_reader(&mut from, LARGE_FILE + 1)?;
    match digest == *content {
        true => Ok(()),
        false => Err(CacheError::io(path)(io::Error::other(format!("content {digest} came for {content}")))),
    }
}
