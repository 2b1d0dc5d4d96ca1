//! The arguments of `memobuild build`: docker buildx's names with docker buildx's meanings.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use memobuild_engine::{Annotation, CachePlace, CacheTarget, ContextInput, Output, SandboxChoice, SecretSource};
use memobuild_plan::model::Network;

use crate::{
    cli::{
        planning::PlanFlags,
        values::{self, Attest},
    },
    progress::ProgressMode,
};

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArgs {
    /// The build's context: a directory, a URL, or - for an archive or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT", value_parser = values::context_input)]
    pub(crate) context: ContextInput,

    #[command(flatten)]
    pub(crate) plan: PlanFlags,

    /// Name of the image, as NAME[:TAG]; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,

    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label, help_heading = "Image")]
    pub(crate) labels: Vec<(String, String)>,

    /// Annotation, as [LEVEL:]KEY=VALUE; LEVEL is manifest, manifest[PLATFORM], manifest-descriptor, index or
    /// index-descriptor, or several with commas [default: manifest]
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = values::annotation, help_heading = "Image")]
    pub(crate) annotations: Vec<Vec<Annotation>>,

    /// Say in the image how it came to be (SLSA provenance v1): true, false, mode=min|max, builder-id=URL; max tells
    /// values of build arguments too
    #[arg(long, value_name = "PROVENANCE", value_parser = values::provenance, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "Image")]
    pub(crate) provenance: Option<Attest>,

    /// List in the image which packages are in it (SPDX): true or false
    #[arg(long, value_name = "BOOL", value_parser = values::sbom, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "Image")]
    pub(crate) sbom: Option<Attest>,

    /// The same in one: type=provenance,mode=max or type=sbom
    #[arg(long, value_name = "ATTESTATION", value_parser = values::attest, help_heading = "Image")]
    pub(crate) attest: Vec<Attest>,

    /// Sign what is pushed with this key, as cosign does; COSIGN_PASSWORD opens it
    #[cfg(feature = "sign")]
    #[arg(long, value_name = "KEY", help_heading = "Image")]
    pub(crate) sign: Option<PathBuf>,

    /// Push the image to the registries that its names name; short for --output type=registry
    #[arg(long, help_heading = "Image")]
    pub(crate) push: bool,

    /// Give the image to docker, podman or containerd, as `memobuild load` does; short for --output type=docker
    #[arg(long, help_heading = "Image")]
    pub(crate) load: bool,

    /// Where the result goes: type=oci|docker|tar|local|image|registry,dest=PATH; a bare path is a directory, - a tar on
    /// standard output [default: the image stays in memobuild's store]
    #[arg(short, long = "output", value_name = "OUTPUT", value_parser = values::output, help_heading = "Image")]
    pub(crate) outputs: Vec<Output>,

    /// Make every time in the image SOURCE_DATE_EPOCH (0 if not set), so that equal inputs give equal bytes
    #[arg(long, help_heading = "Image")]
    pub(crate) reproducible: bool,

    /// Write the image's ID to this file
    #[arg(long, value_name = "FILE", help_heading = "Image")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Image")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Cache to read results from, besides the machine's own: a registry's NAME, type=registry,ref=NAME or
    /// type=local,src=DIR; an image that carries its cache counts as one
    #[arg(long, value_name = "CACHE", value_parser = values::cache_from, help_heading = "Cache")]
    pub(crate) cache_from: Vec<CachePlace>,

    /// Cache to write results to: type=registry,ref=NAME, type=local,dest=DIR or type=inline (into the image);
    /// mode=max takes all stages, mounts=true cache mounts too
    #[arg(long, value_name = "CACHE", value_parser = values::cache_to, help_heading = "Cache")]
    pub(crate) cache_to: Vec<CacheTarget>,

    /// Server to share results with (`memobuild server`); empty: none [default: MEMOBUILD_REMOTE_URL, or url in [remote]
    /// of the settings]
    #[arg(long, value_name = "URL", help_heading = "Cache")]
    pub(crate) remote: Option<String>,

    /// Run every step anew
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_cache: bool,

    /// Run the steps of these stages anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = "Cache")]
    pub(crate) no_cache_filter: Vec<String>,

    /// Ask the registry for base images even if they are here
    #[arg(long, help_heading = "Cache")]
    pub(crate) pull: bool,

    /// Say which steps would run, and why, without running any
    #[arg(long, help_heading = "Cache")]
    pub(crate) dry_run: bool,

    /// Secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VARIABLE
    #[arg(long = "secret", value_name = "SECRET", value_parser = values::secret, help_heading = "Steps")]
    pub(crate) secrets: Vec<(String, SecretSource)>,

    /// Agent for RUN --mount=type=ssh: default or ID[=SOCKET]
    #[arg(long = "ssh", value_name = "AGENT", value_parser = values::ssh, help_heading = "Steps")]
    pub(crate) ssh: Vec<(String, PathBuf)>,

    /// Network that steps see
    #[arg(long, value_enum, default_value = "default", hide_default_value = true, help_heading = "Steps")]
    pub(crate) network: NetworkArg,

    /// Line of /etc/hosts in steps
    #[arg(long = "add-host", value_name = "NAME:IP", value_parser = values::host, help_heading = "Steps")]
    pub(crate) add_hosts: Vec<(String, String)>,

    /// Size of /dev/shm in steps, like 64m
    #[arg(long, value_name = "BYTES", value_parser = values::size, help_heading = "Steps")]
    pub(crate) shm_size: Option<u64>,

    /// Limit in steps, like nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = values::ulimit, help_heading = "Steps")]
    pub(crate) ulimits: Vec<(String, i64, i64)>,

    /// Control group that steps are put below, where that is allowed
    #[arg(long, value_name = "GROUP", help_heading = "Steps")]
    pub(crate) cgroup_parent: Option<String>,

    /// What steps may ask for: security.insecure
    #[arg(long, value_name = "RIGHT", value_delimiter = ',', help_heading = "Steps")]
    pub(crate) allow: Vec<Entitlement>,

    /// How steps are run; see `memobuild doctor`
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true, help_heading = "Steps")]
    pub(crate) sandbox: SandboxArg,

    /// Reuse steps only over equal files, not by what they were seen to look at
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_trace: bool,

    /// Run steps that can use the network again when their result is older, like 24h
    #[arg(long, value_name = "DURATION", value_parser = values::age, help_heading = "Cache")]
    pub(crate) max_age: Option<std::time::Duration>,

    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true, help_heading = "Display")]
    pub(crate) progress: ProgressMode,

    /// Show no progress, print the image's ID
    #[arg(short, long, help_heading = "Display")]
    pub(crate) quiet: bool,

    /// Write what took how long to a file that ui.perfetto.dev opens
    #[arg(long, value_name = "FILE", help_heading = "Display")]
    pub(crate) trace_file: Option<PathBuf>,

    /// Check the Dockerfile instead of building; short for --call=check
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "call", help_heading = "Display")]
    pub(crate) check: bool,

    /// What to do with the Dockerfile
    #[arg(long, value_enum, default_value = "build", hide_default_value = true, help_heading = "Display")]
    pub(crate) call: Call,
}

