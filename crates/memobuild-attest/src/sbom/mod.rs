//! The software bill of materials: which packages are in an image's files, as an SPDX 2.3 document.
//!
//! [`scan`] walks all names once and reads the files that tell of packages: databases of package managers, metadata of
//! language packages, and of executables as much as shows what was linked into them. [`Document`] writes down what was
//! found; the same files give the same bytes.

mod alpine;
mod copyright;
mod debian;
mod elf;
mod go;
mod license;
mod node;
mod os;
mod package;
mod python;
mod rpm;
mod rust;
mod spdx;
mod stanza;

use std::io;

use memobuild_tree::path;

use crate::{EntryKind, Files};

pub use license::License;
pub use os::OsRelease;
pub use package::{Actor, Ecosystem, Package};
pub use spdx::{Document, PREDICATE_TYPE};

/// Databases of package managers, in bytes: the largest rpm databases known are about 200 MiB.
const DATABASE_LIMIT: u64 = 512 << 20;
/// Metadata of one package, in bytes.
const METADATA_LIMIT: u64 = 8 << 20;

/// Why an image could not be scanned: a bill that leaves out what can't be read would be wrong.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} to find packages", path::display(.path))]
pub struct ScanError {
    /// Which file.
    pub path: Vec<u8>,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// A file that should tell of packages but is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which file.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// What was found in an image's files.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The distribution, if it says so.
    pub os: Option<OsRelease>,
    /// The packages, sorted by package URL, each once.
    pub packages: Vec<Package>,
    /// What was not understood, in the order of the walk.
    pub warnings: Vec<Warning>,
}

/// What a parser hands back: packages, or why the file is not what its name says.
type Found = Result<Vec<Package>, String>;

/// Looks for packages in an image's files.
///
/// # Errors
/// When a file that matters can't be read. One that is damaged or too large is told in [`Scan::warnings`].
pub fn scan(files: &dyn Files) -> Result<Scan, ScanError> {
    let mut warnings = Vec::new();
    let os = os_release(files, &mut warnings)?;
    let unnamed = OsRelease::default();
    let mut scanner = Scanner { files, os: os.as_ref().unwrap_or(&unnamed), packages: Vec::new(), warnings };
    scanner.walk()?;
    let Scanner { mut packages, warnings, .. } = scanner;
    packages.extend(os.as_ref().map(OsRelease::package));
    Ok(Scan { os, packages: package::merge(packages), warnings })
}

fn os_release(files: &dyn Files, warnings: &mut Vec<Warning>) -> Result<Option<OsRelease>, ScanError> {
    // os-release(5): the file in /etc takes precedence.
    for at in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(bytes) = read(files, at.as_bytes(), METADATA_LIMIT, warnings)? {
            return Ok(OsRelease::parse(at, &String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(None)
}

/// `None` where there is no file, or one that is too large, which is warned of.
fn read(files: &dyn Files, at: &[u8], limit: u64, warnings: &mut Vec<Warning>) -> Result<Option<Vec<u8>>, ScanError> {
    match files.read(at, limit) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            warnings.push(Warning { path: path::display(at), message: error.to_string() });
            Ok(None)
        }
        Err(source) => Err(ScanError { path: at.to_vec(), source }),
    }
}

struct Scanner<'a> {
    files: &'a dyn Files,
    /// Empty where the image does not say which distribution it is.
    os: &'a OsRelease,
    packages: Vec<Package>,
    warnings: Vec<Warning>,
}

