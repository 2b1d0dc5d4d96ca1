//! The stat cache: what the last scan of a context saw, as one file that mirrors the directories.
//!
//! ```text
//! magic (16)
//! blocks, children before parents. Each: number of entries (u32), then in byte order of names
//!     length of the name (u16), kind (u8: 0 directory, 1 file, 2 file with a racy time), the name, and
//!     for a directory the offset of its block (u32),
//!     for a file its fingerprint (48) and digest (32)
//! trailer: number of files (u32), offset of the root's block (u32), BLAKE3 of all before (32)
//! ```
//!
//! It is read at once, and walked in step with the directories, which are sorted too: nothing is looked up by path.
//! A wrong digest would be a wrong cache hit, hence the checksum; a cache that fails it is as good as none.

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use memobuild_tree::{ContentDigest, KeyHasher};

use super::hash::Fingerprint;
use crate::{
    Store,
    error::{Result, StoreError},
    tmp_file::TmpFile,
};

const MAGIC: &[u8; 16] = b"memobuild stat 1";
const TRAILER: usize = 40;

/// Where the cache of a context lies.
pub(super) fn path(store: &Store, root: &Path, name: &str) -> PathBuf {
    let mut h = KeyHasher::new("memobuild.stat-cache.v1");
    h.bytes(root.as_os_str().as_bytes()).value(name);
    store.layout().contexts().join(h.finish().hex())
}

/// Replaces the cache.
pub(super) fn write(store: &Store, path: &Path, bytes: Vec<u8>) -> Result<()> {
    let mut tmp = TmpFile::create(store.layout(), store.process_lease())?;
    tmp.file.write_all(&bytes).map_err(StoreError::io("write", &tmp.path))?;
    tmp.keep_plain(path)
}

/// Whether a cache file is one that would be used. It is read in pieces.
pub(super) fn is_whole(file: &fs::File) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let Some(summed) = len.checked_sub(32).filter(|n| *n >= (MAGIC.len() + TRAILER - 32) as u64) else {
        return Ok(false);
    };
    let mut file = io::BufReader::with_capacity(128 * 1024, file);
    if !file.fill_buf()?.starts_with(MAGIC) {
        return Ok(false);
    }
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut (&mut file).take(summed), &mut hasher)?;
    let mut sum = [0; 32];
    file.read_exact(&mut sum)?;
    Ok(hasher.finalize().as_bytes() == &sum)
}

/// A cache in memory; the default is an empty one.
#[derive(Debug, Default)]
pub(super) struct Cache {
    bytes: Vec<u8>,
    root: u32,
    files: u32,
}

/// What the cache knows of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Dir(u32),
    File { seen: Fingerprint, digest: ContentDigest, racy: bool },
}

impl Cache {
    /// Reads a cache file; `None` if there is none or it is damaged.
    pub(super) fn read(path: &Path) -> Option<Self> {
        Self::parse(fs::read(path).ok()?)
    }

    fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let (summed, sum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(summed).as_bytes() != sum {
            return None;
        }
        let (rest, root) = summed.split_last_chunk::<4>()?;
        let (_, files) = rest.split_last_chunk::<4>()?;
        let (root, files) = (u32::from_le_bytes(*root), u32::from_le_bytes(*files));
        bytes.truncate(bytes.len() - TRAILER);
        Some(Self { bytes, root, files })
    }

    /// The number of files in it.
    pub(super) fn files(&self) -> u64 {
        u64::from(self.files)
    }

    /// The block of the root directory.
    pub(super) fn root(&self) -> Option<u32> {
        (self.root > 0).then_some(self.root)
    }

    /// Walks the entries of a block (none for `None`).
    pub(super) fn cursor(&self, block: Option<u32>) -> Cursor<'_> {
        let block = block.and_then(|at| self.bytes.get(at as usize..)).and_then(|rest| rest.split_first_chunk::<4>());
        match block {
            Some((count, rest)) => Cursor { left: u32::from_le_bytes(*count), rest, pending: None },
            None => Cursor { left: 0, rest: &[], pending: None },
        }
    }
}

/// A place in a block. Names must be asked for in rising order.
pub(super) struct Cursor<'a> {
    left: u32,
    rest: &'a [u8],
    pending: Option<(&'a [u8], Known)>,
}

