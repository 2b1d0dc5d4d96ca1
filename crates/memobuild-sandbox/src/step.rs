//! What a caller asks for and what it gets back.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use memobuild_tree::{Diff, Tree, facts::Looks};

/// One command over one tree.
#[derive(Debug, Clone)]
pub struct Step {
    /// The root file system, mount points need not exist in it.
    pub root: Tree,
    /// The command and its arguments. A name without `/` is looked for in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` each. Given to the command as it is, but for `PATH` and `HOME`, which get the usual values where
    /// they lack (as BuildKit's executor does).
    pub env: Vec<Vec<u8>>,
    /// Working directory, absolute. It must exist in `root` or be a mount point.
    pub cwd: Vec<u8>,
    /// Who the command runs as.
    pub user: User,
    /// Mounts in the order given; a mount below another one's target comes out right in any order.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// Host name; `None` is `buildkitsandbox`, as BuildKit has it.
    pub hostname: Option<Vec<u8>>,
    /// Lines added to /etc/hosts.
    pub extra_hosts: Vec<Host>,
    /// Size of /dev/shm in bytes; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Best effort: where the unified hierarchy can be written, the step runs in a group of its own below this one.
    pub cgroup_parent: Option<String>,
    /// Confinement.
    pub security: Security,
    /// What the command is for, as `os/architecture[/variant]`: where its program can't be looked at beforehand, this
    /// says whether it needs an emulator.
    pub platform: Option<String>,
    /// Whether every file whose bytes are read must be told from those only looked at ([`memobuild_tree::facts::Look`]).
    /// Costs speed: large blobs are then not read natively.
    pub see_reads: bool,
}

impl Step {
    /// A step with nothing but a root, a command and the defaults: root user, `/`, host network.
    pub fn new(root: Tree, argv: Vec<Vec<u8>>) -> Self {
        Self {
            root,
            argv,
            env: Vec::new(),
            cwd: b"/".to_vec(),
            user: User::default(),
            mounts: Vec::new(),
            network: Network::Host,
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            security: Security::Sandbox,
            platform: None,
            see_reads: false,
        }
    }
}

/// Numeric ids; names are resolved by the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Address as text.
    pub ip: String,
    /// Name.
    pub name: String,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`, like `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Something mounted over the root for the time of the step. It never becomes part of the diff.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where: absolute and clean. Links in the root are followed, as BuildKit does.
    pub target: Vec<u8>,
    /// What.
    pub kind: MountKind,
}

/// Kinds of mounts.
#[derive(Clone)]
pub enum MountKind {
    /// A part of another tree.
    Tree {
        /// The tree.
        tree: Tree,
        /// The path within it, which must exist; a file may be mounted too.
        path: Vec<u8>,
        /// Whether the step may write to it. What it writes is thrown away.
        writable: bool,
    },
    /// A directory or file of this machine: cache mounts.
    Host {
        /// Absolute path; it must exist.
        path: PathBuf,
        /// Whether the step may write to it.
        writable: bool,
    },
    /// An empty temporary file system, mode 1777.
    Tmpfs {
        /// Size in bytes; `None` is the kernel's default.
        size: Option<u64>,
        /// Whether the step may write to it.
        writable: bool,
    },
    /// A file that never touches a disk.
    Secret {
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A Unix socket of this machine (an ssh agent's).
    SshSocket {
        /// Where it listens.
        host_path: PathBuf,
        /// Owner the step sees, where ids are mapped.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

impl std::fmt::Debug for MountKind {
    /// Says the kind and where it comes from; never a secret's bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tree { path, writable, .. } => {
                write!(f, "Tree({}, writable: {writable})", memobuild_tree::path::display(path))
            }
            Self::Host { path, writable } => write!(f, "Host({}, writable: {writable})", path.display()),
            Self::Tmpfs { size, writable } => write!(f, "Tmpfs({size:?}, writable: {writable})"),
            Self::Secret { uid, gid, mode, .. } => write!(f, "Secret({uid}:{gid} {mode:o})"),
            Self::SshSocket { host_path, .. } => write!(f, "SshSocket({})", host_path.display()),
        }
    }
}

/// What network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// A loopback device only.
    None,
}

/// How a step is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Docker's default capabilities and system calls.
    #[default]
    Sandbox,
    /// All capabilities that the sandbox itself has, no system call filter.
    Insecure,
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Hears what the step prints, in pieces as they come.
pub trait Output: Sync {
    /// A piece of output. Called from the thread that called [`crate::Sandbox::run`].
    fn write(&self, stream: Stream, bytes: &[u8]);
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

impl Exit {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Where the time of a step went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the call to the start of the command.
    pub setup: Duration,
    /// The command itself.
    pub run: Duration,
    /// Reading back what it wrote.
    pub harvest: Duration,
}

/// How much of the trees served to it a step looked at, each thing once (the kernel remembers). Zeros where trees are
/// laid out on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Names looked up that were there.
    pub found: u64,
    /// Names looked up that were not.
    pub absent: u64,
    /// Reads of file contents that came through the file server.
    pub reads: u64,
    /// Directories listed.
    pub listings: u64,
}

/// What a step did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How the command ended. After a failure the diff is empty: it is of no use to anyone.
    pub exit: Exit,
    /// What it changed in the root.
    pub diff: Diff,
    /// Whether the recorder saw all that the step depended on. `false`: only an exact key may reuse the result.
    pub complete: bool,
    /// What it looked at: in its root, then in the tree of each [`MountKind::Tree`], in the order of the step's mounts.
    /// Empty where trees are laid out.
    pub looks: Vec<Looks>,
    /// How much it looked at.
    pub looked: Looked,
    /// Where the time went.
    pub timings: Timings,
}

impl Outcome {
    /// Files up to this many bytes are handed over as bytes, larger ones by rename.
    pub const SMALL_FILE: u64 = 64 * 1024;
}

/// Stops a running step from another thread. Clones share one state; once cancelled it stays so.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug)]
struct CancelState {
    flag: AtomicBool,
    event: Option<OwnedFd>,
    children: Mutex<Vec<Weak<CancelState>>>,
}

impl Default for Cancel {
    fn default() -> Self {
        // Without a descriptor to wake a sleeping poll the flag still works, a little later.
        let event =
            rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK);
        Self(Arc::new(CancelState { flag: AtomicBool::new(false), event: event.ok(), children: Mutex::default() }))
    }
}

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that is cancelled with this one, and that can be cancelled without it.
    pub fn child(&self) -> Self {
        let child = Self::default();
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.0));
        drop(children);
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Kills all steps that run with this.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::SeqCst);
        if let Some(event) = &self.0.event {
            // A full counter means that it is readable already.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
        let children = std::mem::take(&mut *self.0.children.lock().unwrap_or_else(PoisonError::into_inner));
        for child in children.iter().filter_map(Weak::upgrade) {
            Self(child).cancel();
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst)
    }

    /// Readable once cancelled.
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        self.0.event.as_ref().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_cancelled_with_its_parent_and_not_the_other_way() {
        let parent = Cancel::new();
        let (one, two) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !two.is_cancelled());
        parent.cancel();
        assert!(two.is_cancelled() && parent.child().is_cancelled());
    }
}
