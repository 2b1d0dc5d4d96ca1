//! Leases: what a living process has touched is never collected.
//!
//! Each process has one file in `leases/`, locked for as long as it lives, to which it appends the name of every
//! bundle and blob *before* it looks whether that is there. GC deletes only while it holds the gate exclusively, and
//! names are appended while holding it shared: so either GC sees the name, or the process sees that the thing is gone.
//! A file that can be locked belongs to a dead process, and so does all in `tmp/` that bears its token.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use memobuild_tree::{BundleId, ContentDigest, Sha256Digest};

use crate::{
    Store,
    digest_map::DigestSet,
    error::{Result, StoreError},
    layout::Layout,
    lock::{FileLock, flock_file, is_at},
    scratch::remove_tree,
};

/// Something on disk that has a life of its own: what records, tags and leases keep alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ref {
    /// A bundle, with all that it refers to.
    Bundle(BundleId),
    /// A blob of an image as it came from or goes to a registry.
    Oci(Sha256Digest),
    /// A large file's blob.
    Content(ContentDigest),
}

/// Bytes of a [`Ref`] as stored: a kind and a digest.
const REF_LEN: usize = 33;

impl Ref {
    fn encode(&self) -> [u8; REF_LEN] {
        let (kind, bytes) = match self {
            Self::Bundle(id) => (b'b', id.as_bytes()),
            Self::Oci(digest) => (b'o', digest.as_bytes()),
            Self::Content(digest) => (b'c', digest.as_bytes()),
        };
        let mut out = [kind; REF_LEN];
        if let Some(tail) = out.get_mut(1..) {
            tail.copy_from_slice(bytes);
        }
        out
    }

    /// Many, one after the other.
    pub(crate) fn encode_all(refs: &[Self]) -> Vec<u8> {
        refs.iter().flat_map(Self::encode).collect()
    }

    /// Reads what [`Ref::encode_all`] wrote; a torn end (of a process killed while it wrote) is left out.
    pub(crate) fn decode_all(bytes: &[u8]) -> Vec<Self> {
        let decode = |chunk: &[u8]| {
            let (kind, digest) = chunk.split_first()?;
            let digest = *digest.first_chunk::<32>()?;
            match kind {
                b'b' => Some(Self::Bundle(BundleId::from_bytes(digest))),
                b'o' => Some(Self::Oci(Sha256Digest::from_bytes(digest))),
                b'c' => Some(Self::Content(ContentDigest::from_bytes(digest))),
                _ => None,
            }
        };
        bytes.chunks_exact(REF_LEN).filter_map(decode).collect()
    }
}

/// This process's lease, made when first needed.
#[derive(Debug)]
pub(crate) struct ProcessLease {
    dir: PathBuf,
    state: Mutex<Option<State>>,
    counter: AtomicU64,
}

#[derive(Debug)]
struct State {
    token: String,
    path: PathBuf,
    file: File,
    gate: File,
    touched: DigestSet<Ref>,
    guards: usize,
}

impl ProcessLease {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { dir: layout.leases(), state: Mutex::new(None), counter: AtomicU64::new(0) }
    }

    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_none() {
            *state = Some(State::create(&self.dir)?);
        }
        match state.as_mut() {
            Some(state) => run(state),
            None => unreachable!("made just above"),
        }
    }

    /// Names what is about to be used, before it is looked for. Says whether any of it was not held yet: what was, is
    /// still where it was found.
    pub(crate) fn touch(&self, refs: &[Ref]) -> Result<bool> {
        if refs.is_empty() {
            return Ok(false);
        }
        self.with(|state| {
            let new: Vec<Ref> = refs.iter().filter(|r| !state.touched.contains(r)).copied().collect();
            if new.is_empty() {
                return Ok(false);
            }
            flock_file(&state.gate, false, true).map_err(StoreError::io("lock", &state.path))?;
            let written = state.file.write_all(&Ref::encode_all(&new));
            let _ = rustix::fs::flock(&state.gate, rustix::fs::FlockOperation::Unlock);
            written.map_err(StoreError::io("write", &state.path))?;
            state.touched.extend(new);
            Ok(true)
        })
    }

    /// A name in `tmp/` that no other process has and that is swept if this one dies.
    pub(crate) fn tmp_name(&self) -> Result<String> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.with(|state| Ok(format!("{}.{number}", state.token)))
    }
}

impl Drop for ProcessLease {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state.take() {
            let _ = fs::remove_file(&state.path);
            let _ = rustix::fs::flock(&state.file, rustix::fs::FlockOperation::Unlock);
        }
    }
}

impl State {
    fn create(dir: &Path) -> Result<Self> {
        let gate = open_gate(dir)?;
        loop {
            let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
            let token = format!("{}-{random:016x}", std::process::id());
            let path = dir.join(&token);
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(StoreError::io("make", &path)(e)),
            };
            flock_file(&file, true, true).map_err(StoreError::io("lock", &path))?;
            // A sweep may have taken it for a dead one's in between.
            if is_at(&file, &path) {
                return Ok(Self { token, path, file, gate, touched: DigestSet::default(), guards: 0 });
            }
        }
    }
}

