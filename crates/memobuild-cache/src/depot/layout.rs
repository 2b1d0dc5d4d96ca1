//! An OCI image layout in a directory (image-spec, image-layout.md).

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use memobuild_image::{Descriptor, Index, json, media};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use super::Depot;
use crate::{CacheError, directory::Blob};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The longest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 64 << 20;

pub(super) struct Layout {
    dir: PathBuf,
    tag: String,
}

impl Layout {
    pub(super) fn new(dir: &Path, tag: &str) -> Self {
        Self { dir: dir.into(), tag: tag.into() }
    }

    fn blob(&self, digest: &Sha256Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn invalid(&self, why: impl std::fmt::Display) -> CacheError {
        CacheError::Invalid { place: self.dir.display().to_string(), why: why.to_string() }
    }

    fn index(&self) -> Result<Option<Index>, CacheError> {
        let path = self.dir.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| self.invalid(e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(CacheError::io(path)(e)),
        }
    }

    fn checked(&self, digest: &Sha256Digest, limit: u64) -> Result<Vec<u8>, CacheError> {
        let path = self.blob(digest);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(CacheError::NoBlob { place: self.dir.display().to_string(), digest: *digest });
            }
            other => other.map_err(CacheError::io(path))?,
        };
        if bytes.len() as u64 > limit || Sha256Digest::of(&bytes) != *digest {
            return Err(self.invalid(format!("blob {digest} is damaged")));
        }
        Ok(bytes)
    }

    /// Gives a file its name when all of it is there.
    fn write(&self, path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), CacheError> {
        let dir = path.parent().unwrap_or(&self.dir);
        let written = (|| {
            fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            fill(file.as_file_mut())?;
            fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(path).map(drop).map_err(|e| e.error)
        })();
        written.map_err(CacheError::io(path))
    }
}

impl Depot for Layout {
    fn manifest(&self) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let named = index.manifests.iter().find(|d| d.annotations.get(REF_NAME) == Some(&self.tag));
        named.map(|d| self.checked(&d.digest, MAX_DOCUMENT)).transpose()
    }

    fn manifest_of(&self, digest: &Sha256Digest) -> Result<Vec<u8>, CacheError> {
        self.checked(digest, MAX_DOCUMENT)
    }

    fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, CacheError> {
        self.checked(&blob.digest, limit)
    }

    fn fetch(&self, blob: Blob, store: &Store) -> Result<PathBuf, CacheError> {
        let path = self.blob(&blob.digest);
        let missing = || CacheError::NoBlob { place: self.dir.display().to_string(), digest: blob.digest };
        if store.oci_blob_path(&blob.digest).is_none() {
            let mut from = File::open(&path).map_err(|_| missing())?;
            let mut to = store.oci_blob_writer()?;
            io::copy(&mut from, &mut to).map_err(CacheError::io(&path))?;
            to.finish(Some(blob.digest))?;
        }
        store.oci_blob_path(&blob.digest).ok_or_else(missing)
    }

    fn has(&self, digest: &Sha256Digest) -> Result<bool, CacheError> {
        Ok(self.blob(digest).exists())
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<(Descriptor, bool), CacheError> {
        let descriptor = Descriptor::of(media_type, bytes);
        let new = !self.has(&descriptor.digest)?;
        if new {
            self.write(&self.blob(&descriptor.digest), |file| file.write_all(bytes))?;
        }
        Ok((descriptor, new))
    }

    fn put_file(&self, blob: &Descriptor, path: &Path) -> Result<(), CacheError> {
        let mut from = File::open(path).map_err(CacheError::io(path))?;
        self.write(&self.blob(&blob.digest), |file| io::copy(&mut from, file).map(drop))
    }

    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let (mut entry, _) = self.put(media_type, bytes)?;
        entry.annotations.insert(REF_NAME.into(), self.tag.clone());
        self.write(&self.dir.join("oci-layout"), |file| file.write_all(MARKER))?;
        let mut index = self.index()?.unwrap_or_else(|| Index::new(Vec::new()));
        index.media_type = media::INDEX.into();
        index.manifests.retain(|d| d.annotations.get(REF_NAME) != Some(&self.tag));
        index.manifests.push(entry);
        let bytes = json::compact(&index).map_err(|e| self.invalid(e))?;
        self.write(&self.dir.join("index.json"), |file| file.write_all(&bytes))
    }
}
