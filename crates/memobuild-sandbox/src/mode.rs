//! How steps can be run: the names of the modes and what they mean.

/// Which mode is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// Only traced.
    Traced,
    /// Only exact.
    Exact,
    /// Only chroot.
    Chroot,
}

impl ModeChoice {
    /// As `--sandbox` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Traced => "traced",
            Self::Exact => "exact",
            Self::Chroot => "chroot",
        }
    }
}

/// How steps are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeKind {
    /// Namespaces, overlay over FUSE: nothing is unpacked, every look-up is seen.
    Traced,
    /// Namespaces, overlay over trees laid out on disk.
    Exact,
    /// A laid-out tree, chroot, and a scan afterwards; no namespaces.
    Chroot,
}

impl ModeKind {
    /// As `--sandbox` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traced => "traced",
            Self::Exact => "exact",
            Self::Chroot => "chroot",
        }
    }
}

/// What owners a step can give files; part of cache keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnershipClass {
    /// Real ones: root, or subordinate id ranges.
    True,
    /// One mapped id; others are recorded by answering system calls.
    Single,
}

/// The mode in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Which.
    pub kind: ModeKind,
    /// What owners mean in it.
    pub ownership: OwnershipClass,
    /// Why this one, in one line for the user.
    pub why: String,
}
