//! One thing of a store, looked at.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
};

use memobuild_tree::{BundleId, Change, ContentDigest, Diff, Node, Sha256Digest};
use sha2::{Digest as _, Sha256};

use super::report::{Finding, Kind, Outcome, Progress};
use crate::{
    Ref,
    bundle::{Bundle, corrupt},
    clean::is_half_format,
    digest_map::DigestSet,
    error::{Result, StoreError},
    gc::{STALE, hex_of},
    index::Index,
    inventory::written,
    layout::Layout,
    lease::{is_held, lease_of},
    records::now,
    scan::is_whole_cache,
    tmp_file::read_full,
};

/// Something that may be wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A directory that has to be there.
    Directory(&'static str),
    /// The index as a whole.
    Index,
    /// A record, by row.
    Record(i64),
    /// A name of an image, by row.
    Tag(i64),
    /// A bundle or blob.
    Thing(Ref),
    /// A stat cache.
    Context(PathBuf),
    /// A bundle or blob that was set aside.
    SetAside(PathBuf),
    /// An index that was set aside, or a part of it.
    OldIndex(PathBuf),
    /// What the store did not make.
    Unknown(PathBuf),
    /// A file or directory in `tmp/`.
    Scratch(PathBuf),
    /// A lease.
    Lease(PathBuf),
    /// A download.
    Partial(PathBuf),
    /// A `format` file on its way to its name.
    HalfFormat(PathBuf),
}

impl Subject {
    /// Whether it is in the index.
    pub(super) fn is_row(&self) -> bool {
        matches!(self, Self::Index | Self::Record(_) | Self::Tag(_))
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) subject: Subject,
    pub(super) kind: Kind,
    /// Where, if it is no file.
    pub(super) row: Option<String>,
    pub(super) what: String,
    /// What is referred to and not there.
    pub(super) lacks: Vec<Ref>,
}

impl Found {
    pub(super) fn new(subject: Subject, kind: Kind, what: impl Into<String>) -> Self {
        Self { subject, kind, row: None, what: what.into(), lacks: Vec::new() }
    }

    /// The file or directory that it is about.
    pub(super) fn path(&self, layout: &Layout) -> PathBuf {
        match &self.subject {
            Subject::Directory(name) => layout.dir.join(name),
            Subject::Index | Subject::Record(_) | Subject::Tag(_) => layout.index(),
            Subject::Thing(name) => path_of(layout, name),
            Subject::Context(path)
            | Subject::SetAside(path)
            | Subject::OldIndex(path)
            | Subject::Unknown(path)
            | Subject::Scratch(path)
            | Subject::Lease(path)
            | Subject::Partial(path)
            | Subject::HalfFormat(path) => path.clone(),
        }
    }

    /// As it is told.
    pub(super) fn finding(&self, layout: &Layout) -> Finding {
        let path = self.path(layout);
        let at = path.strip_prefix(&layout.dir).unwrap_or(&path).display().to_string();
        let at = self.row.clone().unwrap_or(at);
        Finding { kind: self.kind, at, what: self.what.clone(), outcome: Outcome::Found }
    }
}

/// Where a bundle or blob lies.
pub(super) fn path_of(layout: &Layout, name: &Ref) -> PathBuf {
    match name {
        Ref::Bundle(id) => layout.bundle(id),
        Ref::Content(digest) => layout.blob(digest),
        Ref::Oci(digest) => layout.oci_blob(digest),
    }
}

/// A bundle or blob as a person may look for it.
pub(super) fn shown(name: &Ref) -> String {
    let kind = match name {
        Ref::Bundle(_) => "bundle",
        Ref::Content(_) => "blob",
        Ref::Oci(_) => "image blob",
    };
    format!("{kind} {}", hex_of(name).chars().take(12).collect::<String>())
}

/// Looks at things of one store.
#[derive(Clone, Copy)]
pub(super) struct Check<'a> {
    pub(super) layout: &'a Layout,
    pub(super) index: &'a Index,
    pub(super) progress: &'a Progress,
}