impl Scanner<'_> {
    fn walk(&mut self) -> Result<(), ScanError> {
        let mut todo = vec![b"/".to_vec()];
        while let Some(dir) = todo.pop() {
            let entries = self.files.list(&dir);
            let has_modules = entries.iter().any(|e| e.name == b"node_modules" && e.kind == EntryKind::Dir);
            let mut below = Vec::new();
            for entry in &entries {
                let at = child(&dir, &entry.name);
                match entry.kind {
                    EntryKind::Dir => below.push(at),
                    EntryKind::File { size, executable } => self.file(&at, size, executable, has_modules)?,
                    EntryKind::Other => {}
                }
            }
            // The last one is taken first: in reverse, the walk is in byte order.
            todo.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn file(&mut self, at: &[u8], size: u64, executable: bool, has_modules: bool) -> Result<(), ScanError> {
        let os = self.os;
        let (dir, name) = split(at);
        match (dir, name) {
            (b"/var/lib/dpkg", b"status") => self.debian(at),
            // One file for each package, as distroless images have them; the others in it list files.
            (b"/var/lib/dpkg/status.d", _) if !name.ends_with(b".md5sums") => self.debian(at),
            (b"/lib/apk/db" | b"/usr/lib/apk/db", b"installed") => {
                self.parse(at, DATABASE_LIMIT, |bytes| Ok(alpine::parse(&String::from_utf8_lossy(bytes), os)))
            }
            (_, b"rpmdb.sqlite") if rpm::is_database_dir(dir) => {
                self.parse(at, DATABASE_LIMIT, |bytes| rpm::packages(&rpm::sqlite::headers(bytes)?, os))
            }
            (_, b"rpmdb.sqlite-wal") if size > 0 && rpm::is_database_dir(dir) => {
                self.take(at, Err("rpm was stopped before it put these changes into its database".into()));
                Ok(())
            }
            (_, b"Packages.db") if rpm::is_database_dir(dir) => {
                self.parse(at, DATABASE_LIMIT, |bytes| rpm::packages(&rpm::ndb::headers(bytes)?, os))
            }
            (_, b"Packages") if rpm::is_database_dir(dir) => {
                self.parse(at, DATABASE_LIMIT, |bytes| rpm::packages(&rpm::bdb::headers(bytes)?, os))
            }
            _ if python::is_metadata(dir, name) => {
                self.parse(at, METADATA_LIMIT, |bytes| python::parse(&String::from_utf8_lossy(bytes)))
            }
            (_, b"package.json") if has_modules || node::is_package(dir) => self.parse(at, METADATA_LIMIT, node::parse),
            _ if executable => self.executable(at, size),
            _ => Ok(()),
        }
    }

    /// Reads a file and takes what a parser finds in it.
    fn parse(&mut self, at: &[u8], limit: u64, parser: impl FnOnce(&[u8]) -> Found) -> Result<(), ScanError> {
        if let Some(bytes) = self.read(at, limit)? {
            self.take(at, parser(&bytes));
        }
        Ok(())
    }

    fn take(&mut self, at: &[u8], found: Found) {
        let location = path::display(at);
        match found {
            Ok(packages) => self.packages.extend(packages.into_iter().map(|p| p.found_in(&location))),
            Err(message) => self.warnings.push(Warning { path: location, message }),
        }
    }

    fn read(&mut self, at: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ScanError> {
        read(self.files, at, limit, &mut self.warnings)
    }

    fn debian(&mut self, at: &[u8]) -> Result<(), ScanError> {
        let Some(bytes) = self.read(at, DATABASE_LIMIT)? else {
            return Ok(());
        };
        let mut packages = debian::parse(&String::from_utf8_lossy(&bytes), self.os);
        for package in &mut packages {
            let copyright = child(&child(b"/usr/share/doc", package.name.as_bytes()), b"copyright");
            if let Some(text) = self.read(&copyright, METADATA_LIMIT)? {
                package.license = copyright::license(&String::from_utf8_lossy(&text));
            }
        }
        self.take(at, Ok(packages));
        Ok(())
    }

    /// What was linked into a program: only as much of it is read as shows that.
    fn executable(&mut self, at: &[u8], size: u64) -> Result<(), ScanError> {
        let error = |source| ScanError { path: at.to_vec(), source };
        let Some(elf) = elf::Elf::open(self.files, at, size).map_err(error)? else {
            return Ok(());
        };
        if let Some(found) = go::find(&elf).map_err(error)? {
            self.take(at, found);
        }
        if let Some(found) = rust::find(&elf).map_err(error)? {
            self.take(at, found);
        }
        Ok(())
    }
}

fn child(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir == b"/" { [b"/", name].concat() } else { [dir, b"/", name].concat() }
}

/// Directory and name of an absolute path.
fn split(at: &[u8]) -> (&[u8], &[u8]) {
    match at.iter().rposition(|b| *b == b'/') {
        Some(0) | None => (b"/", at.get(1..).unwrap_or_default()),
        Some(slash) => {
            at.split_at_checked(slash).map_or((at, b""), |(dir, name)| (dir, name.get(1..).unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests;