const EXAMPLES: &str = "\
Examples:
  Build ./Dockerfile; the image stays in memobuild's store:
    memobuild build -t app .
  Write an OCI archive, for two platforms:
    memobuild build --platform linux/amd64,linux/arm64 -o type=oci,dest=app.tar .
  Write the root file system of stage `bin` to ./out, or as a tar:
    memobuild build --target bin -o out .
    memobuild build --target bin -o - . | tar -t
  Build for docker, or what `memobuild load` finds instead of it:
    memobuild build -t app --load .
  Build and push:
    memobuild build -t registry.example/app:1 --push .
  Share results with other machines through a registry:
    memobuild build --cache-from registry.example/app:cache \\
      --cache-to type=registry,ref=registry.example/app:cache,mode=max .
  The same through a server (`memobuild server` on one machine):
    memobuild build --remote http://cache.example:8080 .
  Say what is in it and how it came to be, and sign that:
    memobuild build -t registry.example/app:1 --sbom --provenance=max --sign cosign.key --push .
  Give arguments, secrets and base images:
    memobuild build --build-arg VERSION=2 --secret id=npm,src=.npmrc .
    memobuild build --build-context busybox=oci-layout://base .
  Say what would run, and why:
    memobuild build --dry-run .";

/// `--network`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NetworkArg {
    /// The host's network
    #[value(hide = true)]
    Default,
    /// The host's network
    Host,
    /// Loopback only
    None,
}

impl From<NetworkArg> for Network {
    fn from(arg: NetworkArg) -> Self {
        match arg {
            NetworkArg::Default => Self::Default,
            NetworkArg::Host => Self::Host,
            NetworkArg::None => Self::None,
        }
    }
}

/// `--sandbox`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SandboxArg {
    /// The best that this machine can do
    Auto,
    /// Files served through FUSE: nothing is unpacked
    Traced,
    /// Files laid out on disk, under an overlay
    Exact,
    /// Files laid out on disk, chroot: root in an ordinary container
    Chroot,
}

impl From<SandboxArg> for SandboxChoice {
    fn from(arg: SandboxArg) -> Self {
        match arg {
            SandboxArg::Auto => Self::Auto,
            SandboxArg::Traced => Self::Traced,
            SandboxArg::Exact => Self::Exact,
            SandboxArg::Chroot => Self::Chroot,
        }
    }
}

/// `--allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Entitlement {
    /// RUN --security=insecure
    #[value(name = "security.insecure")]
    SecurityInsecure,
    /// RUN --network=host, which is allowed anyway
    #[value(name = "network.host")]
    NetworkHost,
}

/// `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Call {
    /// Build
    Build,
    /// Check it for mistakes
    Check,
    /// List its arguments, secrets and caches
    Outline,
    /// List its stages
    Targets,
}
