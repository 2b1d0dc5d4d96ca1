//! Writing a bundle: contents come in from any number of threads, in any order; the diff that names them comes last.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memobuild_tree::{BundleId, Change, ContentDigest, Diff, Node, codec};

use super::{
    Bundle,
    format::{MAGIC, PackedEntry, Tables, encode_tail},
};
use crate::{
    LARGE_FILE, Ref, Store,
    digest_map::{DigestMap, DigestSet},
    error::{Result, StoreError},
    tmp_file::{TmpFile, read_full},
};

/// Packed bytes held in memory before they are written out. Most steps' bundles never reach it, and are one write.
const BUFFER: usize = 1 << 20;

/// Gathers contents for one bundle. Dropped without [`BundleWriter::finish`] it leaves no trace but large blobs, which
/// GC removes.
#[derive(Debug)]
pub struct BundleWriter {
    store: Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<TmpFile>,
    /// What follows the bytes in the file.
    buffer: Vec<u8>,
    /// Length of the file.
    written: u64,
    entries: Vec<PackedEntry>,
    own: DigestSet<ContentDigest>,
    blobs: DigestMap<ContentDigest, u64>,
}

impl State {
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes the buffer out.
    fn spill(&mut self, store: &Store) -> Result<&mut TmpFile> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(TmpFile::create(store.layout(), store.process_lease())?),
        };
        file.file.write_all(&self.buffer).map_err(StoreError::io("write", &file.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(file)
    }
}

impl Store {
    /// Starts a bundle.
    pub fn bundle_writer(&self) -> BundleWriter {
        let state = State { buffer: MAGIC.to_vec(), ..State::default() };
        BundleWriter { store: self.clone(), state: Mutex::new(state) }
    }
}

impl BundleWriter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file that is in memory, of any length. What is known already (here, in a loaded bundle, as a blob) is
    /// not stored again.
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<ContentDigest> {
        let digest = ContentDigest::of(bytes);
        if bytes.len() as u64 > LARGE_FILE {
            if !self.has_blob(&digest, bytes.len() as u64)? {
                let mut tmp = TmpFile::create(self.store.layout(), self.store.process_lease())?;
                tmp.file.write_all(bytes).map_err(StoreError::io("write", &tmp.path))?;
                self.keep_blob(tmp, &digest, bytes.len() as u64)?;
            }
        } else if !bytes.is_empty() {
            self.add_small(digest, bytes)?;
        }
        Ok(digest)
    }

    /// Adds a small file whose digest was made from these bytes.
    pub(crate) fn add_small(&self, digest: ContentDigest, bytes: &[u8]) -> Result<()> {
        if self.store.bundles().find(&digest).is_some() {
            return Ok(());
        }
        let mut state = self.state();
        if !state.own.insert(digest) {
            return Ok(());
        }
        let entry = PackedEntry { digest, at: state.at(), len: bytes.len() as u32 };
        state.entries.push(entry);
        state.buffer.extend_from_slice(bytes);
        if state.buffer.len() >= BUFFER {
            state.spill(&self.store)?;
        }
        Ok(())
    }

    /// Adds a file as it is read, with memory that does not grow with it. `size_hint` is the expected length in bytes;
    /// a wrong one costs time only. Gives the digest and the true length.
    pub fn add_reader(&self, reader: &mut dyn Read, size_hint: u64) -> Result<(ContentDigest, u64)> {
        let input = StoreError::io("read", "the input");
        // One byte more than a small file can have, so that its end shows.
        let mut head = vec![0; LARGE_FILE.min(size_hint) as usize + 1];
        let mut filled = match read_full(reader, &mut head) {
            Ok(n) => n,
            Err(e) => return Err(input(e)),
        };
        if filled == head.len() && filled as u64 <= LARGE_FILE {
            head.resize(LARGE_FILE as usize + 1, 0);
            let rest = head.get_mut(filled..).unwrap_or_default();
            filled += read_full(reader, rest).map_err(StoreError::io("read", "the input"))?;
        }
        head.truncate(filled);
        if filled as u64 <= LARGE_FILE {
            return Ok((self.add_bytes(&head)?, filled as u64));
        }
        let mut tmp = TmpFile::create(self.store.layout(), self.store.process_lease())?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        while filled > 0 {
            let bytes = head.get(..filled).unwrap_or_default();
            hasher.update(bytes);
            tmp.file.write_all(bytes).map_err(StoreError::io("write", &tmp.path))?;
            size += filled as u64;
            head.resize(128 * 1024, 0);
            filled = read_full(reader, &mut head).map_err(StoreError::io("read", "the input"))?;
        }
        let digest = hasher.finalize().into();
        if !self.has_blob(&digest, size)? {
            self.keep_blob(tmp, &digest, size)?;
        }
        Ok((digest, size))
    }

    /// Takes a large file in by renaming it: it must have the digest and size given, on the same file system (else it
    /// is copied), and nothing may write to it any more. The file at `tmp` is gone afterwards.
    pub fn adopt_blob(&self, tmp: &Path, digest: &ContentDigest, size: u64) -> Result<()> {
        if size <= LARGE_FILE {
            let bytes = fs::read(tmp).map_err(StoreError::io("read", tmp))?;
            if ContentDigest::of(&bytes) != *digest {
                return Err(StoreError::ChangedWhileRead { path: tmp.to_path_buf() });
            }
            self.add_bytes(&bytes)?;
            return fs::remove_file(tmp).map_err(StoreError::io("remove", tmp));
        }
        if self.has_blob(digest, size)? {
            return fs::remove_file(tmp).map_err(StoreError::io("remove", tmp));
        }
        self.store.adopt(tmp, digest, size)?;
        self.state().blobs.insert(*digest, size);
        Ok(())
    }

    /// Whether a blob is known; if so it is counted as one of this bundle's.
    fn has_blob(&self, digest: &ContentDigest, size: u64) -> Result<bool> {
        let known = self.store.whole_blob(digest)?.is_some();
        if known {
            self.state().blobs.insert(*digest, size);
        }
        Ok(known)
    }

    fn keep_blob(&self, tmp: TmpFile, digest: &ContentDigest, size: u64) -> Result<()> {
        self.store.keep_blob(tmp, digest)?;
        self.state().blobs.insert(*digest, size);
        Ok(())
    }

    /// Writes the bundle of this diff. Every content that the diff names must have been added here, or be in a bundle
    /// that is loaded, or be a blob. A bundle of the same id that is there already, and complete, stays.
    pub fn finish(self, diff: &Diff) -> Result<BundleId> {
        let encoded = codec::encode(diff);
        let id = codec::bundle_id(&encoded);
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let store = &self.store;
        let needed = needed(store, &state, diff, &id)?;
        store.process_lease().touch(&[Ref::Bundle(id)])?;
        // Damage in the present one is no failure here: it has been set aside, and this one takes its place.
        match store.complete_bundle(&id) {
            Ok(Some(_)) => return Ok(id),
            Err(e) if !e.is_damage() => return Err(e),
            _ => {}
        }
        for (digest, old, number) in needed.own_before {
            let bytes = old.read_packed(store.bundles().open_files(), number)?;
            let entry = PackedEntry { digest, at: state.at(), len: bytes.len() as u32 };
            state.entries.push(entry);
            state.buffer.extend_from_slice(&bytes);
        }
        let tables = Tables::new(&state.entries, needed.refs.into_iter().collect(), needed.blobs);
        let (footer, tail) = encode_tail(&encoded, state.at(), &tables);
        state.buffer.extend_from_slice(&tail);
        state.spill(store)?;
        let Some(tmp) = state.file else { unreachable!("spilling makes the file") };
        let path = store.layout().bundle(&id);
        let meta = tmp.file.metadata().map_err(StoreError::io("inspect", &tmp.path))?;
        // Two steps of one build, or two processes, may make equal diffs at the same time. The first one's file stays:
        // whoever has read its tables could not read contents out of another.
        if let Some(tmp) = tmp.keep_if_new(&path)? {
            match store.complete_bundle(&id) {
                Ok(Some(_)) => return Ok(id),
                Err(e) if !e.is_damage() => return Err(e),
                _ => tmp.keep(&path)?,
            }
        }
        // One that was there and incomplete has been replaced.
        store.bundles().forget(&id);
        store.bundles().register(Bundle::new(id, path, (meta.dev(), meta.ino()), footer, tables));
        Ok(id)
    }
}

