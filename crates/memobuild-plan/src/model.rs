//! The plan: what [`crate::plan`] gives and the engine runs. Everything in it is fully expanded.

use std::collections::BTreeMap;

use memobuild_dockerfile::Span;
use memobuild_image::{ImageConfig, Platform};

/// A step by its place in [`Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// A graph of steps, pruned to what the targets need.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Invariant: every step stands behind all steps that it names. Equal operations on equal inputs are one step.
    pub steps: Vec<Step>,
    /// One for each platform asked for, in that order.
    pub targets: Vec<Target>,
    /// The base images that the steps name, each once.
    pub images: Vec<BaseImage>,
    /// The local directories that the steps read, each once.
    pub locals: Vec<Local>,
    /// The text and name of the Dockerfile, for messages.
    pub source: memobuild_dockerfile::SourceFile,
}

/// One node of the graph: it yields a file tree.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its place.
    pub id: StepId,
    /// What a person reads: `[build 2/5] RUN make`.
    pub label: String,
    /// The stage's name, or its number as text.
    pub stage: String,
    /// The instruction that it comes from; none for what planning added.
    pub span: Option<Span>,
    /// The platform that it is for.
    pub platform: Platform,
    /// `# memobuild:` comments above the instruction.
    pub hints: StepHints,
    /// `--no-cache`, or `--no-cache-filter` naming its stage: must run even if a result is known.
    pub ignore_cache: bool,
    /// What it does.
    pub op: Op,
}

/// What a `# memobuild: ...` comment above an instruction asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StepHints {
    /// `exact`: only an equal input tree may reuse its result.
    pub exact: bool,
    /// `stat=kind`: files only looked at count by kind, mode and owner.
    pub stat_kind: bool,
    /// `max-age=24h`: results older than this are not used.
    pub max_age: Option<std::time::Duration>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// Yields an empty tree.
    Scratch,
    /// Yields the root of [`Plan::images`] at this place.
    Image(usize),
    /// Yields the directory of [`Plan::locals`] at this place.
    Local(usize),
    /// Yields one file in an otherwise empty tree.
    Http(Http),
    /// Yields a checked-out repository.
    Git(Git),
    /// Runs a command over the parent's tree.
    Run(Box<Run>),
    /// Copies into the parent's tree.
    Copy(Box<Copy>),
    /// Makes a directory, with the parents that lack, if it is not there: `WORKDIR`.
    Mkdir(Mkdir),
}

/// A file fetched for `ADD https://...`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Http {
    /// Where from.
    pub url: String,
    /// The name of the file in the tree, one component: the last one of the URL's path, `__unnamed__` if it has none.
    pub filename: String,
    /// `--checksum=sha256:...`.
    pub checksum: Option<String>,
}

/// A repository fetched for `ADD git@...` or `ADD https://....git#ref:dir`, or a named context of that kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Git {
    /// Where from, without fragment.
    pub remote: String,
    /// Branch, tag or commit; none: the default branch.
    pub reference: Option<String>,
    /// Directory within.
    pub subdir: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--checksum`: the commit that must be found.
    pub checksum: Option<String>,
    /// `?submodules=false`: submodules are left out.
    pub skip_submodules: bool,
    /// `?fetch-by-commit=true`: the commit of `checksum` is fetched without asking where the reference points.
    pub fetch_by_commit: bool,
    /// `?mtime=commit`: files get the time of the commit, not that of the checkout.
    pub commit_mtime: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// The step whose tree it runs over.
    pub parent: StepId,
    /// The command, shell included.
    pub argv: Vec<String>,
    /// The environment in order, each name once: ENV of the stage and the ARGs in scope.
    pub env: Vec<(String, String)>,
    /// Proxy settings given as build args and not declared by ARG, in upper and lower case: seen by the command, where
    /// they win over `env`, and no part of its key.
    pub proxy_env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// USER as written; empty: root.
    pub user: String,
    /// Mounts in order of the flags.
    pub mounts: Vec<Mount>,
    /// Network.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// Host names added: name, address.
    pub hosts: Vec<(String, String)>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Limits: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Parent cgroup.
    pub cgroup_parent: Option<String>,
    /// Host name in the sandbox (build arg `BUILDKIT_SANDBOX_HOSTNAME`).
    pub hostname: Option<String>,
}

/// `RUN --network`, after the build's own `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the builder does by default (the host's network).
    #[default]
    Default,
    /// The host's network.
    Host,
    /// None but loopback.
    None,
}

/// One `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Where it appears, absolute and clean.
    pub target: String,
    /// What it is.
    pub kind: MountKind,
}

/// Owner and mode of a directory to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NewDir {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The kinds of `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A tree, or a part of one.
    Bind {
        /// The step that yields the tree.
        from: StepId,
        /// The part; `/` is all.
        path: String,
        /// `rw`: the command may write, and what it writes is thrown away.
        writable: bool,
    },
    /// A file that stands in the Dockerfile: a heredoc with a `#!` line.
    Script {
        /// Its bytes; mode 0755. The mount's target is the file.
        content: String,
    },
    /// A directory that outlives the build.
    Cache {
        /// `id`, or the target.
        id: String,
        /// What it starts with: step and path.
        from: Option<(StepId, String)>,
        /// `sharing`.
        sharing: Sharing,
        /// `ro`.
        read_only: bool,
        /// What a new cache's directory is like; none: like the directory that it starts with.
        dir: Option<NewDir>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; none: the kernel's default.
        size: Option<u64>,
        /// `ro`.
        read_only: bool,
    },
    /// A secret as a file or in the environment.
    Secret {
        /// Its id.
        id: String,
        /// Environment variable that gets it.
        env: Option<String>,
        /// Whether it also appears as a file at the target.
        file: bool,
        /// Whether the step fails without it.
        required: bool,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mode.
        mode: u32,
    },
    /// The ssh agent's socket.
    Ssh {
        /// Its id.
        id: String,
        /// Whether the step fails without it.
        required: bool,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Mode.
        mode: u32,
    },
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Any number at once.
    #[default]
    Shared,
    /// A new directory for whoever comes while it is in use.
    Private,
    /// One after the other.
    Locked,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    /// The step whose tree is copied into.
    pub parent: StepId,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Where to: absolute and clean, WORKDIR already in front.
    pub dest: String,
    /// Written with a slash at the end (or `.`), or the root: a directory.
    pub dest_is_dir: bool,
    /// `--chown`, unresolved: `user[:group]`, names or numbers. None: as in the source (0:0 from a local directory).
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--link`: independent of the parent's tree.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude` patterns, moby syntax.
    pub exclude: Vec<String>,
    /// `ADD`'s and `--unpack`'s: archives among the sources are unpacked.
    pub unpack: Unpack,
}

