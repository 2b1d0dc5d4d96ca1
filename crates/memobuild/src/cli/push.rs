//! `memobuild push`.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use clap::Args;
use memobuild_engine::{Output, OutputKind};
use memobuild_image::Descriptor;
use memobuild_oci::{
    output::{Early, Push, Report},
    reference::Reference,
};

use super::{
    CliResult, Failure, config, export, image,
    progress_of::{ProgressArgs, Told},
    text, values,
};
use crate::progress::Progress;

/// Push an image of memobuild's store to a registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PushArgs {
    /// Name or ID of an image in memobuild's store
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Names to push it under [default: its own; with MEMOBUILD_REGISTRY and MEMOBUILD_REPO that repository]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// How layers are compressed, as --output of `build` says it: compression=zstd,compression-level=9
    #[arg(long, value_name = "OPTIONS", value_parser = options)]
    options: Option<Output>,

    #[command(flatten)]
    shown: ProgressArgs,
}

const EXAMPLES: &str = "\
Examples:
  To the registry that its name names:
    memobuild push registry.example/team/app:1
  Under other names:
    memobuild push app registry.example/team/app:1 registry.example/team/app:latest

Credentials are those of `docker login`.";

fn options(text: &str) -> Result<Output, String> {
    values::output(&format!("type=image,{text}"))
}

pub(crate) fn run(args: &PushArgs) -> CliResult {
    let store = image::store_with(&args.image)?;
    let named = image::find(&store, &args.image)?;
    // What is being read must not be collected meanwhile.
    let _lease = store.lease()?;
    let names = names(args, &named)?;
    let registries = image::registries()?;
    let base = image::opened(&store, &named, &registries)?;
    let output = args.options.clone().unwrap_or_else(|| Output::new(OutputKind::Image));
    let output = Output { push: true, ..output };
    let progress = Arc::new(Progress::start(args.shown.mode()));
    let what = names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ");
    let told = Told::new(&progress, format!("pushing {what}"));
    let early = Early::start(&registries, &store, &names);
    let made = export::assemble(&store, &named, &base, &BTreeMap::new(), Some(&output), &|blob| early.offer(blob));
    let manifest = made.inspect_err(|_| progress.finish())?;
    let push = Push {
        store: &store,
        registries: &registries,
        root: &manifest,
        bases: vec![&base],
        recipes: BTreeMap::new(),
        referrers: vec![],
    };
    let report = push.to(&names, &|done, total| told.tell(done, total));
    let before = early.finish();
    progress.finish();
    let mut report = report.map_err(export::output_failure)?;
    (report.sent, report.present) = (report.sent + before, report.present.saturating_sub(before));
    match args.shown.quiet {
        true => text::to_stdout(&format!("{}\n", manifest.digest))?,
        false => text::to_stdout(&pushed(&names, &manifest, &report))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn pushed(names: &[Reference], manifest: &Descriptor, report: &Report) -> String {
    let mut out = String::new();
    for name in names {
        out.push_str(&format!("{}@{}\n", name.familiar(), manifest.digest));
    }
    let Report { sent, mounted, present, .. } = report;
    out.push_str(&format!(
        "{sent} blobs sent, {mounted} taken over from other repositories, {present} already there\n"
    ));
    out
}

/// Where it goes: under the names given, else its own.
fn names(args: &PushArgs, named: &image::Named) -> Result<Vec<Reference>, Failure> {
    if args.names.is_empty() {
        let own = named.name.clone().with_default_tag();
        return Ok(match config::default_repository()? {
            Some(place) => vec![Reference { tag: own.tag, ..place }],
            None => vec![own],
        });
    }
    let parse = |name: &String| -> Result<Reference, Failure> {
        let name: Reference = name.parse().map_err(|e| Failure::usage(format!("{e}")))?;
        match name.digest {
            Some(_) => Err(Failure::usage(format!("{name}: a name to push under can't hold a digest"))),
            None => Ok(name.with_default_tag()),
        }
    };
    args.names.iter().map(parse).collect()
}
