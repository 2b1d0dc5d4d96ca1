//! What a check tells: findings, what each kind of them means and what helps, and how far the check has come.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Remove or set aside what is wrong.
    pub repair: bool,
    /// Threads that read files; 0 means as many as there are processors, from 2 to 8.
    pub threads: usize,
}

impl Options {
    pub(super) fn workers(&self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)),
            n => n,
        }
    }
}

/// How far a check has come; may be read while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    found: AtomicU64,
}

impl Progress {
    /// Records and names of images that were read.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Files that were read.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of files that were read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What looked wrong at first sight.
    pub fn suspects(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    pub(super) fn row(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn found(&self, number: usize) {
        self.found.fetch_add(number as u64, Ordering::Relaxed);
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A directory of the store lacks.
    MissingDirectory,
    /// The index is no database any more, or contradicts itself.
    DamagedIndex,
    /// An index that was found damaged and set aside.
    OldIndex,
    /// A record does not have its checksum.
    DamagedRecord,
    /// What a record leads to is not there.
    DanglingRecord,
    /// A name of an image does not have its checksum.
    DamagedTag,
    /// What a name of an image stands for is not all there.
    DanglingTag,
    /// A bundle's bytes are not those that were written.
    DamagedBundle,
    /// A bundle lacks contents that it needs.
    IncompleteBundle,
    /// A blob does not have the digest that names it.
    DamagedBlob,
    /// A context's stat cache does not have its checksum.
    DamagedContext,
    /// Something damaged that was set aside.
    SetAside,
    /// A file or directory that the store did not make.
    Unknown,
    /// What a process that is gone left behind.
    Leftover,
    /// A file that can't be read.
    Unreadable,
}

/// Name, meaning, what helps.
type Text = (&'static str, &'static str, &'static str);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::MissingDirectory,
        Self::DamagedIndex,
        Self::OldIndex,
        Self::DamagedRecord,
        Self::DanglingRecord,
        Self::DamagedTag,
        Self::DanglingTag,
        Self::DamagedBundle,
        Self::IncompleteBundle,
        Self::DamagedBlob,
        Self::DamagedContext,
        Self::SetAside,
        Self::Unknown,
        Self::Leftover,
        Self::Unreadable,
    ];

    fn text(self) -> Text {
        match self {
            Self::MissingDirectory => ("missing-directory", "builds fail without it", "--repair makes it"),
            Self::DamagedIndex => (
                "damaged-index",
                "the next build sets it aside and begins with an empty one",
                "--repair does so now, and keeps what names of images can be read",
            ),
            Self::OldIndex => (
                "old-index",
                "nothing reads it",
                "--repair takes over names of images that are found in it alone, and removes it",
            ),
            Self::DamagedRecord => ("damaged-record", "it counts as not there", "--repair removes it"),
            Self::DanglingRecord => ("dangling-record", "its result is made again", "--repair removes it"),
            Self::DamagedTag => (
                "damaged-tag",
                "what the name stood for can't be told",
                "build or pull the image again; --repair takes the name away",
            ),
            Self::DanglingTag => {
                ("dangling-tag", "the image is not whole", "build or pull it again; --repair takes the name away")
            }
            Self::DamagedBundle => ("damaged-bundle", "what it holds is made again", "--repair removes it"),
            Self::IncompleteBundle => ("incomplete-bundle", "what it holds is made again", "--repair removes it"),
            Self::DamagedBlob => ("damaged-blob", "what it holds is made or fetched again", "--repair removes it"),
            Self::DamagedContext => {
                ("damaged-context", "the next build reads all files of the context", "--repair removes it")
            }
            Self::SetAside => ("set-aside", "nothing reads it", "`memobuild prune` or --repair removes it"),
            Self::Unknown => {
                ("unknown", "memobuild did not put it there", "--repair moves it to `unknown` in the cache directory")
            }
            Self::Leftover => ("leftover", "it takes room", "`memobuild doctor --clean` or --repair removes it"),
            Self::Unreadable => (
                "unreadable",
                "whether it is whole is not known",
                "look at its owner and at the disk; --repair leaves it",
            ),
        }
    }

    /// A name for programs, like `damaged-bundle`.
    pub fn name(self) -> &'static str {
        self.text().0
    }

    /// What follows from it.
    pub fn meaning(self) -> &'static str {
        self.text().1
    }

    /// What can be done about it.
    pub fn remedy(self) -> &'static str {
        self.text().2
    }
}

/// What became of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was not to be repaired.
    Found,
    /// It is no more: how.
    Repaired(String),
    /// It is still so: why.
    Left(String),
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Where: a path below the store's directory, `record NAMESPACE/KEY` or `tag NAME`.
    pub at: String,
    /// What is wrong with it.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Finding {
    /// Whether it is still so.
    pub fn stands(&self) -> bool {
        !matches!(self.outcome, Outcome::Repaired(_))
    }
}

/// The outcome of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was found, by place. With a repair also what followed from it.
    pub findings: Vec<Finding>,
    /// Records and names of images that were read.
    pub rows: u64,
    /// Files that were read.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>, progress: &Progress) -> Self {
        Self { findings, rows: progress.rows(), files: progress.files(), bytes: progress.bytes() }
    }

    /// Whether nothing is wrong, or nothing any more.
    pub fn is_clean(&self) -> bool {
        !self.findings.iter().any(Finding::stands)
    }
}
