//! `memobuild load`, and what `build --load` does with an image that was built.

use std::{process::ExitCode, sync::Arc};

use clap::{Args, ValueEnum};
use memobuild_engine::Kept;
use memobuild_observe::FailureKind;
use memobuild_oci::{
    image::BaseImage,
    reference::Reference,
    runtime::{LoadImage, Loaded, Runtime, RuntimeError, RuntimeKind, process_vars},
};
use memobuild_store::Store;

use super::{
    CliResult, Failure, image,
    progress_of::{ProgressArgs, Told},
    text,
};
use crate::progress::{Progress, ProgressMode};

/// Give images of memobuild's store to docker, podman or containerd on this machine
///
/// Layers that are there already are not sent, and not fetched from their registry either.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoadArgs {
    /// Names or IDs of images in memobuild's store
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Which one gets them [default: the first that answers, in this order]
    #[arg(long, value_enum, value_name = "RUNTIME")]
    to: Option<RuntimeArg>,

    /// Namespace of containerd, like k8s.io; means --to containerd [default: CONTAINERD_NAMESPACE, else default]
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,

    #[command(flatten)]
    shown: ProgressArgs,
}

const EXAMPLES: &str = "\
Examples:
  To docker, or what is there instead of it:
    memobuild load app
  To containerd, for Kubernetes on this machine:
    memobuild load app --to containerd --namespace k8s.io

docker is found by DOCKER_HOST, the current docker context, or its usual sockets; podman by
CONTAINER_HOST, its usual sockets, or as a program; containerd through ctr or nerdctl.";

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeArg {
    /// Docker's daemon
    Docker,
    /// Podman's service, else its program
    Podman,
    /// containerd, by ctr or nerdctl
    Containerd,
}

impl From<RuntimeArg> for RuntimeKind {
    fn from(arg: RuntimeArg) -> Self {
        match arg {
            RuntimeArg::Docker => Self::Docker,
            RuntimeArg::Podman => Self::Podman,
            RuntimeArg::Containerd => Self::Containerd,
        }
    }
}

/// What containerd takes as an identifier.
fn namespace(text: &str) -> Result<String, String> {
    let whole = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    match whole && text.len() <= 76 && ends(text.chars().next()) && ends(text.chars().last()) {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits, and single . _ - between them".into()),
    }
}

pub(crate) fn run(args: &LoadArgs) -> CliResult {
    let to = match (args.to, &args.namespace) {
        (Some(RuntimeArg::Docker | RuntimeArg::Podman), Some(_)) => {
            return Err(Failure::usage("--namespace goes with --to containerd"));
        }
        (None, Some(_)) => Some(RuntimeArg::Containerd),
        (to, _) => to,
    };
    let first = args.images.first().map_or("", String::as_str);
    let store = image::store_with(first)?;
    let named: Vec<image::Named> =
        args.images.iter().map(|name| image::find(&store, name)).collect::<Result<_, _>>()?;
    // What is being read must not be collected meanwhile.
    let _lease = store.lease()?;
    let runtime = runtime(to.map(RuntimeKind::from), args.namespace.as_deref())?;
    let registries = image::registries()?;
    for named in named {
        let opened = image::opened(&store, &named, &registries)?;
        let names = vec![named.name.clone().with_default_tag()];
        let loaded = give(&store, &runtime, &opened, names.clone(), args.shown.mode())?;
        match args.shown.quiet {
            true => text::to_stdout(&format!("{}\n", loaded.id))?,
            false => text::to_stdout(&said(&names, &runtime, &loaded))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The runtime that is meant, or the first that answers.
pub(crate) fn runtime(kind: Option<RuntimeKind>, namespace: Option<&str>) -> Result<Runtime, Failure> {
    Runtime::find(kind, namespace, &process_vars).map_err(failure)
}

/// Gives an image that was just built to a runtime; a line that says what was sent.
pub(crate) fn built(store: &Store, runtime: &Runtime, kept: &Kept, mode: ProgressMode) -> Result<String, Failure> {
    let Kept { image, names } = kept;
    let shown = names.first().map_or_else(|| image::short(&image.config.digest), Reference::familiar);
    let opened = image::opened_as(store, image, &shown, &image::registries()?)?;
    let loaded = give(store, runtime, &opened, names.clone(), mode)?;
    Ok(said(names, runtime, &loaded))
}

fn give(
    store: &Store,
    runtime: &Runtime,
    image: &BaseImage,
    names: Vec<Reference>,
    mode: ProgressMode,
) -> Result<Loaded, Failure> {
    let progress = Arc::new(Progress::start(mode));
    let told = Told::new(&progress, format!("loading {} into {}", image.name(), runtime.describe()));
    let loaded = runtime.load(&LoadImage { store, image, names }, &|done, total| told.tell(done, total));
    progress.finish();
    loaded.map_err(failure)
}

fn said(names: &[Reference], runtime: &Runtime, loaded: &Loaded) -> String {
    let Loaded { id, sent, layers_sent, layers_present } = loaded;
    let what = match names {
        [] => image::short(id),
        names => names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", "),
    };
    let layers = |n: &usize| if *n == 1 { "1 layer".to_owned() } else { format!("{n} layers") };
    let how = match *sent {
        0 => "it was there already".to_owned(),
        sent => format!("{} sent ({}), {layers_present} already there", layers(layers_sent), text::bytes(sent)),
    };
    format!("{what} loaded into {}: {how}\n", runtime.describe())
}

/// An error of a runtime, with its hint.
fn failure(error: RuntimeError) -> Failure {
    let error = match error {
        RuntimeError::Image(error) => return image::failure(error),
        error => error,
    };
    let kind = match &error {
        RuntimeError::Address { .. } | RuntimeError::Context { .. } => FailureKind::Usage,
        error if error.is_runtimes() => FailureKind::Registry,
        _ => FailureKind::Cache,
    };
    let failure = Failure::caused(kind, &error);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_containerds_identifiers() {
        for good in ["default", "k8s.io", "a-b_c"] {
            assert_eq!(namespace(good), Ok(good.to_owned()));
        }
        for bad in ["", "-x", "a/b", "a b", "x.", &"x".repeat(77)] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