/// Whether archives are unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unpack {
    /// `COPY`, `ADD --unpack=false`, or a remote file without the flag.
    #[default]
    Never,
    /// Local archives of `ADD`, or `--unpack`: what is an archive is unpacked, all else is copied.
    Archives,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Chmod {
    /// Octal, 0o7777 at most.
    Octal(u32),
    /// Symbolic, as chmod(1) takes it.
    Symbolic(String),
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// A path or pattern within a tree.
    Path {
        /// The step that yields the tree.
        from: StepId,
        /// Absolute and clean (a `/./` pivot of `--parents` kept in `pivot`). May hold wildcards.
        pattern: String,
        /// With `--parents`: how many leading components stand before the pivot `/./`; none: no pivot.
        pivot: Option<usize>,
        /// Whether the pattern may match nothing, because it holds wildcards. Components in front of the first
        /// wildcard, or of the pivot, must exist all the same.
        may_be_empty: bool,
        /// Unpack this source if it is an archive.
        unpack: Unpack,
    },
    /// A heredoc.
    Inline {
        /// File name.
        name: String,
        /// Content, expanded.
        content: String,
    },
}

/// `WORKDIR`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mkdir {
    /// The step whose tree gets the directory.
    pub parent: StepId,
    /// Absolute and clean.
    pub path: String,
    /// USER as written, who owns what is made; empty: root.
    pub user: String,
}

/// A base image that the plan uses.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// The name as the Dockerfile says it, expanded.
    pub name: String,
    /// The platform.
    pub platform: Platform,
    /// The resolver's own handle.
    pub handle: usize,
    /// Its manifest's digest, for messages and provenance.
    pub digest: String,
    /// Its config.
    pub config: ImageConfig,
}

/// A local directory that steps read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// `None`: the build's context; else the named context.
    pub name: Option<String>,
    /// Which parts steps read: clean absolute patterns, as the copies name them (wildcards possible). `/` is all.
    pub paths: Vec<String>,
}

/// One image to be made.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its platform.
    pub platform: Platform,
    /// The stage's name, or its number as text.
    pub stage: String,
    /// The step whose tree is the image's root.
    pub root: StepId,
    /// The config without `created`, `rootfs` and `history`, which the engine fills in.
    pub config: ImageConfig,
    /// History of the instructions, oldest first; the base image's own stands in its config.
    pub history: Vec<History>,
    /// The base image at the bottom (a place in [`Plan::images`]); none: `scratch`.
    pub base: Option<usize>,
}

/// One entry of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// As BuildKit writes it: `RUN /bin/sh -c make # buildkit`.
    pub created_by: String,
    /// The step that made the layer; none: no layer (`empty_layer`).
    pub step: Option<StepId>,
}

/// Where a named context comes from (`--build-context NAME=VALUE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Local(std::path::PathBuf),
    /// `docker-image://REF`.
    Image(String),
    /// `oci-layout://PATH[:tag][@digest]`.
    OciLayout(String),
    /// A repository.
    Git(Git),
    /// An archive or file by URL.
    Http(String),
    /// `target:STAGE` of the same file.
    Target(String),
}

/// What a base image is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRequest {
    /// The name in FROM, `--from` or a mount, expanded.
    pub name: String,
    /// Set if a named context stands in its place.
    pub context: Option<ContextSource>,
    /// The platform wanted.
    pub platform: Platform,
}

/// What a resolver knows of a base image.
#[derive(Debug, Clone)]
pub struct ResolvedBase {
    /// The resolver's own handle.
    pub handle: usize,
    /// The manifest's digest.
    pub digest: String,
    /// The image's config.
    pub config: ImageConfig,
}

/// Finds base images. Only manifests and configs are needed here, never a layer.
pub trait BaseResolver: Sync {
    /// Finds the images, possibly in parallel; answers in order. An error is the text for the user.
    fn resolve(&self, requests: &[BaseRequest]) -> Vec<Result<ResolvedBase, String>>;
}

/// What the build was asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--target`; none: the last stage.
    pub target: Option<String>,
    /// `--platform`, in order; empty: the builder's own.
    pub platforms: Vec<Platform>,
    /// The builder's own platform (BUILDPLATFORM).
    pub build_platform: Platform,
    /// `--build-arg`, all of them.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--build-context`.
    pub contexts: BTreeMap<String, ContextSource>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stage names.
    pub no_cache_filter: Vec<String>,
    /// `--network`.
    pub network: Network,
    /// `--add-host`.
    pub hosts: Vec<(String, String)>,
    /// `--shm-size`.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<(String, i64, i64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--allow security.insecure` was given.
    pub allow_insecure: bool,
    /// SOURCE_DATE_EPOCH in force.
    pub source_date_epoch: Option<i64>,
}
