//! Plans for the commands that only look: `check` and `graph`. Nothing is built; registries are asked only with
//! `--pull`; and a base image that can't be had is no failure: the plan is then made as if it were bare.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use clap::Args;
use memobuild_dockerfile::{
    Dockerfile,
    ignore::{IgnoreMatcher, read_patterns},
    lint::Rule,
};
use memobuild_engine::{BuildRequest, ContextInput, DockerfileInput};
use memobuild_image::{ImageConfig, Platform};
use memobuild_observe::FailureKind;
use memobuild_oci::{
    image::{ImageSource, StoredImage, open},
    reference::Reference,
    registry::{Registries, RegistryOptions},
};
use memobuild_plan::{
    Hooks, PlanError, PlanErrorKind, Planned,
    model::{BaseRequest, BaseResolver, ContextSource, Options, ResolvedBase},
};
use memobuild_store::Store;

use super::{Failure, config, env, source, text, values};

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What `check` and `graph` look at: a part of `build`'s arguments.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Directory that holds the Dockerfile; - for a Dockerfile on standard input
    #[arg(value_name = "CONTEXT", default_value = ".", value_parser = values::context_input)]
    pub(crate) context: ContextInput,

    #[command(flatten)]
    pub(crate) flags: PlanFlags,

    /// Ask registries for the configs of base images that are not here
    #[arg(long)]
    pub(crate) pull: bool,
}

/// What shapes a plan.
#[derive(Debug, Args)]
pub(crate) struct PlanFlags {
    /// The Dockerfile, relative to the current directory; - for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,

    /// Target stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Platforms, like linux/arm64
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<Platform>,

    /// Value of an ARG; without =VALUE, what the environment has under that name
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = values::build_arg)]
    pub(crate) build_args: Vec<(String, Option<String>)>,

    /// Named context: a directory, docker-image://REF, oci-layout://PATH[:TAG], target:STAGE or a URL
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = values::build_context)]
    pub(crate) build_contexts: Vec<(String, ContextSource)>,
}

impl PlanArgs {
    pub(crate) fn dockerfile(&self) -> Result<Dockerfile, Failure> {
        source::read(&self.context, &self.flags.dockerfile())
    }

    pub(crate) fn options(&self) -> Result<Options, Failure> {
        self.flags.options()
    }
}

impl PlanFlags {
    pub(crate) fn dockerfile(&self) -> DockerfileInput {
        match &self.file {
            None => DockerfileInput::InContext,
            Some(path) if path.as_os_str() == "-" => DockerfileInput::Stdin,
            Some(path) => DockerfileInput::Path(path.clone()),
        }
    }

    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut build_args: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.build_args {
            match value {
                Some(value) => build_args.insert(name.clone(), value.clone()),
                // `--build-arg NAME` without a value anywhere leaves the ARG's default in force.
                None => build_args.remove(name),
            };
        }
        if let Some(epoch) = env::source_date_epoch() {
            build_args.entry(EPOCH.to_owned()).or_insert(epoch);
        }
        let epoch = build_args.get(EPOCH).filter(|text| !text.is_empty());
        let seconds = |text: &String| {
            let why = |_| Failure::usage(format!("{EPOCH}={text}: expected a number of seconds since 1970"));
            text.parse::<i64>().map_err(why)
        };
        let source_date_epoch = epoch.map(seconds).transpose()?;
        let mut seen = BTreeSet::new();
        let mut platforms = self.platforms.clone();
        platforms.retain(|p| seen.insert(p.to_string()));
        Ok(Options {
            target: self.target.clone().filter(|t| !t.is_empty()),
            platforms,
            build_args,
            contexts: self.build_contexts.iter().cloned().collect(),
            source_date_epoch,
            ..Options::default()
        })
    }

    /// The build that these flags would start.
    pub(crate) fn request(&self, context: &ContextInput) -> Result<BuildRequest, Failure> {
        let options = self.options()?;
        Ok(BuildRequest {
            context: context.clone(),
            dockerfile: self.dockerfile(),
            options,
            registries: config::registries()?,
            ..BuildRequest::default()
        })
    }
}

/// A plan and the base images of which nothing is known.
pub(crate) struct Looked {
    pub(crate) planned: Planned,
    pub(crate) unknown: Vec<String>,
}

