//! `memobuild generate-k8s`.

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgGroup, Args, ValueEnum};

use super::{Cache, Common, k8s_job, k8s_server, line, output, write};
use crate::cli::{CliResult, Failure, values};

/// Write Kubernetes manifests: a Job that builds with a shared cache, and the cache's server
///
/// No image of memobuild is published: deploy/Dockerfile of its repository makes one, and --image names it.
///
/// --run-as says what the Job may do. `userns`: root in a user namespace that belongs to the pod, an ordinary user on the
/// node; needs Kubernetes 1.33, and gives mode exact, or traced with --fuse. `user`: not root in the pod either; the same,
/// but steps can't have other owners, and their results are shared with such builds only. `root`: root of the container as
/// it comes, nothing else asked for; works in any pod, in mode chroot.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("source").args(["git", "pvc"]))]
pub(crate) struct K8sArgs {
    /// Image that holds memobuild
    #[arg(long, value_name = "IMAGE", value_parser = line)]
    image: String,

    /// Name of the Job, and the beginning of other names
    #[arg(long, value_name = "NAME", default_value = "memobuild", value_parser = name)]
    name: String,

    /// Namespace of all objects [default: the one that kubectl uses]
    #[arg(long, value_name = "NAME", value_parser = name)]
    namespace: Option<String>,

    /// Repository to build, with #REF:DIRECTORY where wanted
    #[arg(long, value_name = "URL", value_parser = line)]
    git: Option<String>,

    /// PersistentVolumeClaim to build, as CLAIM or CLAIM:DIRECTORY
    #[arg(long, value_name = "CLAIM", value_parser = line)]
    pvc: Option<String>,

    #[command(flatten)]
    common: Common,

    /// Name of the image, to which it is pushed; without it nothing is
    #[arg(short, long, value_name = "NAME", value_parser = line)]
    tag: Option<String>,

    /// Secret of type kubernetes.io/dockerconfigjson for the registry
    #[arg(long, value_name = "NAME", value_parser = name)]
    registry_secret: Option<String>,

    /// Where builds share what they have made
    #[arg(long, value_enum, default_value = "server")]
    cache: Cache,

    /// Secret with `url` and `token` of the memobuild server [default: NAME-cache]
    #[arg(long, value_name = "NAME", value_parser = name)]
    cache_secret: Option<String>,

    /// Whom the Job runs as
    #[arg(long, value_enum, default_value = "userns")]
    run_as: RunAs,

    /// Resource by which a device plugin of the cluster hands out /dev/fuse
    #[arg(long, value_name = "RESOURCE", value_parser = line)]
    fuse: Option<String>,

    /// Processors asked for
    #[arg(long, value_name = "N", default_value = "2", value_parser = quantity)]
    cpu: String,

    /// Memory asked for, and the most that the Job gets
    #[arg(long, value_name = "SIZE", default_value = "4Gi", value_parser = quantity)]
    memory: String,

    /// The most that the Job's own cache and files take on the node
    #[arg(long, value_name = "SIZE", default_value = "20Gi", value_parser = quantity)]
    scratch: String,

    /// Write the server too: Deployment, Service, PersistentVolumeClaim, and Secrets with a token made for it
    #[arg(long)]
    server: bool,

    /// Size of the server's volume
    #[arg(long, value_name = "SIZE", default_value = "100Gi", value_parser = quantity)]
    volume: String,

    /// The most that the server keeps, below the size of its volume
    #[arg(long, value_name = "BYTES", default_value = "90g", value_parser = size_text)]
    max_size: String,

    /// File to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  Build a repository, push the image, and use the server that the Secret memobuild-cache names:
    memobuild generate-k8s --image registry.example/memobuild \\
      --git https://git.example/app.git#main --tag registry.example/app:1 \\
      --registry-secret registry --output job.yml
  The server, with a token of its own:
    memobuild generate-k8s --image registry.example/memobuild --server --output server.yml
  What is on a volume, in a cluster that grants nothing:
    memobuild generate-k8s --image registry.example/memobuild --pvc sources:app \\
      --run-as root | kubectl create -f -";

/// `--run-as`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RunAs {
    /// Root in the pod's own user namespace
    Userns,
    /// An ordinary user in the pod's own user namespace
    User,
    /// Root of the container
    Root,
}