/// Where the contents are that a diff names and that are not packed here.
#[derive(Default)]
struct Needed {
    refs: BTreeSet<BundleId>,
    blobs: Vec<(ContentDigest, u64)>,
    /// Contents that an incomplete bundle of the same id holds, which is about to be replaced.
    own_before: Vec<(ContentDigest, Arc<Bundle>, u32)>,
}

fn needed(store: &Store, state: &State, diff: &Diff, id: &BundleId) -> Result<Needed> {
    let empty = ContentDigest::of(b"");
    let mut seen = DigestSet::default();
    let mut out = Needed::default();
    let mut error = None;
    let mut lacking = Vec::new();
    diff.walk(&mut |path, change| {
        let Change::Put(Node::File(file)) = change else { return };
        let digest = file.content;
        if error.is_some() || digest == empty || state.own.contains(&digest) || !seen.insert(digest) {
            return;
        }
        if let Some(size) = state.blobs.get(&digest) {
            out.blobs.push((digest, *size));
        } else if let Some((bundle, number)) = store.bundles().find(&digest) {
            if bundle.id == *id {
                out.own_before.push((digest, bundle, number));
            } else {
                out.refs.insert(bundle.id);
            }
        } else {
            match store.whole_blob(&digest) {
                Ok(Some((_, size))) => out.blobs.push((digest, size)),
                Ok(None) => lacking.push((digest, path.to_vec())),
                Err(e) => error = Some(e),
            }
        }
    });
    for (digest, path) in lacking {
        if error.is_none() {
            error = out.bring(store, digest, path).err();
        }
    }
    error.map_or(Ok(out), Err)
}

impl Needed {
    /// Has a content brought that the store lacks.
    fn bring(&mut self, store: &Store, digest: ContentDigest, path: Vec<u8>) -> Result<()> {
        store.bring(&digest)?;
        if let Some((bundle, _)) = store.bundles().find(&digest) {
            self.refs.insert(bundle.id);
        } else if let Some((_, size)) = store.whole_blob(&digest)? {
            self.blobs.push((digest, size));
        } else {
            return Err(StoreError::MissingContent { digest, at: Some(path) });
        }
        Ok(())
    }
}

/// Copies a file whose digest is known, checking it on the way.
pub(crate) fn copy_checked(from: &File, to: &mut File, path: &Path, digest: &ContentDigest) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut from = from;
    loop {
        let n = read_full(&mut from, &mut buffer).map_err(StoreError::io("read", path))?;
        let bytes = buffer.get(..n).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        to.write_all(bytes).map_err(StoreError::io("write", path))?;
    }
    if ContentDigest::from(hasher.finalize()) == *digest {
        Ok(())
    } else {
        Err(StoreError::ChangedWhileRead { path: path.to_path_buf() })
    }
}
