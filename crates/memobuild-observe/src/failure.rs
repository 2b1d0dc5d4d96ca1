//! The kinds of failure, one for each exit code.

/// What kind of thing went wrong. The numbers are the exit codes of the command and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A step of the build failed.
    Step = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The Dockerfile is wrong.
    Dockerfile = 3,
    /// The cache or another local file can't be read or written.
    Cache = 4,
    /// A registry or another host gave no good answer.
    Registry = 5,
    /// This machine can't run steps.
    Machine = 6,
}

impl FailureKind {
    /// The process exit code.
    pub const fn exit_code(self) -> u8 {
        self as u8
    }
}
