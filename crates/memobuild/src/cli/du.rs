//! `memobuild du`.

use std::{collections::BTreeMap, process::ExitCode, time::SystemTime};

use clap::Args;
use memobuild_store::{Usage, UsageItem};
use serde_json::json;

use super::{CliResult, env, text};

/// Show what takes how much room in the cache
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// List every item, largest first
    #[arg(short, long)]
    verbose: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DuArgs) -> CliResult {
    let dir = env::cache_dir()?;
    let usage = match env::existing_store()? {
        Some(store) => store.usage()?,
        None => Usage::default(),
    };
    let shown = match (args.json, args.verbose) {
        (true, _) => as_json(&usage),
        (false, true) => items(&usage),
        (false, false) => kinds(&usage),
    };
    text::to_stdout(&shown)?;
    if !args.json {
        text::to_stdout(&format!("\n{} in {}\n", text::bytes(usage.total_bytes), env::display_path(&dir)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each kind: how many, how much, and how much of it a prune would never take.
fn kinds(usage: &Usage) -> String {
    let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for item in &usage.items {
        let (count, bytes, kept) = sums.entry(item.kind).or_default();
        *count += 1;
        *bytes += item.bytes;
        *kept += if item.tagged || item.in_use { item.bytes } else { 0 };
    }
    let mut rows = vec![["KIND", "COUNT", "SIZE", "KEPT BY TAGS OR BUILDS"].map(str::to_owned)];
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (_, bytes, _))| std::cmp::Reverse(*bytes));
    for (kind, (count, bytes, kept)) in sums {
        rows.push([kind.to_owned(), count.to_string(), text::bytes(bytes), text::bytes(kept)]);
    }
    text::table(&rows)
}

fn items(usage: &Usage) -> String {
    let now = SystemTime::now();
    let mut rows = vec![["KIND", "ID", "SIZE", "LAST USED", "KEPT BY"].map(str::to_owned)];
    rows.extend(usage.items.iter().map(|item| {
        [
            item.kind.to_owned(),
            item.id.chars().take(40).collect(),
            text::bytes(item.bytes),
            item.last_used.map_or_else(|| "-".into(), |then| text::ago(then, now)),
            kept_by(item).to_owned(),
        ]
    }));
    text::table(&rows)
}

fn kept_by(item: &UsageItem) -> &'static str {
    match (item.in_use, item.tagged) {
        (true, _) => "a running build",
        (false, true) => "an image's name",
        (false, false) => "-",
    }
}

fn as_json(usage: &Usage) -> String {
    let seconds = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).ok().map(|d| d.as_secs());
    let items: Vec<_> = usage
        .items
        .iter()
        .map(|item| {
            json!({
                "kind": item.kind,
                "id": item.id,
                "bytes": item.bytes,
                "lastUsed": item.last_used.and_then(seconds),
                "inUse": item.in_use,
                "tagged": item.tagged,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "totalBytes": usage.total_bytes, "items": items }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_summed_up_largest_first() {
        let item =
            |kind, bytes, tagged| UsageItem { kind, id: "ab".into(), bytes, last_used: None, in_use: false, tagged };
        let items = vec![item("bundle", 1000, true), item("bundle", 500, false), item("blob", 9000, false)];
        insta::assert_snapshot!(kinds(&Usage { items, total_bytes: 10_500 }), @r"
        KIND    COUNT  SIZE    KEPT BY TAGS OR BUILDS
        blob    1      9.00kB  0B
        bundle  2      1.50kB  1.00kB
        ");
    }
}
