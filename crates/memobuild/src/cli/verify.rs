//! `memobuild verify`: builds an image again, from nothing, and compares.

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use memobuild_engine::{Cancel, Destination, Output, OutputKind};
use memobuild_image::{Platform, time};
use memobuild_observe::{FailureKind, Observer};
use memobuild_oci::{
    image::{self as images, BaseImage, ImageSource},
    reference::Reference,
};
use memobuild_store::Store;
use memobuild_tree::{Dir, Meta, Node, Tree, path::display};

use super::{
    CliResult, Failure,
    build::{self, BuildArgs, request},
    env, image, signals, text,
};
use crate::{
    logging,
    progress::{Progress, ProgressMode},
};

/// Build an image again, from nothing, and compare: says what differs first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Image to compare with: a name in memobuild's store or on a registry, or oci-layout://PATH[:TAG]
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Compare everything but the times of files
    #[arg(long)]
    ignore_times: bool,

    #[command(flatten)]
    build: BuildArgs,
}

const EXAMPLES: &str = "\
Examples:
  Is this what its sources make?
    memobuild build --reproducible -t registry.example/app:1 --push .
    memobuild verify registry.example/app:1 .
  An archive, with the arguments that it was built with:
    memobuild verify oci-layout://app.tar --build-arg VERSION=2 .

The image is built with --reproducible, its own time as SOURCE_DATE_EPOCH, and an empty cache. Exit code 0: every byte is
the same; 1: something differs.";

pub(crate) fn run(args: VerifyArgs) -> CliResult {
    let VerifyArgs { image, ignore_times, build } = args;
    let store = env::open_store()?;
    let _leaving = env::Leaving(&store);
    let _lease = store.lease()?;
    let platform = build.plan.platforms.first().cloned().unwrap_or_default();
    let given = open(&store, &image, &platform)?;
    let mode = if build.quiet { ProgressMode::Quiet } else { build.progress };
    let scratch = store.scratch_dir()?;
    let layout = scratch.path().join("rebuilt");
    let fresh = Store::open(&scratch.path().join("cache"))?;
    rebuild(&fresh, build, &given, &layout, mode)?;
    let source = ImageSource::layout(&layout.display().to_string());
    let rebuilt = images::open(&source, &platform, &fresh, &image::registries()?).map_err(image::failure)?;
    match difference(&given, &rebuilt, ignore_times)? {
        None => {
            text::to_stdout(&format!("{image} is what its sources make: {}\n", given.manifest))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(found) => {
            text::to_stdout(&format!("{image} differs from what its sources make:\n  {}\n", found.join("\n  ")))?;
            Ok(ExitCode::from(FailureKind::Step.exit_code()))
        }
    }
}

/// The image in question: in the store, in a file, or on a registry.
fn open(store: &Store, name: &str, platform: &Platform) -> Result<Given, Failure> {
    let registries = image::registries()?;
    if let Some(path) = name.strip_prefix("oci-layout://") {
        let found = images::open(&ImageSource::layout(path), platform, store, &registries).map_err(image::failure)?;
        return Ok(Given::Elsewhere(Box::new(found)));
    }
    if let Ok(named) = image::find(store, name) {
        return Ok(Given::Stored(image::opened(store, &named, &registries)?));
    }
    let reference: Reference = name.parse().map_err(|e| Failure::usage(format!("{e}")))?;
    let source = ImageSource::Registry(reference.with_default_tag());
    let found = images::open(&source, platform, store, &registries).map_err(image::failure)?;
    Ok(Given::Elsewhere(Box::new(found)))
}

/// The image to compare with.
enum Given {
    Stored(image::Opened),
    Elsewhere(Box<BaseImage>),
}

impl std::ops::Deref for Given {
    type Target = BaseImage;

    fn deref(&self) -> &BaseImage {
        match self {
            Self::Stored(opened) => opened,
            Self::Elsewhere(image) => image,
        }
    }
}

/// Builds it again into a layout.
fn rebuild(
    fresh: &Store,
    args: BuildArgs,
    given: &BaseImage,
    layout: &std::path::Path,
    mode: ProgressMode,
) -> Result<(), Failure> {
    let mut request = request::from_args(args)?;
    let output = request.outputs.first().cloned().unwrap_or_else(|| Output::new(OutputKind::Oci));
    let dest = Some(Destination::Path(layout.to_path_buf()));
    request.outputs =
        vec![Output { kind: OutputKind::Oci, dest, push: false, tar: Some(false), names: vec![], ..output }];
    (request.tags, request.reproducible) = (Vec::new(), true);
    (request.cache_from, request.cache_to, request.remote) = (Vec::new(), Vec::new(), None);
    let created = given.config.created.as_deref().and_then(time::parse_rfc3339);
    let epoch = &mut request.options.source_date_epoch;
    *epoch = epoch.or(created.map(|(secs, _)| secs));
    let cancel = Cancel::default();
    let interrupt = signals::cancel_on_signal(&cancel);
    let progress = Arc::new(Progress::start(mode));
    let observer = logging::beside(Arc::clone(&progress) as Arc<dyn Observer>, &build::name(&request));
    let result = memobuild_engine::build(fresh, &request, &observer, &cancel);
    progress.finish();
    match (result, interrupt.signal()) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(signal)) => Err(Failure::interrupted(signal)),
        (Err(error), None) => Err(Failure::from(error)),
    }
}

