//! Reading contents by digest, wherever they lie.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use memobuild_tree::ContentDigest;

use crate::{
    LARGE_FILE, Store,
    bundle::Bundle,
    error::{Result, StoreError},
};

/// The bytes of one file. Cheap to clone; reading is positioned, so one may be used by many threads.
#[derive(Clone)]
pub struct Content {
    store: Store,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Empty,
    Packed { bundle: Arc<Bundle>, number: u32, len: u64 },
    Blob { file: Arc<File>, len: u64 },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Empty => write!(f, "Content(empty)"),
            Place::Packed { bundle, number, len } => write!(f, "Content({len} bytes, {number} in {:?})", bundle.id),
            Place::Blob { len, .. } => write!(f, "Content(blob of {len} bytes)"),
        }
    }
}

impl Store {
    /// The content of that digest, from a bundle that is loaded or a blob; else from whoever can bring it
    /// ([`Store::add_provider`]). [`StoreError::MissingContent`] if nobody can.
    pub fn content(&self, digest: &ContentDigest) -> Result<Content> {
        match self.present(digest) {
            Err(StoreError::MissingContent { .. }) if self.bring(digest)? => self.present(digest),
            other => other,
        }
    }

    /// Has a content brought that is not there; says whether it is there now.
    pub(crate) fn bring(&self, digest: &ContentDigest) -> Result<bool> {
        for provider in self.providers() {
            if provider.bring(digest).map_err(|source| StoreError::Fetch { digest: *digest, source })? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn present(&self, digest: &ContentDigest) -> Result<Content> {
        let place = if let Some((bundle, number)) = self.bundles().find(digest) {
            let len = bundle.tables.get(number).map_or(0, |entry| u64::from(entry.len));
            Place::Packed { bundle, number, len }
        } else if is_empty(digest) {
            Place::Empty
        } else if let Some((path, len)) = self.whole_blob(digest)? {
            let file = File::open(&path).map_err(StoreError::io("open", &path))?;
            Place::Blob { file: Arc::new(file), len }
        } else {
            return Err(StoreError::MissingContent { digest: *digest, at: None });
        };
        Ok(Content { store: self.clone(), place })
    }

    /// Whether [`Store::content`] would find the content of a file of that size. Small ones are in bundles alone, so that
    /// no disk is asked about them.
    pub fn has_content(&self, digest: &ContentDigest, size: u64) -> bool {
        let large = || size > LARGE_FILE && matches!(self.whole_blob(digest), Ok(Some(_)));
        self.bundles().find(digest).is_some() || is_empty(digest) || large()
    }
}

/// Brings contents that the store lacks: layers of a base image that nobody needed until now.
pub trait Provider: Send + Sync {
    /// Has the bundle loaded that holds this content; false if it is none of this provider's.
    ///
    /// # Errors
    /// It is this provider's, and can't be had.
    fn bring(&self, digest: &ContentDigest) -> std::result::Result<bool, Box<dyn std::error::Error + Send + Sync>>;
}

/// A provider is asked as long as this lives.
#[must_use]
pub struct Provided {
    store: Store,
    provider: Arc<dyn Provider>,
}

impl Store {
    /// Adds someone to be asked for contents that are not here.
    pub fn add_provider(&self, provider: Arc<dyn Provider>) -> Provided {
        self.with_providers(|all| all.push(provider.clone()));
        Provided { store: self.clone(), provider }
    }

    fn providers(&self) -> Vec<Arc<dyn Provider>> {
        self.with_providers(|all| all.clone())
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        self.store.with_providers(|all| all.retain(|p| !Arc::ptr_eq(p, &self.provider)));
    }
}

fn is_empty(digest: &ContentDigest) -> bool {
    static EMPTY: std::sync::OnceLock<ContentDigest> = std::sync::OnceLock::new();
    digest == EMPTY.get_or_init(|| ContentDigest::of(b""))
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match &self.place {
            Place::Empty => 0,
            Place::Packed { len, .. } | Place::Blob { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads from an offset; fewer bytes than asked for only at the end. A packed file is verified against its digest
    /// when it is first read in a process.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.place {
            Place::Empty => Ok(0),
            Place::Packed { bundle, number, .. } if bundle.is_verified(*number) => {
                bundle.read_packed_at(self.store.bundles().open_files(), *number, buf, offset)
            }
            Place::Packed { .. } => {
                let bytes = self.read_all().map_err(io::Error::other)?;
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let n = rest.len().min(buf.len());
                buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                Ok(n)
            }
            Place::Blob { file, .. } => {
                let mut filled = 0;
                while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                    match file.read_at(rest, offset + filled as u64) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(filled)
            }
        }
    }

    /// Reads it from the start. Errors of the store are the inner errors of those of [`Read`].
    pub fn reader(&self) -> ContentReader {
        ContentReader { content: self.clone(), at: 0, packed: None }
    }

    /// All of it. For large files use [`Content::reader`].
    pub fn read_all(&self) -> Result<Vec<u8>> {
        match &self.place {
            Place::Empty => Ok(Vec::new()),
            Place::Packed { bundle, number, .. } => {
                bundle.read_packed(self.store.bundles().open_files(), *number).inspect_err(|e| {
                    self.store.drop_bundle(bundle, e);
                })
            }
            Place::Blob { file, len } => {
                let mut out = vec![0; usize::try_from(*len).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut out, 0).map_err(StoreError::io("read", "a blob"))?;
                Ok(out)
            }
        }
    }
}

/// Reads a content in order.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    at: u64,
    /// All of a packed file: it is small, and read whole.
    packed: Option<Vec<u8>>,
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = if matches!(self.content.place, Place::Packed { .. }) {
            let bytes = match &self.packed {
                Some(bytes) => bytes,
                None => self.packed.insert(self.content.read_all().map_err(io::Error::other)?),
            };
            let mut rest = bytes.get(self.at as usize..).unwrap_or_default();
            rest.read(buf)?
        } else {
            self.content.read_at(buf, self.at)?
        };
        self.at += n as u64;
        Ok(n)
    }
}
