//! Files of a directory on disk, seen as those of an image.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use memobuild_attest::{Entry, EntryKind, Files};

/// A directory that is the image's root. Links in it must lead to where they lead in the image, which holds for `/` and
/// for directories without links.
pub(crate) struct Disk {
    root: PathBuf,
    only: Vec<&'static str>,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into(), only: Vec::new() }
    }

    /// Shows nothing but these paths, what is above them and what is below them.
    pub(crate) fn only(mut self, paths: &[&'static str]) -> Self {
        self.only = paths.to_vec();
        self
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn shown(&self, path: &str) -> bool {
        let within = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/"));
        self.only.is_empty() || self.only.iter().any(|o| within(path, o) || within(o, path))
    }
}

impl Files for Disk {
    fn list(&self, dir: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(dir)).into_iter().flatten().flatten() {
            let path =
                format!("{}/{}", String::from_utf8_lossy(dir).trim_end_matches('/'), entry.file_name().display());
            let Ok(meta) = entry.metadata() else { continue };
            if self.shown(&path) {
                let kind = if meta.is_dir() {
                    EntryKind::Dir
                } else if meta.is_file() {
                    EntryKind::File { size: meta.len(), executable: meta.permissions().mode() & 0o111 != 0 }
                } else {
                    EntryKind::Other
                };
                entries.push(Entry { name: entry.file_name().as_bytes().to_vec(), kind });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    fn size(&self, path: &[u8]) -> Option<u64> {
        fs::metadata(self.at(path)).ok().filter(fs::Metadata::is_file).map(|m| m.len())
    }

    fn read_at(&self, path: &[u8], offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.at(path))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
