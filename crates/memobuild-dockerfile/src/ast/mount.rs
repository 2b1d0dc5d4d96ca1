//! `RUN --mount`: the flag as written and the mounts that it can mean.

use super::word::Word;

/// One `--mount` flag, its options unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// The value behind `--mount=`.
    pub value: Word,
    /// Its fields (`key=value` or `key`) in order.
    pub(crate) fields: Vec<String>,
}

/// A mount with its options expanded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// `type=bind` (the default)
    Bind(BindMount),
    /// `type=cache`
    Cache(CacheMount),
    /// `type=tmpfs`
    Tmpfs(TmpfsMount),
    /// `type=secret`
    Secret(SecretMount),
    /// `type=ssh`
    Ssh(SshMount),
}

/// A read-only or throw-away view of the context, a stage or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// `from`: stage, named context or image; none: the build context.
    pub from: Option<String>,
    /// `source`: path in it; empty: its root.
    pub source: String,
    /// `target` as given; may be relative to the working directory or empty.
    pub target: String,
    /// Whether writes are refused; otherwise they are thrown away after the step.
    pub read_only: bool,
}

/// A directory that lives on between builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// `id`; none: the target is the id.
    pub id: Option<String>,
    /// `from`: what to fill a new cache with; none: nothing.
    pub from: Option<String>,
    /// `source`: path in `from`; empty: its root.
    pub source: String,
    /// `target` as given; may be relative to the working directory or empty.
    pub target: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Owner and mode of a new cache's root.
    pub owner: FileOwner,
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// Each concurrent user gets a cache of its own.
    Private,
    /// One step at a time, others wait.
    Locked,
}

/// A file system in memory, empty at the step's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsMount {
    /// `target` as given; may be relative to the working directory or empty.
    pub target: String,
    /// `size` in bytes; none: the machine's default.
    pub size: Option<u64>,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A secret as a file, an environment variable, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretMount {
    /// `id` or `source`; none: the last component of `target`.
    pub id: Option<String>,
    /// `target` as given; none: `/run/secrets/ID`, unless `env` alone is given.
    pub target: Option<String>,
    /// `env`: name of the variable; empty: the id.
    pub env: Option<String>,
    /// Whether the step fails without the secret.
    pub required: bool,
    /// Owner and mode of the file.
    pub owner: FileOwner,
}

/// A socket of an SSH agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshMount {
    /// `id`; none: `default`.
    pub id: Option<String>,
    /// `target` as given; none: `/run/buildkit/ssh_agent.N`.
    pub target: Option<String>,
    /// Whether the step fails without the agent.
    pub required: bool,
    /// Owner and mode of the socket.
    pub owner: FileOwner,
}

/// `uid`, `gid` and `mode` as given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileOwner {
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
    /// `mode`, read as octal; any 32-bit value.
    pub mode: Option<u32>,
}

/// Why a `--mount` is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The option's text could not be expanded; holds the expander's words.
    #[error("{0}")]
    Expand(String),
    /// The options make no sense; BuildKit's wording, with a suggestion where one is near.
    #[error("{0}")]
    Invalid(String),
}

impl MountFlag {
    /// `from=` as written: it takes no variables, so that stages are known before expansion.
    pub fn from(&self) -> Option<&str> {
        self.fields.iter().rev().find_map(|field| {
            let (key, value) = field.split_once('=')?;
            key.eq_ignore_ascii_case("from").then_some(value)
        })
    }

    /// Expands each option's value and gives the mount that results.
    ///
    /// # Errors
    /// What the expander returned, or why the options make no valid mount.
    pub fn resolve(&self, expand: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<Mount, MountError> {
        crate::mounts::resolve(&self.fields, expand)
    }
}