impl<'a> Cursor<'a> {
    /// What is known of that name.
    pub(super) fn find(&mut self, name: &[u8]) -> Option<Known> {
        loop {
            if self.pending.is_none() {
                self.left = self.left.checked_sub(1)?;
                self.pending = self.parse();
            }
            let (here, known) = self.pending?;
            match here.cmp(name) {
                std::cmp::Ordering::Less => self.pending = None,
                std::cmp::Ordering::Equal => {
                    self.pending = None;
                    return Some(known);
                }
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    fn parse(&mut self) -> Option<(&'a [u8], Known)> {
        let (len, rest) = self.rest.split_first_chunk::<2>()?;
        let (kind, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let (known, rest) = match kind {
            0 => {
                let (at, rest) = rest.split_first_chunk::<4>()?;
                (Known::Dir(u32::from_le_bytes(*at)), rest)
            }
            _ => {
                let (seen, rest) = rest.split_first_chunk::<48>()?;
                let (digest, rest) = rest.split_first_chunk::<32>()?;
                let digest = ContentDigest::from_bytes(*digest);
                (Known::File { seen: get_fingerprint(seen)?, digest, racy: *kind == 2 }, rest)
            }
        };
        self.rest = rest;
        Some((name, known))
    }
}

fn put_fingerprint(out: &mut Vec<u8>, seen: &Fingerprint) {
    for number in [seen.size, seen.mtime as u64, seen.ctime as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&seen.mtime_nanos.to_le_bytes());
    out.extend_from_slice(&seen.ctime_nanos.to_le_bytes());
    out.extend_from_slice(&seen.inode.to_le_bytes());
    out.extend_from_slice(&seen.device.to_le_bytes());
}

fn get_fingerprint(bytes: &[u8; 48]) -> Option<Fingerprint> {
    let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
    let short = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
    Some(Fingerprint {
        size: number(0)?,
        mtime: number(8)? as i64,
        ctime: number(16)? as i64,
        mtime_nanos: short(24)?,
        ctime_nanos: short(28)?,
        inode: number(32)?,
        device: number(40)?,
    })
}

/// Writes a new cache, directory by directory, children before parents.
pub(super) struct Builder {
    bytes: Vec<u8>,
    files: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { bytes: MAGIC.to_vec(), files: 0 }
    }

    /// Adds a directory of these entries, in order of names; the offset of its block. `None` if the cache grows too
    /// large to be one.
    pub(super) fn dir(&mut self, entries: &[(&[u8], Known)]) -> Option<u32> {
        let block = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(&u32::try_from(entries.len()).ok()?.to_le_bytes());
        for (name, known) in entries {
            self.bytes.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
            match known {
                Known::Dir(at) => {
                    self.bytes.push(0);
                    self.bytes.extend_from_slice(name);
                    self.bytes.extend_from_slice(&at.to_le_bytes());
                }
                Known::File { seen, digest, racy } => {
                    self.files += 1;
                    self.bytes.push(1 + u8::from(*racy));
                    self.bytes.extend_from_slice(name);
                    put_fingerprint(&mut self.bytes, seen);
                    self.bytes.extend_from_slice(digest.as_bytes());
                }
            }
        }
        Some(block)
    }

    /// The bytes of the file, given the root's block.
    pub(super) fn finish(mut self, root: u32) -> Vec<u8> {
        self.bytes.extend_from_slice(&self.files.to_le_bytes());
        self.bytes.extend_from_slice(&root.to_le_bytes());
        let sum = blake3::hash(&self.bytes);
        self.bytes.extend_from_slice(sum.as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> Known {
        let seen = Fingerprint { size, mtime: -1, mtime_nanos: 2, ctime: 3, ctime_nanos: 4, inode: 5, device: 6 };
        Known::File { seen, digest: ContentDigest::of(&size.to_le_bytes()), racy: size == 7 }
    }

    fn sample() -> Vec<u8> {
        let mut builder = Builder::new();
        let sub = builder.dir(&[(b"x".as_slice(), file(7))]).unwrap();
        let root = builder.dir(&[(b"a".as_slice(), file(1)), (b"b", Known::Dir(sub)), (b"c", file(2))]).unwrap();
        builder.finish(root)
    }

    #[test]
    fn names_are_found_in_order() {
        let cache = Cache::parse(sample()).unwrap();
        assert_eq!(cache.files(), 3);
        let mut cursor = cache.cursor(cache.root());
        assert_eq!(cursor.find(b"A"), None);
        assert_eq!(cursor.find(b"a"), Some(file(1)));
        assert_eq!(cursor.find(b"aa"), None);
        let Some(Known::Dir(sub)) = cursor.find(b"b") else { panic!() };
        assert_eq!(cursor.find(b"d"), None);
        assert_eq!(cursor.find(b"e"), None);
        assert_eq!(cache.cursor(Some(sub)).find(b"x"), Some(file(7)));
        assert_eq!(cache.cursor(None).find(b"x"), None);
    }

    #[test]
    fn any_changed_byte_makes_it_no_cache() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(Cache::parse(bytes).is_none(), "byte {at}");
        }
        assert!(Cache::parse(bytes[..bytes.len() - 1].to_vec()).is_none());
        assert!(Cache::parse(Vec::new()).is_none());
    }
}
