//! Where the blobs of an image lie, and how they are read: a layout's directory, a tar file in place, a registry, the
//! store.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use memobuild_image::Descriptor;
use memobuild_store::{ScratchDir, Store};
use memobuild_tree::{Sha256Digest, path::components};

use super::{ImageError, Progress};
use crate::{
    layer::{
        decompress::{Packing, Sniffed},
        tar::{EntryKind, TarReader},
    },
    reference::Reference,
    registry::Registries,
};

/// The longest manifest, index or config that is read into memory.
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;
/// More files than any image archive has.
const MAX_FILES: usize = 100_000;

/// A place that holds blobs.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A directory with `blobs/sha256/...`.
    Dir(PathBuf),
    /// A tar file that holds such a directory, or what `docker save` writes.
    Tar(Arc<TarFile>),
    /// A repository on a registry.
    Registry(Registries, Reference),
    /// The store itself.
    Store,
}

/// A tar file and where the files in it lie.
#[derive(Debug)]
pub(super) struct TarFile {
    path: PathBuf,
    files: HashMap<Vec<u8>, Range>,
    /// Keeps the unpacked copy of a compressed archive.
    _scratch: Option<ScratchDir>,
}

#[derive(Debug, Clone)]
enum Range {
    /// Offset and length.
    Bytes(u64, u64),
    /// `docker save` links layers that are alike.
    Link(Vec<u8>),
}

/// A stream with its length.
pub(super) struct Opened {
    pub(super) reader: Box<dyn Read + Send>,
    pub(super) size: u64,
}

fn key(name: &[u8]) -> Vec<u8> {
    components(name).join(&b'/')
}

impl TarFile {
    /// Finds the files of an archive by its headers alone. A compressed one is unpacked into a file of the store first.
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self, ImageError> {
        let error = |source| ImageError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(error)?;
        let mut source = Sniffed::new(file).map_err(error)?;
        if source.packing == Packing::Plain {
            return Self::index(path, path.to_path_buf(), None);
        }
        let scratch = store.scratch_dir()?;
        let unpacked = scratch.path().join("archive.tar");
        let mut out = File::create(&unpacked).map_err(|source| ImageError::Io { path: unpacked.clone(), source })?;
        source.unpack(|stream| io::copy(stream, &mut out)).map_err(error)?;
        Self::index(path, unpacked, Some(scratch))
    }

    fn index(shown: &Path, path: PathBuf, scratch: Option<ScratchDir>) -> Result<Self, ImageError> {
        let error = |source| ImageError::Io { path: shown.to_path_buf(), source };
        let bad = |why: String| ImageError::NotAnImage { path: shown.to_path_buf(), why };
        let file = File::open(&path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        let mut tar = TarReader::seeking(BufReader::new(file));
        let mut files = HashMap::new();
        while let Some(entry) = tar.next().map_err(|e| bad(e.to_string()))? {
            if files.len() >= MAX_FILES {
                return Err(bad("too many files".into()));
            }
            let range = match entry.kind {
                EntryKind::File if tar.offset() + entry.size <= length => Range::Bytes(tar.offset(), entry.size),
                EntryKind::File => return Err(bad("the archive is cut short".into())),
                EntryKind::Link(target) => Range::Link(key(&target)),
                EntryKind::Symlink(target) => {
                    // Meant from the directory of the link.
                    let dir = entry.path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
                    Range::Link(key(&[entry.path.get(..dir).unwrap_or_default(), &target].concat()))
                }
                _ => continue,
            };
            files.insert(key(&entry.path), range);
        }
        Ok(Self { path, files, _scratch: scratch })
    }

    fn find(&self, name: &[u8]) -> Option<(u64, u64)> {
        let mut name = key(name);
        for _ in 0..8 {
            match self.files.get(&name)? {
                Range::Bytes(offset, length) => return Some((*offset, *length)),
                Range::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

impl Place {
    /// The place's name for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Dir(path) => path.display().to_string(),
            Self::Tar(tar) => tar.path.display().to_string(),
            Self::Registry(_, reference) => reference.familiar(),
            Self::Store => "the store".into(),
        }
    }

    /// A file of the directory or archive, by its name in it. `None` if it is not there.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<Opened>, ImageError> {
        let (path, range) = match self {
            Self::Dir(dir) => (dir.join(name), None),
            Self::Tar(tar) => match tar.find(name.as_bytes()) {
                Some(range) => (tar.path.clone(), Some(range)),
                None => return Ok(None),
            },
            Self::Registry(..) | Self::Store => return Ok(None),
        };
        let error = |source| ImageError::Io { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        let (offset, size) = match range {
            Some(range) => range,
            None => (0, file.metadata().map_err(error)?.len()),
        };
        file.seek(SeekFrom::Start(offset)).map_err(error)?;
        Ok(Some(Opened { reader: Box::new(file.take(size)), size }))
    }

    /// A small file of the directory or archive.
    pub(super) fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(opened) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = opened.reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|source| ImageError::Io { path: PathBuf::from(format!("{}: {name}", self.shown())), source })?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(self.invalid(name, "over 8 MiB"));
        }
        Ok(Some(bytes))
    }

    /// A blob as a stream, fetched into the store first where it lies on a registry. Its digest is *not* verified but
    /// for blobs that came through the store; the second value says so.
    pub(super) fn open_blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: Progress<'_>,
    ) -> Result<(Opened, bool), ImageError> {
        if let Some(path) = store.oci_blob_path(&blob.digest) {
            let error = |source| ImageError::Io { path: path.clone(), source };
            let file = File::open(&path).map_err(error)?;
            let size = file.metadata().map_err(error)?.len();
            return Ok((Opened { reader: Box::new(file), size }, true));
        }
        let missing = || self.invalid(&blob.digest.to_string(), "it is not there");
        match self {
            Self::Registry(registries, reference) => {
                registries.blob(reference, blob, store, progress)?;
                Self::Store.open_blob(blob, store, progress)
            }
            Self::Store => Err(missing()),
            Self::Dir(_) | Self::Tar(_) => {
                let name = format!("blobs/sha256/{}", blob.digest.hex());
                Ok((self.open_file(&name)?.ok_or_else(missing)?, false))
            }
        }
    }

    /// A manifest or config, verified.
    pub(super) fn document(&self, blob: &Descriptor, store: &Store) -> Result<Vec<u8>, ImageError> {
        if blob.size > MAX_DOCUMENT {
            return Err(self.invalid(&blob.digest.to_string(), "over 8 MiB"));
        }
        let bytes = match self {
            Self::Registry(registries, reference)
                if memobuild_image::media::is_manifest(&blob.media_type)
                    || memobuild_image::media::is_index(&blob.media_type) =>
            {
                registries.manifest_by_digest(reference, blob.digest)?.bytes
            }
            _ => {
                let (opened, _) = self.open_blob(blob, store, &|_, _| ())?;
                let mut bytes = Vec::new();
                opened.reader.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(|source| ImageError::Io {
                    path: PathBuf::from(format!("{}: {}", self.shown(), blob.digest)),
                    source,
                })?;
                bytes
            }
        };
        self.verify(blob.digest, &bytes)?;
        Ok(bytes)
    }

    fn verify(&self, expected: Sha256Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let actual = Sha256Digest::of(bytes);
        if actual == expected {
            Ok(())
        } else {
            Err(ImageError::DigestMismatch { image: self.shown(), expected, actual })
        }
    }

    pub(super) fn invalid(&self, what: &str, why: &str) -> ImageError {
        ImageError::Invalid { image: self.shown(), what: what.into(), why: why.into() }
    }
}
