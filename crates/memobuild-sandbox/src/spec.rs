//! What the sandbox server is told about a step, and what a step tells back. All paths are absolute on this machine.

use crate::wire::wire;

/// Bytes on the wire.
pub(crate) type Bytes = Box<[u8]>;

/// A place for a step: what can be made ready before the step is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// The step's own scratch directory; exists and is empty. Gets `upper` and `work`.
    pub(crate) dir: Bytes,
    /// A directory over which the step mounts a tmpfs that nobody else sees. All that need not lie on a disk is there:
    /// `plain`, `rich`, `side`, `root`, and `proc`, `sys` and `dev` until they are moved into the root.
    pub(crate) mem: Bytes,
    /// What is made ready.
    pub(crate) shape: Shape,
}
wire!(struct Room { dir, mem, shape });

/// What rooms differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether the lower sides come from FUSE, mounted at `mem/plain` and `mem/rich` and served by the other end.
    pub(crate) fuse: bool,
    /// Whether the step gets a network of its own, with nothing but a loopback device.
    pub(crate) no_network: bool,
    /// All capabilities, no filter, no masked files.
    pub(crate) insecure: bool,
    /// Only one id is mapped: groups cannot be set.
    pub(crate) single: bool,
    /// Size of /dev/shm.
    pub(crate) shm_size: u64,
}
wire!(struct Shape { fuse, no_network, insecure, single, shm_size });

/// Everything needed to run a step in its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Where, and what was made ready for it.
    pub(crate) room: Room,
    /// Lower directories of the root, uppermost first.
    pub(crate) lowers: Vec<Bytes>,
    /// Directory of large blobs for overlay's `datadir+`.
    pub(crate) data: Option<Bytes>,
    /// Metadata that the root directory starts with.
    pub(crate) root: RootMeta,
    /// Files in memory, made in `mem/side` to be bind-mounted from there: hosts, resolv.conf, secrets.
    pub(crate) side: Vec<SideFile>,
    /// What to mount, in order.
    pub(crate) mounts: Vec<MountSpec>,
    /// Command.
    pub(crate) argv: Vec<Bytes>,
    /// Environment.
    pub(crate) env: Vec<Bytes>,
    /// Working directory.
    pub(crate) cwd: Bytes,
    /// User, group, supplementary groups.
    pub(crate) ids: (u32, u32, Vec<u32>),
    /// The ids that it was to run with, where only one is mapped.
    pub(crate) asked: (u32, u32, Vec<u32>),
    /// Host name.
    pub(crate) hostname: Bytes,
    /// Resource numbers (`RLIMIT_*`), soft and hard limits.
    pub(crate) limits: Vec<(u32, u64, u64)>,
    /// Owners that cannot be mapped, and devices, are recorded by answering system calls.
    pub(crate) supervise: bool,
    /// Ids from here on cannot be mapped: files that belong to them show as root's, with an attribute that tells.
    pub(crate) id_limit: u32,
    /// No namespaces and no mounts: change root into that directory, in which all is laid out.
    pub(crate) chroot: Option<Bytes>,
    /// Paths in the root that stand for mounts there: what changes below them is no change.
    pub(crate) skip: Vec<Bytes>,
    /// Best effort: run in a control group of its own below this one.
    pub(crate) cgroup: Option<Bytes>,
    /// Only try whether all can be set up; start nothing.
    pub(crate) probe: bool,
}

wire!(struct Spec {
    room, lowers, data, root, side, mounts, argv, env, cwd, ids, asked, hostname, limits, supervise, id_limit, chroot, skip, cgroup,
    probe
});

/// Metadata of the root directory. FUSE never sees `/` itself, so the upper directory starts with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootMeta {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
}
wire!(struct RootMeta { mode, owner, mtime, xattrs });

/// A file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SideFile {
    pub(crate) name: Bytes,
    pub(crate) bytes: Bytes,
    pub(crate) owner: (u32, u32),
    pub(crate) mode: u32,
}
wire!(struct SideFile { name, bytes, owner, mode });

/// A mount over the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    /// Within the root; made if it lacks.
    pub(crate) target: Bytes,
    pub(crate) source: Source,
}
wire!(struct MountSpec { target, source });

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file or directory, bind-mounted with `MOUNT_ATTR_*` flags.
    Bind { path: Bytes, attributes: u64 },
    /// A path below lower directories that get a writable layer whose contents are thrown away; `number` names it.
    Scratch { lowers: Vec<Bytes>, number: u32, below: Bytes, attributes: u64 },
    /// A tmpfs, mounted with further `MOUNT_ATTR_*` flags.
    Tmpfs { size: Option<u64>, attributes: u64 },
}
wire!(enum Source {
    0 => Bind { path, attributes },
    1 => Scratch { lowers, number, below, attributes },
    2 => Tmpfs { size, attributes },
});

/// The step for a room: its spec in a memory file, since it may be large, then standard output and error. Where the
/// command's process gets it, a socket for the descriptor of its filter may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The one thing there is to say.
    Step {},
}
wire!(enum Begin { 0 => Step {} });

/// What the sandbox's processes say to each other, each in one message of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The FUSE devices come with this message: the plain side's, the rich side's.
    Fuse {},
    /// Ids are to be mapped; or, with the filter's descriptor, the command has one.
    Started {},
    /// The command could not be executed.
    NotStarted { reason: Bytes, code: i32 },
    /// Setting up failed.
    Failed { what: Bytes, errno: i32 },
    /// The command ended: an exit code, or a signal where the flag is set. From when to when the step's files may have
    /// been written, and how many nanoseconds the command itself took.
    Ended { signal: bool, code: i32, from: (i64, u32), to: (i64, u32), took: u64 },
    /// A piece of the harvest, see `harvest::message`.
    Harvest { bytes: Bytes },
    /// Harvesting failed.
    HarvestFailed { what: Bytes, errno: i32 },
    /// All was sent.
    Done {},
}
wire!(enum Event {
    0 => Fuse {},
    1 => Started {},
    2 => NotStarted { reason, code },
    3 => Failed { what, errno },
    4 => Ended { signal, code, from, to, took },
    5 => Harvest { bytes },
    6 => HarvestFailed { what, errno },
    7 => Done {},
});

/// Largest message on a step's socket, in bytes; below the default send buffer of Linux.
pub(crate) const MAX_MESSAGE: usize = 160 * 1024;

/// What the server is asked to do. Each request comes with a socket for the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Make a room ready for a step, if one is given, and run the step that then comes on the socket as a [`Begin`].
    /// What comes behind that, or the socket's end, kills the step; after the step's `Done` it is the sign that its
    /// directory may go, which the step's process removes itself before it lets go of the socket.
    Run { room: Option<Room> },
    /// Set owner and mode of a file. Answered by `Done` or `Failed`.
    Own { path: Bytes, uid: u32, gid: u32, mode: u32 },
    /// Lay a tree out in a directory that is made where it lacks, from orders that come as `Harvest` messages on the
    /// socket, up to a `Done`; answered by `Done` or `Failed`. A `layer` of an overlay gets whiteouts.
    LayOut { dir: Bytes, layer: bool },
    /// Remove a directory and all below it, whoever owns it. Answered by `Done` or `Failed`.
    Remove { path: Bytes },
    /// Register handlers of programs with the kernel, for the server's user namespace. Answered by `Failed`, or by
    /// `Done` and a descriptor with which they go.
    Emulate { handlers: Vec<Bytes> },
}
wire!(enum Request {
    0 => Run { room },
    1 => Remove { path },
    2 => LayOut { dir, layer },
    3 => Own { path, uid, gid, mode },
    4 => Emulate { handlers },
});
