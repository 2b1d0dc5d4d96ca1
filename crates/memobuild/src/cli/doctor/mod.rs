//! `memobuild doctor`: what this machine offers, which modes work (each is tried), and what would make things better.

mod clean;
mod facts;

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use memobuild_observe::FailureKind;
use memobuild_sandbox::{ModeChoice, OwnershipClass, Platforms, Runner, Sandbox, SandboxConfig, doctor::Check};
use serde_json::json;

use super::{CliResult, Failure, env, text};

/// Say how steps can be run on this machine, and what would make it better
///
/// Every mode is tried. Exits with 6 if none works.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Remove what killed builds and power cuts left in the cache, and say what: scratch space, mounts, leases, downloads
    #[arg(long)]
    clean: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  How are steps run here, and why not in a better way?
    memobuild doctor
  A build was killed, or the machine went down:
    memobuild doctor --clean

With --clean no mode is tried; exit code 4: something could not be removed.";

/// A mode and whether it works.
struct Tried {
    name: &'static str,
    /// What owners mean in it, or why it does not work.
    found: Result<&'static str, String>,
}

/// The mode that builds use: its name, and why this one.
type Chosen = Result<(&'static str, String), String>;

pub(crate) fn run(args: &DoctorArgs) -> CliResult {
    if args.clean {
        return clean::run(args.json);
    }
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
    let platforms = match &chosen {
        Ok(_) => Sandbox::new(SandboxConfig::new(scratch.path().join("platforms")))
            .map_err(|e| Failure::new(FailureKind::Machine, Failure::chain(&e)))?
            .platforms(),
        Err(_) => Platforms::default(),
    };
    let found = Found { checks: &checks, modes: &modes, chosen: &chosen, platforms: &platforms };
    let shown = if args.json { as_json(&found) } else { as_text(&found) };
    text::to_stdout(&shown)?;
    Ok(if chosen.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FailureKind::Machine.exit_code()) })
}

fn owners(class: OwnershipClass) -> &'static str {
    match class {
        OwnershipClass::True => "file owners are real",
        OwnershipClass::Single => "one user id: other owners are recorded, not taken on",
    }
}

/// All that was found out.
struct Found<'a> {
    checks: &'a [Check],
    modes: &'a [Tried],
    chosen: &'a Chosen,
    platforms: &'a Platforms,
}

/// By what programs of a platform are run.
fn by(runner: &Runner) -> String {
    match runner {
        Runner::Native => "this machine".into(),
        Runner::Kernel(Some(program)) => format!("the kernel's handler, {program} (binfmt_misc)"),
        Runner::Kernel(None) => "a handler of the kernel (binfmt_misc)".into(),
        Runner::Own(program) => format!("memobuild's own emulation, {}", program.display()),
    }
}

fn as_text(found: &Found<'_>) -> String {
    let Found { checks, modes, chosen, platforms } = found;
    let state = |ok: bool| if ok { "ok" } else { "no" }.to_owned();
    let mut rows = vec![["CHECK", "", "FOUND"].map(str::to_owned)];
    rows.extend(checks.iter().map(|c| [c.name.to_owned(), state(c.ok), c.detail.clone()]));
    rows.push([String::new(), String::new(), String::new()]);
    rows.push(["MODE", "", ""].map(str::to_owned));
    rows.extend(modes.iter().map(|m: &Tried| {
        let found = match &m.found {
            Ok(found) => (*found).to_owned(),
            Err(reason) => reason.clone(),
        };
        [m.name.to_owned(), state(m.found.is_ok()), found]
    }));
    rows.push([String::new(), String::new(), String::new()]);
    rows.push(["PLATFORM", "", "RUN BY"].map(str::to_owned));
    rows.extend(platforms.runnable.iter().map(|(name, runner)| [(*name).to_owned(), state(true), by(runner)]));
    let mut out = text::table(&rows);
    out.push('\n');
    let _ = match chosen {
        Ok((name, why)) => writeln!(out, "steps run in {name} mode: {why}"),
        Err(_) => writeln!(out, "this machine cannot run steps: no mode works; COPY, ADD and WORKDIR work without one"),
    };
    if let Some(why) = &platforms.no_emulation {
        let _ = writeln!(out, "memobuild can't emulate other platforms by itself: {why}");
    }
    for check in *checks {
        if let Some(hint) = &check.hint {
            let _ = writeln!(out, "hint: {}: {hint}", check.name);
        }
    }
    out
}

fn as_json(found: &Found<'_>) -> String {
    let Found { checks, modes, chosen, platforms } = found;
    let platform = |(name, runner): &(&str, Runner)| {
        let (by, program) = match runner {
            Runner::Native => ("native", None),
            Runner::Kernel(program) => ("kernel", program.clone()),
            Runner::Own(program) => ("emulation", Some(program.display().to_string())),
        };
        json!({ "name": name, "by": by, "program": program })
    };
    let check = |c: &Check| json!({ "name": c.name, "ok": c.ok, "detail": c.detail, "hint": c.hint });
    let mode = |m: &Tried| match &m.found {
        Ok(found) => json!({ "name": m.name, "ok": true, "detail": found }),
        Err(reason) => json!({ "name": m.name, "ok": false, "detail": reason }),
    };
    let shown = json!({
        "chosen": chosen.as_ref().ok().map(|(name, _)| name),
        "why": match chosen { Ok((_, why)) => why, Err(reason) => reason },
        "modes": modes.iter().map(mode).collect::<Vec<_>>(),
        "platforms": platforms.runnable.iter().map(platform).collect::<Vec<_>>(),
        "no_emulation": platforms.no_emulation,
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
        let platforms = Platforms {
            runnable: vec![
                ("linux/amd64", Runner::Native),
                ("linux/arm64", Runner::Kernel(Some("/usr/bin/qemu-aarch64-static".into()))),
                ("linux/riscv64", Runner::Own("/usr/bin/qemu-riscv64-static".into())),
            ],
            no_emulation: None,
        };
        let chosen = Ok(("exact", "no FUSE".into()));
        let found = Found { checks: &checks, modes: &modes, chosen: &chosen, platforms: &platforms };
        insta::assert_snapshot!(as_text(&found), @r"
        CHECK              FOUND
        kernel         ok  Linux 6.18.0
        /dev/fuse      no  permission denied

        MODE
        traced         no  opening /dev/fuse: Permission denied
        exact          ok  one user id: other owners are recorded, not taken on

        PLATFORM           RUN BY
        linux/amd64    ok  this machine
        linux/arm64    ok  the kernel's handler, /usr/bin/qemu-aarch64-static (binfmt_misc)
        linux/riscv64  ok  memobuild's own emulation, /usr/bin/qemu-riscv64-static

        steps run in exact mode: no FUSE
        hint: /dev/fuse: open it
        ");
        let chosen = Err("nothing".into());
        let platforms = Platforms { no_emulation: Some("no namespaces".into()), ..Platforms::default() };
        let none = as_text(&Found { chosen: &chosen, platforms: &platforms, ..found });
        assert!(none.contains("can't emulate other platforms by itself: no namespaces"), "{none}");
        assert!(none.contains("cannot run steps"), "{none}");
    }
}