/// What is built, by a pod.
pub(super) enum Source<'a> {
    Git(&'a str),
    /// A claim, and the directory on it.
    Volume(&'a str, &'a str),
}

/// What the documents are made from.
pub(super) struct Wanted<'a> {
    pub(super) image: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) flags: Vec<String>,
    pub(super) tag: Option<&'a str>,
    pub(super) registry_secret: Option<&'a str>,
    pub(super) cache: Cache,
    pub(super) cache_secret: String,
    pub(super) run_as: RunAs,
    pub(super) fuse: Option<&'a str>,
    pub(super) cpu: &'a str,
    pub(super) memory: &'a str,
    pub(super) scratch: &'a str,
    pub(super) volume: &'a str,
    pub(super) max_size: &'a str,
}

impl Wanted<'_> {
    /// `metadata` of an object of this name.
    pub(super) fn metadata(&self, name: &str) -> String {
        let namespace = self.namespace.map(|n| format!("  namespace: {n}\n")).unwrap_or_default();
        format!("metadata:\n  name: {name}\n{namespace}  labels:\n    app.kubernetes.io/name: {name}\n")
    }
}

/// A DNS label (RFC 1123), short enough for what is added to it.
fn name(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=50).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-');
    match good {
        true => Ok(text.to_owned()),
        false => Err("expected at most 50 of a-z, 0-9 and -, beginning with a letter and not ending with -".into()),
    }
}

/// A quantity of Kubernetes: digits, perhaps with a fraction, and a suffix.
fn quantity(text: &str) -> Result<String, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let known = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix);
    match known && number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok_and(|n| n > 0.0) {
        true => Ok(text.to_owned()),
        false => Err("expected a quantity like 2, 500m, 4Gi".into()),
    }
}

/// Read here as the server will read it.
fn size_text(text: &str) -> Result<String, String> {
    values::size(text).map(|_| text.to_owned())
}

pub(crate) fn run(args: &K8sArgs) -> CliResult {
    let source = match (&args.git, &args.pvc) {
        (Some(url), _) => Some(Source::Git(url)),
        (None, Some(claim)) => {
            let (claim, directory) = claim.split_once(':').unwrap_or((claim, ""));
            name(claim).map_err(|why| Failure::usage(format!("--pvc {claim}: {why}")))?;
            if directory.split('/').any(|part| part == "..") || directory.starts_with('/') {
                return Err(Failure::usage(format!("--pvc: {directory:?} does not lie on the volume")));
            }
            Some(Source::Volume(claim, directory))
        }
        (None, None) => None,
    };
    if source.is_none() && !args.server {
        return Err(Failure::usage("there is nothing to build: neither --git nor --pvc is given")
            .with_hint("--server alone writes the server's manifests"));
    }
    if args.cache == Cache::Registry && args.tag.is_none() {
        return Err(Failure::usage("--cache registry needs --tag: the cache lies beside the image"));
    }
    let wanted = Wanted {
        image: &args.image,
        name: &args.name,
        namespace: args.namespace.as_deref(),
        flags: args.common.flags(),
        tag: args.tag.as_deref(),
        registry_secret: args.registry_secret.as_deref(),
        cache: args.cache,
        cache_secret: args.cache_secret.clone().unwrap_or_else(|| format!("{}-cache", args.name)),
        run_as: args.run_as,
        fuse: args.fuse.as_deref(),
        cpu: &args.cpu,
        memory: &args.memory,
        scratch: &args.scratch,
        volume: &args.volume,
        max_size: &args.max_size,
    };
    let mut documents = Vec::new();
    if args.server {
        documents.push(k8s_server::documents(&wanted, &k8s_server::Token::new()?));
    }
    if let Some(source) = source {
        documents.push(k8s_job::document(&wanted, &source, args.server));
    }
    let path = output(Some(&args.output), "-");
    write(&path, &documents.join("---\n"), args.common.force, args.server)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_quantities() {
        for good in ["a", "memobuild", "a-1"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "1a", "a_b", "a.b", "a/b", &"a".repeat(51)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for good in ["2", "500m", "1.5Gi", "100G"] {
            assert!(quantity(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "-1", "1 Gi", "Gi", "1GB", "1.2.3", ".5"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }
}
