//! Where everything lies in the store's directory, and making that directory. No other module joins path names.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use memobuild_tree::{BundleId, ContentDigest, KeyDigest, Sha256Digest};

use crate::error::{Result, StoreError};

/// What the `format` file holds.
const FORMAT: &str = "memobuild store 1\n";
/// Every directory of a store.
pub(crate) const SUBDIRS: [&str; 9] =
    ["blobs", "bundles", "oci/sha256", "oci/partial", "tmp", "mounts", "contexts", "locks", "leases"];

/// Where a repair moves what the store did not make. Nothing else looks there.
pub(crate) const UNKNOWN: &str = "unknown";

/// Suffix of what was found damaged and set aside; GC removes it.
pub(crate) const DAMAGED: &str = "damaged";

/// The paths below one store directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// Opens the directory, or makes it. A store that exists costs one small read and one stat.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Option<String>)> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("find", dir))?;
        let layout = Self { dir };
        let format = layout.dir.join("format");
        match fs::read(&format) {
            Ok(bytes) if bytes == FORMAT.as_bytes() => {}
            Ok(bytes) => {
                return Err(StoreError::Format {
                    dir: layout.dir,
                    found: String::from_utf8_lossy(&bytes).trim_end().chars().take(100).collect(),
                    supported: FORMAT.trim_end(),
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => layout.create(&format)?,
            Err(e) => return Err(StoreError::io("read", &format)(e)),
        }
        let owner = fs::metadata(&layout.dir).map_err(StoreError::io("inspect", &layout.dir))?.uid();
        let me = rustix::process::geteuid().as_raw();
        let warning = (owner != me).then(|| {
            format!(
                "the cache directory {} belongs to user {owner}, not to the user running ({me})",
                layout.dir.display()
            )
        });
        Ok((layout, warning))
    }

    /// Idempotent, and safe while another process does the same: the `format` file comes last, by rename.
    fn create(&self, format: &Path) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(StoreError::io("make", &self.dir))?;
        for name in SUBDIRS {
            let path = self.dir.join(name);
            fs::create_dir_all(&path).map_err(StoreError::io("make", &path))?;
            // Whatever the umask: users inside a step reach the blobs through a mount. The top stays 0700.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(StoreError::io("make", &path))?;
        }
        // Process ids alone are not enough: two containers that share a cache have the same ones.
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
        let tmp = self.dir.join(format!("format.{}-{random:016x}", std::process::id()));
        fs::write(&tmp, FORMAT).map_err(StoreError::io("write", &tmp))?;
        fs::rename(&tmp, format).map_err(StoreError::io("write", format))
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &ContentDigest) -> PathBuf {
        self.dir.join("blobs").join(blob_rel_path(digest))
    }

    pub(crate) fn bundles(&self) -> PathBuf {
        self.dir.join("bundles")
    }

    /// Not fanned out as blobs are: making a directory can cost more than writing a small bundle.
    pub(crate) fn bundle(&self, id: &BundleId) -> PathBuf {
        self.dir.join("bundles").join(id.hex())
    }

    pub(crate) fn oci(&self) -> PathBuf {
        self.dir.join("oci/sha256")
    }

    pub(crate) fn oci_blob(&self, digest: &Sha256Digest) -> PathBuf {
        self.dir.join("oci/sha256").join(digest.hex())
    }

    pub(crate) fn oci_partials(&self) -> PathBuf {
        self.dir.join("oci/partial")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(crate) fn mounts(&self) -> PathBuf {
        self.dir.join("mounts")
    }

    pub(crate) fn mount(&self, key: &KeyDigest) -> PathBuf {
        self.dir.join("mounts").join(key.hex())
    }

    /// The lock of a cache mount; its mtime is the mount's last use.
    pub(crate) fn mount_lock(&self, key: &KeyDigest) -> PathBuf {
        self.dir.join("mounts").join(key.hex() + ".lock")
    }

    pub(crate) fn contexts(&self) -> PathBuf {
        self.dir.join("contexts")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.dir.join("leases")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.dir.join("locks")
    }

    /// The file behind a named lock. Names are free text, so their hash stands for them.
    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.dir.join("locks").join(ContentDigest::of(name.as_bytes()).hex())
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index.sqlite")
    }
}

/// A blob's path below the blobs directory.
pub(crate) fn blob_rel_path(digest: &ContentDigest) -> String {
    let hex = digest.hex();
    format!("{}/{hex}", hex.get(..2).unwrap_or_default())
}

/// Renames a finished file to its final name, making the fan-out directory if this is its first file.
pub(crate) fn rename_in(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = to.parent() else { return Err(e) };
            match fs::create_dir(parent) {
                Ok(()) => fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            fs::rename(from, to)
        }
        other => other,
    }
}

/// As [`rename_in`], but leaves what stands there; says whether it renamed. Both names are in directories that exist.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<bool> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Not every file system can (NFS): whoever comes last wins there.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_in(from, to).map(|()| true),
        Err(e) => Err(e.into()),
    }
}

/// Sets a damaged file aside under a name that is never looked up; says whether it did. Use [`crate::Store::set_aside`].
pub(crate) fn set_aside(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(DAMAGED);
    // Best effort: if it can't be renamed it stays damaged and is found so again.
    fs::rename(path, name).is_ok()
}