fn open_gate(dir: &Path) -> Result<File> {
    let path = dir.join("gate");
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StoreError::io("open", &path))
}

/// Keeps all that the process touches from being collected until it is dropped. Without one, what was touched stays
/// leased until the last handle of the store is dropped: short-lived programs need none.
#[derive(Debug)]
pub struct Lease {
    store: Store,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.store.process_lease().with(|state| {
            state.guards = state.guards.saturating_sub(1);
            if state.guards == 0 && state.file.set_len(0).is_ok() {
                state.touched.clear();
            }
            Ok(())
        });
    }
}

impl Store {
    /// Takes this process's lease away before its time: for a program that is about to end while threads of it may still
    /// hold the store, so that no file of it is left. What they touch from now on is not kept from being collected.
    pub fn leave(&self) {
        let state = self.process_lease().state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &*state {
            let _ = fs::remove_file(&state.path);
        }
    }

    /// Starts a lease.
    pub fn lease(&self) -> Result<Lease> {
        self.process_lease().with(|state| {
            state.guards += 1;
            Ok(())
        })?;
        Ok(Lease { store: self.clone() })
    }
}

/// What living processes hold, while deleting is safe: nobody can touch anything new until it is dropped.
pub(crate) struct Held {
    pub(crate) refs: DigestSet<Ref>,
    gate: File,
}

impl Held {
    /// Waits for those who are just touching something; dead processes' leases are removed.
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        let gate = open_gate(&layout.leases())?;
        flock_file(&gate, true, true).map_err(StoreError::io("lock", layout.leases()))?;
        let mut refs = DigestSet::default();
        for path in living(layout)? {
            // One that ended just now holds nothing any more.
            refs.extend(Ref::decode_all(&fs::read(path).unwrap_or_default()));
        }
        Ok(Self { refs, gate })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.gate, rustix::fs::FlockOperation::Unlock);
    }
}

/// The lease files of living processes. Removes those of dead ones.
fn living(layout: &Layout) -> Result<Vec<PathBuf>> {
    Ok(remove_dead(layout)?.0)
}

/// Removes the lease files of dead processes. Those of living ones, and those that were removed.
pub(crate) fn remove_dead(layout: &Layout) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let dir = layout.leases();
    let mut out = Vec::new();
    let mut removed = Vec::new();
    for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
        if entry.file_name() == "gate" {
            continue;
        }
        let path = entry.path();
        match File::open(&path) {
            Ok(file) if flock_file(&file, true, false).unwrap_or(false) => {
                // One that ended in good order took it away itself.
                if fs::remove_file(&path).is_ok() {
                    removed.push(path);
                }
            }
            Ok(_) => out.push(path),
            Err(_) => {}
        }
    }
    Ok((out, removed))
}

/// Whether a living process holds the lock on a file. Nobody holds one that is not there; of one that can't be opened
/// it is not known, so it counts as held.
pub(crate) fn is_held(path: &Path) -> bool {
    match File::open(path) {
        // Shared, and let go at once: whoever wants it for itself waits for a moment.
        Ok(file) => !matches!(flock_file(&file, false, false), Ok(true)),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

/// The lease file of the process to which something in `tmp/` belongs, by its name.
pub(crate) fn lease_of(layout: &Layout, scratch: &Path) -> PathBuf {
    let name = scratch.file_name().unwrap_or_default().as_bytes();
    let token = name.split(|b| *b == b'.').next().unwrap_or_default();
    layout.leases().join(std::ffi::OsStr::from_bytes(token))
}

/// Removes from `tmp/` what dead processes left. Never called on the way of a build. Returns what could not be removed
/// (directories of other users' ids).
pub(crate) fn sweep(layout: &Layout) -> Result<Vec<PathBuf>> {
    // Two sweeps at once would only get in each other's way.
    let Some(_lock) = FileLock::take(&layout.lock("sweep"), true, false)? else { return Ok(Vec::new()) };
    let leftovers = leftovers(layout)?;
    Ok(leftovers.into_iter().filter(|path| remove_tree(path).is_err()).collect())
}

/// What dead processes left in `tmp/`. The lock of the sweep has to be held by whoever removes it.
pub(crate) fn leftovers(layout: &Layout) -> Result<Vec<PathBuf>> {
    // Listed first: a process that starts after this has no file in the list of leftovers.
    let tmp = layout.tmp();
    let entries: Vec<_> = fs::read_dir(&tmp).map_err(StoreError::io("list", &tmp))?.flatten().collect();
    let living = living(layout)?;
    let paths = entries.iter().map(fs::DirEntry::path);
    Ok(paths.filter(|path| !living.contains(&lease_of(layout, path))).collect())
}

pub(crate) type SharedLease = Arc<ProcessLease>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_round_trip_and_a_torn_end_is_left_out() {
        let refs = [Ref::Bundle(BundleId::from_bytes([1; 32])), Ref::Oci(Sha256Digest::of(b"x"))];
        let mut bytes = Ref::encode_all(&refs);
        bytes.extend_from_slice(b"btorn");
        assert_eq!(Ref::decode_all(&bytes), refs);
    }
}
