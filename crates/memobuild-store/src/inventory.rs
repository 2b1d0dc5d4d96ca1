//! What lies in the store's directory, in bytes really on disk: the ground that GC, `du` and the check stand on.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use memobuild_tree::{BundleId, ContentDigest, KeyDigest, Sha256Digest};

use crate::{
    Ref,
    bundle::Bundle,
    digest_map::DigestMap,
    error::{Result, StoreError},
    layout::Layout,
};

/// A file or directory of the store.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// A cache mount.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) key: KeyDigest,
    pub(crate) item: Item,
    /// Seconds since the epoch.
    pub(crate) used: i64,
}

/// Everything on disk.
#[derive(Debug)]
pub(crate) struct Inventory {
    layout: Layout,
    pub(crate) things: DigestMap<Ref, Item>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) contexts: Vec<Item>,
    pub(crate) partials: Vec<Item>,
    /// What was set aside as damaged.
    pub(crate) damaged: Vec<Item>,
    /// The index, and `tmp/`.
    pub(crate) other_bytes: u64,
}

impl Inventory {
    /// Walks the store's directory.
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        let mut out = Self {
            layout: layout.clone(),
            things: DigestMap::default(),
            mounts: Vec::new(),
            contexts: Vec::new(),
            partials: Vec::new(),
            damaged: Vec::new(),
            other_bytes: 0,
        };
        // Bundles first: what one refers to was there before it, so it is found after it.
        out.add_things(&layout.bundles(), |hex| BundleId::from_hex(hex).ok().map(Ref::Bundle))?;
        for fan in list(&layout.blobs())? {
            out.add_things(&fan, |hex| ContentDigest::from_hex(hex).ok().map(Ref::Content))?;
        }
        out.add_things(&layout.oci(), |hex| Sha256Digest::from_hex(hex).ok().map(Ref::Oci))?;
        for path in list(&layout.mounts())? {
            let key = path.file_name().and_then(OsStr::to_str).and_then(|hex| KeyDigest::from_hex(hex).ok());
            let Some(key) = key else { continue };
            let used = [layout.mount_lock(&key), path.clone()].iter().find_map(|p| fs::metadata(p).ok());
            let used = used.map_or(0, |meta| meta.mtime());
            out.mounts.push(Mount { key, item: Item { bytes: tree_bytes(&path), path }, used });
        }
        out.contexts = items(&layout.contexts())?;
        out.partials = items(&layout.oci_partials())?;
        out.other_bytes = tree_bytes(&layout.tmp());
        for item in items(&layout.dir)? {
            out.other_bytes += item.bytes;
        }
        Ok(out)
    }

    fn add_things(&mut self, dir: &Path, parse: fn(&str) -> Option<Ref>) -> Result<()> {
        for item in items(dir)? {
            match item.path.file_name().and_then(OsStr::to_str).and_then(parse) {
                Some(name) => {
                    self.things.insert(name, item);
                }
                None => self.damaged.push(item),
            }
        }
        Ok(())
    }

    /// Bytes on disk in all.
    pub(crate) fn total(&self) -> u64 {
        let lists = [&self.contexts, &self.partials, &self.damaged];
        self.things.values().chain(lists.into_iter().flatten()).map(|i| i.bytes).sum::<u64>()
            + self.mounts.iter().map(|m| m.item.bytes).sum::<u64>()
            + self.other_bytes
    }

    /// What a thing on disk refers to, whether it was there yet when this inventory was taken or not. A bundle that
    /// can't be read refers to nothing.
    pub(crate) fn refs_of(&self, name: &Ref) -> Vec<Ref> {
        let Ref::Bundle(id) = name else { return Vec::new() };
        match Bundle::read(*id, &self.layout.bundle(id)) {
            Ok(Some(bundle)) => {
                let blobs = bundle.tables.blobs.iter().map(|(digest, _)| Ref::Content(*digest));
                bundle.tables.refs.iter().copied().map(Ref::Bundle).chain(blobs).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Paths in a directory; none if it is not there.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.path()).collect()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(e) => Err(StoreError::io("list", dir)(e)),
    }
}

/// Regular files in a directory.
fn items(dir: &Path) -> Result<Vec<Item>> {
    let item = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Item { bytes: meta.blocks() * 512, path })
    };
    Ok(list(dir)?.into_iter().filter_map(item).collect())
}

/// Bytes of a file or of all below a directory, as far as they can be read.
pub(crate) fn tree_bytes(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let children = if meta.is_dir() { list(path).unwrap_or_default() } else { Vec::new() };
    meta.blocks() * 512 + children.iter().map(|p| tree_bytes(p)).sum::<u64>()
}

/// Seconds since the epoch at which a file was last written; 0 if it is gone.
pub(crate) fn written(path: &Path) -> i64 {
    fs::symlink_metadata(path).map_or(0, |meta| meta.mtime())
}

/// A time in seconds since the epoch.
pub(crate) fn time(secs: i64) -> Option<SystemTime> {
    u64::try_from(secs).ok().filter(|s| *s > 0).map(|s| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(s))
}

/// A name as lower-case hexadecimal digits, or what else there is.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|n| String::from_utf8_lossy(n.as_bytes()).into_owned()).unwrap_or_default()
}
