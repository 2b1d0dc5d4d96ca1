//! `memobuild images`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;
use memobuild_oci::{image::StoredImage, reference::Reference};
use memobuild_store::Store;
use serde_json::json;

use super::{CliResult, Failure, env, image, text};

/// List the images in memobuild's store
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Show only images whose name contains this
    #[arg(value_name = "TEXT")]
    filter: Option<String>,

    /// Print IDs only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Take these names away; what no name holds goes with the next prune
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["filter", "quiet", "json"])]
    remove: Vec<String>,
}

pub(crate) fn run(args: &ImagesArgs) -> CliResult {
    let store = env::existing_store()?;
    if let (Some(store), false) = (&store, args.remove.is_empty()) {
        return remove(store, &args.remove);
    }
    let mut all = match &store {
        Some(store) => StoredImage::all(store).map_err(image::failure)?,
        None => Vec::new(),
    };
    if let Some(filter) = &args.filter {
        all.retain(|(name, _)| name.familiar().contains(filter.as_str()) || name.to_string().contains(filter.as_str()));
    }
    all.sort_by(|(a, x), (b, y)| y.created_secs.cmp(&x.created_secs).then_with(|| a.cmp(b)));
    let shown = match &store {
        Some(store) if args.json => as_json(store, &all)?,
        Some(store) if !args.quiet => as_table(store, &all, args.no_trunc)?,
        Some(_) => ids(&all, args.no_trunc),
        None if args.json => "[]\n".to_owned(),
        None if args.quiet => String::new(),
        None => text::table(&[head()]),
    };
    text::to_stdout(&shown)?;
    Ok(ExitCode::SUCCESS)
}

fn head() -> [String; 5] {
    ["NAME", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned)
}

fn id(image: &StoredImage, whole: bool) -> String {
    if whole { image.config.digest.to_string() } else { image::short(&image.config.digest) }
}

fn ids(all: &[(Reference, StoredImage)], whole: bool) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let fresh = all.iter().filter(|(_, image)| seen.insert(image.config.digest));
    fresh.map(|(_, image)| id(image, whole) + "\n").collect()
}

fn as_table(store: &Store, all: &[(Reference, StoredImage)], whole: bool) -> Result<String, Failure> {
    let now = SystemTime::now();
    let mut rows = vec![head()];
    for (name, image) in all {
        let mut bare = name.clone();
        bare.tag = None;
        let created = u64::try_from(image.created_secs).ok().map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        rows.push([
            bare.familiar(),
            name.tag_or_latest().to_owned(),
            id(image, whole),
            created.map_or_else(|| "-".into(), |then| text::ago(then, now)),
            image::unpacked_size(store, image)?.map_or_else(|| "-".into(), text::bytes),
        ]);
    }
    Ok(text::table(&rows))
}

fn as_json(store: &Store, all: &[(Reference, StoredImage)]) -> Result<String, Failure> {
    let mut out = Vec::new();
    for (name, image) in all {
        out.push(json!({
            "name": name.to_string(),
            "id": image.config.digest.to_string(),
            "manifest": image.manifest.as_ref().map(|m| m.digest.to_string()),
            "created": memobuild_image::time::rfc3339(image.created_secs, 0),
            "size": image::unpacked_size(store, image)?,
        }));
    }
    Ok(format!("{:#}\n", serde_json::Value::Array(out)))
}

fn remove(store: &Store, names: &[String]) -> CliResult {
    for text in names {
        let named = image::find(store, text)?;
        let full = named.name.clone().with_default_tag();
        if !StoredImage::untag(store, &named.name).map_err(image::failure)? {
            return Err(Failure::usage(format!("no image {text} in memobuild's store")));
        }
        text::to_stdout(&format!("untagged {full}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