/// How far a look goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// Stages that the target does not need are looked at too.
    pub(crate) all_stages: bool,
    /// Registries are asked for what is not here.
    pub(crate) pull: bool,
}

/// Plans a file.
pub(crate) fn plan(
    file: &Dockerfile,
    options: &Options,
    context: &ContextInput,
    scope: Scope,
) -> Result<Looked, Failure> {
    let matcher = match context {
        ContextInput::Directory(dir) => ignore_file(dir)?,
        _ => None,
    };
    let ignored = matcher.as_ref().map(|m| |path: &str| m.matches(path.as_bytes()));
    let hooks = Hooks { ignored: ignored.as_ref().map(|f| f as &dyn Fn(&str) -> bool), all_stages: scope.all_stages };
    let bases = Bases { pull: scope.pull, ..Bases::default() };
    let mut planned = memobuild_plan::plan(file, options, &bases, hooks).map_err(|e| failure(&e))?;
    let unknown = bases.unknown.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !unknown.is_empty() {
        // Variables may come from the base image.
        planned.findings.retain(|f| f.rule != Rule::UndefinedVar);
    }
    Ok(Looked { planned, unknown })
}

/// Why no plan could be made, with the place.
pub(crate) fn failure(error: &PlanError) -> Failure {
    let kind = match error.kind {
        PlanErrorKind::Dockerfile | PlanErrorKind::Checks => FailureKind::Dockerfile,
        PlanErrorKind::BaseImage => FailureKind::Registry,
        PlanErrorKind::Request | PlanErrorKind::Denied => FailureKind::Usage,
    };
    let all: Vec<String> = error.diagnostics.iter().map(|d| d.render(text::stderr_colour())).collect();
    Failure::rendered(kind, all.join("\n\n"))
}

/// The context's ignore file, if it can be judged path by path: one with exceptions can't.
fn ignore_file(dir: &Path) -> Result<Option<IgnoreMatcher>, Failure> {
    let Ok(text) = std::fs::read(dir.join(".dockerignore")) else { return Ok(None) };
    let matcher = IgnoreMatcher::new(&read_patterns(&text))
        .map_err(|e| Failure::new(FailureKind::Dockerfile, format!(".dockerignore: {e}")))?;
    Ok(Some(matcher).filter(|m| !m.has_exceptions() && !m.is_empty()))
}

/// Finds base images in layouts, in the store and perhaps in registries; those that it does not find count as bare.
#[derive(Default)]
struct Bases {
    pull: bool,
    store: Mutex<Option<Store>>,
    unknown: Mutex<Vec<String>>,
}

impl Bases {
    fn store(&self) -> Option<Store> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.is_none() {
            *store = env::open_store().ok();
        }
        store.clone()
    }

    fn config(&self, request: &BaseRequest) -> Option<(String, ImageConfig)> {
        let store = self.store()?;
        let named = |name: &str| {
            let reference: Reference = name.parse().ok()?;
            let stored = StoredImage::by_tag(&store, &reference).ok()?.is_some();
            match (stored, self.pull) {
                (true, _) => Some(ImageSource::Stored(reference)),
                (false, true) => Some(ImageSource::Registry(reference)),
                (false, false) => None,
            }
        };
        let source = match &request.context {
            None => named(&request.name)?,
            Some(ContextSource::Image(name)) => named(name)?,
            Some(ContextSource::OciLayout(path)) => ImageSource::layout(path),
            Some(_) => return None,
        };
        let registries = Registries::new(RegistryOptions::default());
        let image = open(&source, &request.platform, &store, &registries).ok()?;
        Some((image.manifest.to_string(), image.config))
    }
}

impl BaseResolver for Bases {
    fn resolve(&self, requests: &[BaseRequest]) -> Vec<Result<ResolvedBase, String>> {
        let one = |request: &BaseRequest| {
            let (digest, config) = self.config(request).unwrap_or_else(|| {
                self.unknown.lock().unwrap_or_else(PoisonError::into_inner).push(request.name.clone());
                let bare = ImageConfig { platform: request.platform.clone(), ..ImageConfig::default() };
                (String::new(), bare)
            });
            Ok(ResolvedBase { handle: 0, digest, config })
        };
        requests.iter().map(one).collect()
    }
}
