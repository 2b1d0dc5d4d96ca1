//! Where an artifact lies: a repository of a registry, or a directory.

mod layout;
mod registry;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use memobuild_image::Descriptor;
use memobuild_oci::{reference::Reference, registry::Registries};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use crate::{CacheError, directory::Blob};

/// The place of a cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `type=registry`: a name as that of an image.
    Registry(Reference),
    /// `type=local`: an OCI layout in a directory, and the tag in it.
    Directory(PathBuf, String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Directory(dir, _) => write!(f, "{}", dir.display()),
        }
    }
}

impl Place {
    /// In a form that [`Place::parse_spec`] reads.
    pub fn to_spec(&self) -> String {
        match self {
            Self::Registry(reference) => format!("registry:{reference}"),
            Self::Directory(dir, tag) => format!("local:{tag}:{}", dir.display()),
        }
    }

    /// Reads what [`Place::to_spec`] wrote.
    pub fn parse_spec(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("registry", reference) => Some(Self::Registry(reference.parse().ok()?)),
            ("local", rest) => rest.split_once(':').map(|(tag, dir)| Self::Directory(dir.into(), tag.into())),
            _ => None,
        }
    }

    pub(crate) fn depot(&self, registries: &Registries) -> Box<dyn Depot> {
        match self {
            Self::Registry(reference) => Box::new(registry::Repository::new(registries, reference)),
            Self::Directory(dir, tag) => Box::new(layout::Layout::new(dir, tag)),
        }
    }
}

/// Gets and puts blobs by digest, and the one manifest by name. What is got has its digest.
pub(crate) trait Depot: Send + Sync {
    /// The manifest, if there is one; or an index with more of them.
    fn manifest(&self) -> Result<Option<Vec<u8>>, CacheError>;
    /// Another manifest of the same place.
    fn manifest_of(&self, digest: &Sha256Digest) -> Result<Vec<u8>, CacheError>;
    /// A blob of at most `limit` bytes.
    fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, CacheError>;
    /// Puts a blob among the store's image blobs.
    fn fetch(&self, blob: Blob, store: &Store) -> Result<PathBuf, CacheError>;
    /// Whether it is there.
    fn has(&self, digest: &Sha256Digest) -> Result<bool, CacheError>;
    /// Stores a small blob; says whether anything had to be sent.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<(Descriptor, bool), CacheError>;
    /// Stores a file.
    fn put_file(&self, blob: &Descriptor, path: &Path) -> Result<(), CacheError>;
    /// Stores the manifest under the name.
    fn put_manifest(&self, media_type: &str, bytes: &[u8]) -> Result<(), CacheError>;
}