/// What differs, from the outside in; none: nothing.
fn difference(given: &BaseImage, rebuilt: &BaseImage, ignore_times: bool) -> Result<Option<Vec<String>>, Failure> {
    if given.config_bytes == rebuilt.config_bytes {
        return Ok(None);
    }
    let mut out = layers(given, rebuilt, ignore_times)?;
    out.extend(fields(given, rebuilt, ignore_times)?);
    Ok(Some(out).filter(|out| !out.is_empty()))
}

/// The first layer that differs, and the first file that differs by then.
fn layers(given: &BaseImage, rebuilt: &BaseImage, ignore_times: bool) -> Result<Vec<String>, Failure> {
    let count = given.layers.len().max(rebuilt.layers.len());
    let named = |layer: usize| {
        let by = history(given, layer).or_else(|| history(rebuilt, layer)).unwrap_or_default();
        format!("layer {} of {count} differs: {by}", layer + 1)
    };
    let grown = |image: &BaseImage, tree: Tree, layer: usize| match layer < image.layers.len() {
        true => image.with_layer(&tree, layer, &|_, _| {}).map_err(image::failure),
        false => Ok(tree),
    };
    let id = |image: &BaseImage, layer: usize| image.layers.get(layer).map(|layer| layer.diff_id);
    for image in [given, rebuilt] {
        image.fetch_unknown(&|_, _| {}).map_err(image::failure)?;
    }
    let (mut old, mut new) = (Tree::default(), Tree::default());
    let mut unequal = None;
    for layer in 0..count {
        (old, new) = (grown(given, old, layer)?, grown(rebuilt, new, layer)?);
        if id(given, layer) == id(rebuilt, layer) {
            continue;
        }
        if let Some(found) = first(&old, &new, ignore_times) {
            return Ok(vec![named(layer), found]);
        }
        unequal.get_or_insert(layer);
    }
    let apart = "the files are the same; they are in other layers, or in another order".to_owned();
    Ok(unequal.filter(|_| !ignore_times).map(|layer| vec![named(layer), apart]).unwrap_or_default())
}

/// The instruction that made a layer.
fn history(image: &BaseImage, layer: usize) -> Option<String> {
    let entry = image.config.history.iter().filter(|entry| !entry.empty_layer).nth(layer)?;
    Some(entry.created_by.clone())
}