impl Check<'_> {
    /// What is wrong with it. Nothing is wrong with what is gone by now. Rows are looked at elsewhere.
    pub(super) fn look(&self, subject: &Subject) -> Result<Option<Found>> {
        let found = |kind, what: String| Some(Found::new(subject.clone(), kind, what));
        let left = |what: &str| found(Kind::Leftover, what.to_owned());
        Ok(match subject {
            Subject::Directory(name) => match self.layout.dir.join(name).is_dir() {
                true => None,
                false => found(Kind::MissingDirectory, "it is not there".into()),
            },
            Subject::Index | Subject::Record(_) | Subject::Tag(_) => None,
            Subject::Thing(name) => {
                self.progress.file();
                let looked = match name {
                    Ref::Bundle(id) => self.bundle(id),
                    name => self.blob(name),
                };
                looked.or_else(unreadable)?.and_then(|(kind, what)| found(kind, what))
            }
            Subject::Context(path) => {
                self.progress.file();
                let whole = is_whole_cache(path).map_err(StoreError::io("read", path));
                let wrong =
                    |whole: bool| (!whole).then(|| (Kind::DamagedContext, "it does not have its checksum".into()));
                whole.map(wrong).or_else(unreadable)?.and_then(|(kind, what)| found(kind, what))
            }
            Subject::SetAside(path) if is_there(path) => found(Kind::SetAside, "set aside as damaged".into()),
            Subject::OldIndex(path) if is_there(path) => {
                found(Kind::OldIndex, "an index that was found damaged and set aside".into())
            }
            Subject::Unknown(path) if is_there(path) => found(Kind::Unknown, "no name that memobuild gives".into()),
            Subject::Scratch(path) if is_there(path) && !is_held(&lease_of(self.layout, path)) => {
                left("a process that is gone wrote it")
            }
            Subject::Lease(path) if is_there(path) && !is_held(path) => left("its process is gone"),
            Subject::Partial(path) if now() - written(path) > STALE && is_there(path) && !is_held(path) => {
                left("a download with which nobody has gone on for a day")
            }
            Subject::HalfFormat(path) if is_half_format(path) => left("a process ended while it made this directory"),
            _ => None,
        })
    }

    fn bundle(&self, id: &BundleId) -> Result<Option<(Kind, String)>> {
        match self.read_bundle(id) {
            Ok(lacks) => Ok(lacks.map(|what| (Kind::IncompleteBundle, what))),
            Err(StoreError::Corrupt { detail, .. }) => Ok(Some((Kind::DamagedBundle, detail))),
            Err(e) => Err(e),
        }
    }

    /// Reads all of a bundle; what it lacks.
    fn read_bundle(&self, id: &BundleId) -> Result<Option<String>> {
        let path = self.layout.bundle(id);
        let Some(bundle) = Bundle::read(*id, &path)? else { return Ok(None) };
        let open = AtomicUsize::new(0);
        if !bundle.begins_right(&open)? {
            return Err(corrupt("bundle", &path, "it does not begin as a bundle does".into()));
        }
        let diff = bundle.read_diff(&open)?;
        for number in 0..bundle.tables.len() as u32 {
            self.progress.read(bundle.read_packed(&open, number)?.len());
        }
        match self.lacks(&bundle)? {
            None => self.lacks_contents(&bundle, &diff),
            lacks => Ok(lacks),
        }
    }

    /// What a bundle refers to and is not there.
    pub(super) fn lacks(&self, bundle: &Bundle) -> Result<Option<String>> {
        for id in &bundle.tables.refs {
            if !is_there(&self.layout.bundle(id)) {
                return Ok(Some(format!("it refers to {}, which is not there", shown(&Ref::Bundle(*id)))));
            }
        }
        for (digest, size) in &bundle.tables.blobs {
            let path = self.layout.blob(digest);
            match fs::metadata(&path) {
                Ok(meta) if meta.len() == *size => {}
                Ok(meta) => {
                    let name = shown(&Ref::Content(*digest));
                    return Ok(Some(format!("it refers to {name} of {size} bytes, which has {}", meta.len())));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Ok(Some(format!("it refers to {}, which is not there", shown(&Ref::Content(*digest)))));
                }
                Err(e) => return Err(StoreError::io("inspect", &path)(e)),
            }
        }
        Ok(None)
    }

    /// A content that a bundle's diff names and that is neither in it nor where it says.
    fn lacks_contents(&self, bundle: &Bundle, diff: &Diff) -> Result<Option<String>> {
        let mut wanted = DigestSet::default();
        diff.walk(&mut |_, change| {
            if let Change::Put(Node::File(file)) = change {
                wanted.insert(file.content);
            }
        });
        wanted.remove(&ContentDigest::of(b""));
        for digest in bundle.tables.blobs.iter().map(|(digest, _)| digest) {
            wanted.remove(digest);
        }
        let mut holds = |bundle: &Bundle| {
            for entry in bundle.tables.iter() {
                wanted.remove(&entry.digest);
            }
            wanted.is_empty()
        };
        let mut all = holds(bundle);
        for id in &bundle.tables.refs {
            if all {
                break;
            }
            match Bundle::read(*id, &self.layout.bundle(id)) {
                Ok(Some(other)) => all = holds(&other),
                Ok(None) => return Ok(None),
                // One that is damaged is a finding of its own; what it held can't be told.
                Err(e) if e.is_damage() => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        let one = wanted.iter().min();
        Ok(one.map(|digest| format!("content {digest} is nowhere that it says ({} such)", wanted.len())))
    }

    fn blob(&self, name: &Ref) -> Result<Option<(Kind, String)>> {
        let path = path_of(self.layout, name);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let same = match name {
            Ref::Oci(digest) => self.sha256(&file).map(|actual| actual == *digest),
            Ref::Content(digest) => self.blake3(&file).map(|actual| actual == *digest),
            Ref::Bundle(_) => Ok(true),
        };
        let same = same.map_err(StoreError::io("read", &path))?;
        Ok((!same).then(|| (Kind::DamagedBlob, "it does not hold the bytes that its name says".into())))
    }

    fn blake3(&self, file: &File) -> io::Result<ContentDigest> {
        let mut hasher = blake3::Hasher::new();
        self.each_piece(file, &mut |bytes| {
            hasher.update(bytes);
        })?;
        Ok(hasher.finalize().into())
    }

    fn sha256(&self, file: &File) -> io::Result<Sha256Digest> {
        let mut hasher = Sha256::new();
        self.each_piece(file, &mut |bytes| hasher.update(bytes))?;
        Ok(Sha256Digest::from_bytes(hasher.finalize().into()))
    }

    fn each_piece(&self, mut file: &File, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = read_full(&mut file, &mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            take(buffer.get(..n).unwrap_or_default());
            self.progress.read(n);
        }
    }
}

/// Whether there is anything under a name.
pub(super) fn is_there(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

/// A file that can't be read is a finding; one that is gone is none.
fn unreadable(error: StoreError) -> Result<Option<(Kind, String)>> {
    match error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Ok(None),
        StoreError::Io { source, .. } | StoreError::Permission { source, .. } => {
            Ok(Some((Kind::Unreadable, source.to_string())))
        }
        other => Err(other),
    }
}
