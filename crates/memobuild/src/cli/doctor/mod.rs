//! `memobuild doctor`: what this machine offers, which modes work (each is tried), and what would make things better.

mod facts;

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use memobuild_observe::FailureKind;
use memobuild_sandbox::{ModeChoice, OwnershipClass, Sandbox, SandboxConfig, doctor::Check};
use serde_json::json;

use super::{CliResult, Failure, env, text};

/// Say how steps can be run on this machine, and what would make it better
///
/// Every mode is tried. Exits with 6 if none works.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A mode and whether it works.
struct Tried {
    name: &'static str,
    /// What owners mean in it, or why it does not work.
    found: Result<&'static str, String>,
}

/// The mode that builds use: its name, and why this one.
type Chosen = Result<(&'static str, String), String>;

pub(crate) fn run(args: &DoctorArgs) -> CliResult {
    let dir = env::cache_dir()?;
    let store = env::open_store()?;
    let scratch = store.scratch_dir()?;
    let mode = |choice| {
        let mut config = SandboxConfig::new(scratch.path().join(format!("{choice:?}")));
        config.mode = choice;
        Sandbox::new(config).and_then(|sandbox| sandbox.mode()).map_err(|e| Failure::chain(&e))
    };
    let modes = [ModeChoice::Traced, ModeChoice::Exact, ModeChoice::Chroot]
        .map(|choice| Tried { name: choice.name(), found: mode(choice).map(|mode| owners(mode.ownership)) });
    let chosen: Chosen = mode(ModeChoice::Auto).map(|mode| (mode.kind.name(), mode.why));
    let checks = facts::checks(&facts::Facts::gather(&dir));
    let shown = if args.json { as_json(&checks, &modes, &chosen) } else { as_text(&checks, &modes, &chosen) };
    text::to_stdout(&shown)?;
    Ok(if chosen.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FailureKind::Machine.exit_code()) })
}

fn owners(class: OwnershipClass) -> &'static str {
    match class {
        OwnershipClass::True => "file owners are real",
        OwnershipClass::Single => "one user id: other owners are recorded, not taken on",
    }
}

fn as_text(checks: &[Check], modes: &[Tried], chosen: &Chosen) -> String {
    let state = |ok: bool| if ok { "ok" } else { "no" }.to_owned();
    let mut rows = vec![["CHECK", "", "FOUND"].map(str::to_owned)];
    rows.extend(checks.iter().map(|c| [c.name.to_owned(), state(c.ok), c.detail.clone()]));
    rows.push([String::new(), String::new(), String::new()]);
    rows.push(["MODE", "", ""].map(str::to_owned));
    rows.extend(modes.iter().map(|m| {
        let found = match &m.found {
            Ok(found) => (*found).to_owned(),
            Err(reason) => reason.clone(),
        };
        [m.name.to_owned(), state(m.found.is_ok()), found]
    }));
    let mut out = text::table(&rows);
    out.push('\n');
    let _ = match chosen {
        Ok((name, why)) => writeln!(out, "steps run in {name} mode: {why}"),
        Err(_) => writeln!(out, "this machine cannot run steps: no mode works; COPY, ADD and WORKDIR work without one"),
    };
    for check in checks {
        if let Some(hint) = &check.hint {
            let _ = writeln!(out, "hint: {}: {hint}", check.name);
        }
    }
    out
}

fn as_json(checks: &[Check], modes: &[Tried], chosen: &Chosen) -> String {
    let check = |c: &Check| json!({ "name": c.name, "ok": c.ok, "detail": c.detail, "hint": c.hint });
    let mode = |m: &Tried| match &m.found {
        Ok(found) => json!({ "name": m.name, "ok": true, "detail": found }),
        Err(reason) => json!({ "name": m.name, "ok": false, "detail": reason }),
    };
    let shown = json!({
        "chosen": chosen.as_ref().ok().map(|(name, _)| name),
        "why": match chosen { Ok((_, why)) => why, Err(reason) => reason },
        "modes": modes.iter().map(mode).collect::<Vec<_>>(),
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
    });
    format!("{shown:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_works_and_what_helps() {
        let checks = [
            Check { name: "kernel", ok: true, detail: "Linux 6.18.0".into(), hint: None },
            Check { name: "/dev/fuse", ok: false, detail: "permission denied".into(), hint: Some("open it".into()) },
        ];
        let modes = [
            Tried { name: "traced", found: Err("opening /dev/fuse: Permission denied".into()) },
            Tried { name: "exact", found: Ok(owners(OwnershipClass::Single)) },
        ];
        insta::assert_snapshot!(as_text(&checks, &modes, &Ok(("exact", "no FUSE".into()))), @r"
        CHECK          FOUND
        kernel     ok  Linux 6.18.0
        /dev/fuse  no  permission denied

        MODE
        traced     no  opening /dev/fuse: Permission denied
        exact      ok  one user id: other owners are recorded, not taken on

        steps run in exact mode: no FUSE
        hint: /dev/fuse: open it
        ");
        let none = as_text(&checks, &modes, &Err("nothing".into()));
        assert!(none.contains("cannot run steps"), "{none}");
    }
}