/// Fields of the config that differ, the list of layers aside.
fn fields(given: &BaseImage, rebuilt: &BaseImage, ignore_times: bool) -> Result<Vec<String>, Failure> {
    let parse = |bytes: &[u8]| -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).map_err(|e| Failure::caused(FailureKind::Cache, &e))?;
        if ignore_times {
            config.remove("created");
            let entries = config.get_mut("history").and_then(|history| history.as_array_mut());
            entries.into_iter().flatten().filter_map(|entry| entry.as_object_mut()).for_each(|entry| {
                // In their order, as they will be shown.
                entry.retain(|field, _| field != "created");
            });
        }
        Ok(config)
    };
    let (old, new) = (parse(&given.config_bytes)?, parse(&rebuilt.config_bytes)?);
    let mut names: Vec<&String> = old.keys().chain(new.keys()).filter(|name| *name != "rootfs").collect();
    names.sort();
    names.dedup();
    let show =
        |value: Option<&serde_json::Value>| value.map_or("not there".into(), |v| super::cut(&v.to_string(), 200));
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    Ok(differs.map(|name| format!("config {name}: {}, rebuilt {}", show(old.get(name)), show(new.get(name)))).collect())
}

/// The first path, in order, at which two trees differ, and how.
fn first(given: &Tree, rebuilt: &Tree, ignore_times: bool) -> Option<String> {
    in_dir(given.root(), rebuilt.root(), &mut Vec::new(), ignore_times)
}

fn in_dir(old: &Dir, new: &Dir, at: &mut Vec<u8>, ignore_times: bool) -> Option<String> {
    let mut names: Vec<&[u8]> = old.entries().keys().chain(new.entries().keys()).map(|name| &**name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let length = at.len();
        at.push(b'/');
        at.extend_from_slice(name);
        let found = match (old.get(name), new.get(name)) {
            (Some(a), Some(b)) => node(a, b, ignore_times)
                .map(|what| format!("{}: {what}", display(at)))
                .or_else(|| in_dir(a.as_dir()?, b.as_dir()?, at, ignore_times)),
            (Some(_), None) => Some(format!("{}: the rebuilt image does not have it", display(at))),
            (None, _) => Some(format!("{}: only the rebuilt image has it", display(at))),
        };
        at.truncate(length);
        if found.is_some() {
            return found;
        }
    }
    None
}

fn node(old: &Node, new: &Node, ignore_times: bool) -> Option<String> {
    let differ = |what: &str, a: String, b: String| Some(format!("{what} {a}, rebuilt {b}"));
    if old.kind() != new.kind() {
        return differ("kind", format!("{:?}", old.kind()), format!("{:?}", new.kind()));
    }
    match (old, new) {
        (Node::File(a), Node::File(b)) if a.content != b.content => {
            return differ("content of", format!("{} bytes", a.size), format!("{} bytes", b.size));
        }
        (Node::Symlink(a), Node::Symlink(b)) if a.target != b.target => {
            return differ("target", display(&a.target), display(&b.target));
        }
        (Node::Special(a), Node::Special(b)) if a.rdev != b.rdev => {
            return differ("device", format!("{:?}", a.rdev), format!("{:?}", b.rdev));
        }
        _ => {}
    }
    let (Meta { mode, uid, gid, xattrs, mtime }, other) = (old.meta(), new.meta());
    if *mode != other.mode {
        return differ("mode", format!("{mode:o}"), format!("{:o}", other.mode));
    }
    if (*uid, *gid) != (other.uid, other.gid) {
        return differ("owner", format!("{uid}:{gid}"), format!("{}:{}", other.uid, other.gid));
    }
    if *xattrs != other.xattrs {
        return Some("extended attributes differ".into());
    }
    if mtime.secs != other.mtime.secs && !ignore_times {
        return differ("time", time::rfc3339(mtime.secs, 0), time::rfc3339(other.mtime.secs, 0));
    }
    None
}
