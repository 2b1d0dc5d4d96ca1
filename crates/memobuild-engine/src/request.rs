//! What a build is asked for, and what it gives back.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use memobuild_cache::{Place, RemoteOptions};
use memobuild_oci::{image::StoredImage, reference::Reference, registry::RegistryOptions};
use memobuild_plan::model::Options;
use memobuild_tree::Sha256Digest;

use crate::{Annotation, Attestations, StepReport};

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Where the build's context comes from.
    pub context: ContextInput,
    /// Where the Dockerfile comes from.
    pub dockerfile: DockerfileInput,
    /// What shapes the plan: target, platforms, args, labels, named contexts, network...
    pub options: Options,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// `--ssh`, by id: the agent's socket.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--tag`: full names.
    pub tags: Vec<String>,
    /// `--output`; empty: the image stays in memobuild's own store.
    pub outputs: Vec<Output>,
    /// `--annotation`.
    pub annotations: Vec<Annotation>,
    /// `--provenance`, `--sbom`, `--attest`.
    pub attestations: Attestations,
    /// `--sandbox`.
    pub sandbox: SandboxChoice,
    /// `--pull`: ask the registry even for images already here.
    pub pull: bool,
    /// `--reproducible`: every mtime and the image's own time are SOURCE_DATE_EPOCH (0 if not set).
    pub reproducible: bool,
    /// Whether results of RUN are found by what they looked at; `--no-trace` turns that off: then only an equal input
    /// tree reuses them.
    pub trace: bool,
    /// `--max-age`: results of RUN steps that can use the network are not used when they are older than this.
    pub max_age: Option<Duration>,
    /// Steps executed at once; none: the number of processors, 4 at least.
    pub parallelism: Option<usize>,
    /// How registries are spoken to.
    pub registries: RegistryOptions,
    /// `--sign`: the key that pushed images are signed with.
    #[cfg(feature = "sign")]
    pub sign: Option<std::sync::Arc<memobuild_attest::sign::PrivateKey>>,
    /// `--cache-from`.
    pub cache_from: Vec<Place>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheTarget>,
    /// `--remote`: the server that results are shared with.
    pub remote: Option<RemoteOptions>,
}

/// `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where it goes; none: into the image itself (`type=inline`).
    pub place: Option<Place>,
    /// `mode=max`: contents of all steps, not only of those that the image consists of.
    pub max: bool,
    /// `mounts=true`: cache mounts too.
    pub mounts: bool,
    /// `single-owner=true`: results of RUN steps too if this user has one id only, so that owners are no true ones.
    pub single_owner: bool,
    /// `ignore-error=false`: a failed export fails the build.
    pub must: bool,
}

impl Default for BuildRequest {
    fn default() -> Self {
        Self {
            context: ContextInput::default(),
            dockerfile: DockerfileInput::default(),
            options: Options::default(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            tags: Vec::new(),
            outputs: Vec::new(),
            annotations: Vec::new(),
            attestations: Attestations::default(),
            sandbox: SandboxChoice::default(),
            pull: false,
            reproducible: false,
            trace: true,
            max_age: None,
            parallelism: None,
            registries: RegistryOptions::default(),
            #[cfg(feature = "sign")]
            sign: None,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            remote: None,
        }
    }
}

/// Where the context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextInput {
    /// A directory.
    Directory(PathBuf),
    /// An archive or a Dockerfile on standard input (`-`).
    Stdin,
    /// A repository or archive by URL.
    Url(String),
}

impl Default for ContextInput {
    fn default() -> Self {
        Self::Directory(".".into())
    }
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DockerfileInput {
    /// `Dockerfile` (or `dockerfile`) in the context.
    #[default]
    InContext,
    /// `-f PATH`: as docker takes it, relative to the current directory.
    Path(PathBuf),
    /// `-f -`.
    Stdin,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable of memobuild's.
    Env(String),
}

/// `--sandbox`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxChoice {
    /// The best that the machine can do.
    #[default]
    Auto,
    /// FUSE under overlayfs.
    Traced,
    /// Laid out on disk under overlayfs.
    Exact,
    /// Laid out on disk, chroot.
    Chroot,
}

/// `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `type=`.
    pub kind: OutputKind,
    /// `dest=`; none: what the kind takes by default.
    pub dest: Option<Destination>,
    /// `name=`: names for the image, besides the tags.
    pub names: Vec<String>,
    /// `push=true`: to the registries that the names name.
    pub push: bool,
    /// `compression=` and `compression-level=`, `force-compression=`.
    pub compression: Compression,
    /// `rewrite-timestamp=true`.
    pub rewrite_timestamp: bool,
    /// `oci-mediatypes=`; none: what the kind does by default.
    pub oci_mediatypes: Option<bool>,
    /// `tar=`; none: a tar where `dest` is a file, else a directory.
    pub tar: Option<bool>,
    /// `annotation.*=`.
    pub annotations: Vec<Annotation>,
}

impl Output {
    /// An output of a kind with nothing else said.
    pub fn new(kind: OutputKind) -> Self {
        Self {
            kind,
            dest: None,
            names: Vec::new(),
            push: false,
            compression: Compression::default(),
            rewrite_timestamp: false,
            oci_mediatypes: None,
            tar: None,
            annotations: Vec::new(),
        }
    }
}

/// `type=` of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// An OCI image layout.
    Oci,
    /// What `docker load` takes.
    Docker,
    /// The root file system as a tar.
    Tar,
    /// The root file system in a directory.
    Local,
    /// The image in memobuild's own store.
    Image,
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file or a directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compression {
    /// The method; none: gzip.
    pub method: Option<CompressionMethod>,
    /// The level; none: the method's default.
    pub level: Option<i32>,
    /// Compress the base image's layers anew as well.
    pub force: bool,
}

/// A compression method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompressionMethod {
    /// Plain tar.
    Uncompressed,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// gzip with a table of contents, for lazy pulls: stargz-snapshotter's.
    Estargz,
    /// zstd with a table of contents, for pulls of the parts that lack: containers/storage's.
    ZstdChunked,
}

impl CompressionMethod {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Uncompressed, Self::Gzip, Self::Zstd, Self::Estargz, Self::ZstdChunked];

    /// As it stands behind `compression=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Estargz => "estargz",
            Self::ZstdChunked => "zstd:chunked",
        }
    }
}

/// An image as it was left in memobuild's own store.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The image. Without names the store keeps it only as long as a lease lasts.
    pub image: StoredImage,
    /// Its names there.
    pub names: Vec<Reference>,
}

/// What a build gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildOutcome {
    /// The manifest's digest, or the index's where there are several platforms. None if only files were written out.
    pub image: Option<Sha256Digest>,
    /// The config's digest (`--iidfile`), of a single image.
    pub config: Option<Sha256Digest>,
    /// The media type and size of what `image` names.
    pub descriptor: Option<(String, u64)>,
    /// Names under which it can be found now.
    pub names: Vec<String>,
    /// The image in memobuild's own store, where it was put there.
    pub kept: Option<Kept>,
    /// Each step and how it ended.
    pub steps: Vec<StepReport>,
    /// From begin to end.
    pub duration: Duration,
}
