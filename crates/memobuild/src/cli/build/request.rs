//! Arguments to a [`BuildRequest`]. Checks what clap can't: how arguments go together.

use memobuild_engine::{Attestations, BuildRequest, ContextInput, DockerfileInput, Output, OutputKind, SandboxChoice};
use memobuild_oci::reference::Reference;
use memobuild_plan::model::Options;

use super::args::{BuildArgs, Entitlement};
use crate::cli::{Failure, config, values::Attest};

pub(crate) fn from_args(args: BuildArgs) -> Result<BuildRequest, Failure> {
    let dockerfile = dockerfile(&args)?;
    let options = options(&args)?;
    for tag in &args.tags {
        let reference: Reference = tag.parse().map_err(|e| Failure::usage(format!("--tag: {e}")))?;
        if reference.digest.is_some() {
            return Err(Failure::usage(format!("--tag {tag}: a name to be given can't hold a digest")));
        }
    }
    let load = loads(&args);
    let mut outputs = args.outputs;
    // What is loaded is taken from memobuild's store.
    outputs.iter_mut().filter(|o| is_for_docker(o)).for_each(|o| o.kind = OutputKind::Image);
    if load && !outputs.iter().any(|o| o.kind == OutputKind::Image) {
        outputs.push(Output::new(OutputKind::Image));
    }
    if load && options.platforms.len() > 1 {
        return Err(Failure::usage("a container runtime takes one platform at a time")
            .with_hint("give one --platform, or use --output type=oci"));
    }
    if args.push {
        // As buildx has it: an image that is asked for anyway is the one that is pushed.
        let mut images = outputs.iter_mut().filter(|o| o.kind == OutputKind::Image).peekable();
        match images.peek() {
            Some(_) => images.for_each(|o| o.push = true),
            None => outputs.push(Output { push: true, ..Output::new(OutputKind::Image) }),
        }
    }
    let nameless = outputs.iter_mut().filter(|o| o.push && o.names.is_empty() && args.tags.is_empty());
    let place = config::default_repository()?;
    for output in nameless {
        if let Some(place) = &place {
            output.names.push(place.to_string());
            continue;
        }
        return Err(Failure::usage("there is no name to push under")
            .with_hint("give one: -t REGISTRY/NAME:TAG, or set MEMOBUILD_REGISTRY and MEMOBUILD_REPO"));
    }
    let mut attestations = Attestations::default();
    for attest in args.attest.into_iter().chain(args.provenance).chain(args.sbom) {
        match attest {
            Attest::Provenance(wanted) => attestations.provenance = wanted,
            Attest::Sbom(wanted) => attestations.sbom = wanted,
        }
    }
    #[cfg(feature = "sign")]
    let sign = match &args.sign {
        Some(_) if !outputs.iter().any(|o| o.push) => {
            return Err(Failure::usage("--sign goes with --push: signatures are kept in the registry"));
        }
        key => key.as_deref().map(crate::cli::sign::private_key).transpose()?.map(std::sync::Arc::new),
    };
    Ok(BuildRequest {
        context: args.context,
        dockerfile,
        options,
        secrets: args.secrets.into_iter().collect(),
        ssh: args.ssh.into_iter().collect(),
        tags: args.tags,
        outputs,
        annotations: args.annotations.into_iter().flatten().collect(),
        attestations,
        #[cfg(feature = "sign")]
        sign,
        sandbox: SandboxChoice::from(args.sandbox),
        pull: args.pull,
        reproducible: args.reproducible,
        trace: !args.no_trace,
        max_age: args.max_age,
        parallelism: None,
        registries: config::registries()?,
        cache_from: args.cache_from,
        cache_to: args.cache_to,
        remote: config::remote(args.remote.as_deref())?,
    })
}

/// Whether the image is to be given to a container runtime: `--load`, or `type=docker` without a destination, which
/// means the same to buildx.
pub(crate) fn loads(args: &BuildArgs) -> bool {
    args.load || args.outputs.iter().any(is_for_docker)
}

fn is_for_docker(output: &Output) -> bool {
    output.kind == OutputKind::Docker && output.dest.is_none()
}

/// Where the Dockerfile is. An archive on standard input holds its own, `-f` then names a path in it.
pub(crate) fn dockerfile(args: &BuildArgs) -> Result<DockerfileInput, Failure> {
    match args.plan.dockerfile() {
        DockerfileInput::Stdin if args.context == ContextInput::Stdin => {
            Err(Failure::usage("both the context and the Dockerfile would be read from standard input"))
        }
        dockerfile => Ok(dockerfile),
    }
}

/// What shapes the plan.
pub(crate) fn options(args: &BuildArgs) -> Result<Options, Failure> {
    Ok(Options {
        labels: args.labels.iter().cloned().collect(),
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        network: args.network.into(),
        hosts: args.add_hosts.clone(),
        shm_size: args.shm_size,
        ulimits: args.ulimits.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        allow_insecure: args.allow.contains(&Entitlement::SecurityInsecure),
        ..args.plan.options()?
    })
}
