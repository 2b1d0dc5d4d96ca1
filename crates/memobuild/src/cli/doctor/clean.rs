//! `memobuild doctor --clean`: what killed builds and power cuts left in the cache goes, and is told.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use memobuild_observe::FailureKind;
use memobuild_sandbox::{Sandbox, SandboxConfig};
use memobuild_store::{Cleaned, Remnant, Removed, Store};
use serde_json::json;

use super::{CliResult, env, text};

pub(super) fn run(as_json: bool) -> CliResult {
    let dir = env::cache_dir()?;
    let mut cleaned = Cleaned::default();
    cleaned.removed.extend(Store::mend_format(&dir)?);
    if let Some(store) = env::existing_store()? {
        let Cleaned { removed, failed } = store.clean(&remove_rooms)?;
        cleaned.removed.extend(removed);
        cleaned.failed.extend(failed);
    }
    text::to_stdout(&if as_json { to_json(&cleaned) } else { to_text(&cleaned, &dir) })?;
    Ok(match cleaned.failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FailureKind::Cache.exit_code()),
    })
}

/// Has a sandbox put back what steps had moved into their roots, and remove what they left: with ranges of ids their
/// files have owners that this user can't remove anything of.
fn remove_rooms(scratch: &Path) {
    // It begins with what dead processes left. What goes wrong shows when the directory itself is removed.
    let _ = Sandbox::new(SandboxConfig::new(scratch.to_path_buf())).and_then(|sandbox| sandbox.mode());
}

/// Small things are counted, all others named.
fn to_text(cleaned: &Cleaned, dir: &Path) -> String {
    let shown = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let mut out = String::new();
    let mut locks = 0;
    for Removed { path, what, bytes } in &cleaned.removed {
        let size = if *bytes > 0 { format!(", {}", text::bytes(*bytes)) } else { String::new() };
        match what {
            Remnant::Lock => locks += 1,
            what => {
                let _ = writeln!(out, "removed {}: {}{size}", shown(path), what.name());
            }
        }
    }
    if locks > 0 {
        let _ = writeln!(out, "removed {locks} file{} of old locks", if locks == 1 { "" } else { "s" });
    }
    for (path, why) in &cleaned.failed {
        let _ = writeln!(out, "could not remove {}: {why}", shown(path));
    }
    if out.is_empty() {
        let _ = writeln!(out, "nothing was left in {}", env::display_path(dir));
    }
    out
}

fn to_json(cleaned: &Cleaned) -> String {
    let removed =
        |r: &Removed| json!({ "path": r.path.display().to_string(), "what": r.what.name(), "bytes": r.bytes });
    let shown = json!({
        "removed": cleaned.removed.iter().map(removed).collect::<Vec<_>>(),
        "failed": cleaned
            .failed
            .iter()
            .map(|(path, why)| json!({ "path": path.display().to_string(), "why": why }))
            .collect::<Vec<_>>(),
    });
    format!("{shown:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told() {
        let removed = |path: &str, what, bytes| Removed { path: path.into(), what, bytes };
        let mut cleaned = Cleaned {
            removed: vec![
                removed("/c/leases/1-2", Remnant::Lease, 0),
                removed("/c/tmp/1-2.0.d", Remnant::Scratch, 4096),
                removed("/c/locks/a", Remnant::Lock, 0),
                removed("/c/locks/b", Remnant::Lock, 0),
            ],
            failed: vec![("/c/tmp/3-4.0.d".into(), "Operation not permitted".into())],
        };
        insta::assert_snapshot!(to_text(&cleaned, Path::new("/c")), @r"
        removed leases/1-2: the lease of a process that is gone
        removed tmp/1-2.0.d: scratch space of a process that is gone, 4.10kB
        removed 2 files of old locks
        could not remove tmp/3-4.0.d: Operation not permitted
        ");
        cleaned = Cleaned::default();
        assert_eq!(to_text(&cleaned, Path::new("/c")), "nothing was left in /c\n");
    }
}
