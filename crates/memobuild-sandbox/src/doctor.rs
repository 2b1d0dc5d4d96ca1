//! What this machine can and cannot do, for `memobuild doctor` and for error messages.
//!
//! In: a sandbox's settings. Out: findings, each mode among them, tried for real. Changes nothing but what a sandbox
//! leaves: an empty scratch directory.

use std::{fs, path::Path};

use crate::{
    error::SandboxError,
    ids::{IdMap, Ids},
    mode::ModeChoice,
    sandbox::{Sandbox, SandboxConfig},
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, a few words.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, ok: bool, detail: impl Into<String>) -> Self {
        Self { name, ok, detail: detail.into(), hint: None }
    }

    /// Says what to do if it is not there.
    fn hint(mut self, hint: &str) -> Self {
        if !self.ok {
            self.hint = Some(hint.to_owned());
        }
        self
    }
}

/// Looks at everything that decides between the modes, and tries each.
pub fn examine(config: &SandboxConfig) -> Vec<Check> {
    let mut checks =
        vec![kernel(), privileges(), user_namespaces(), subordinate_ids(), fuse(), scratch(&config.scratch)];
    for choice in [ModeChoice::Traced, ModeChoice::Exact, ModeChoice::Chroot] {
        checks.push(mode(config, choice));
    }
    checks
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0u32));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = match version {
        v if v >= (6, 16) => format!("Linux {release}: overlay can read large files natively (datadir+)"),
        _ => format!("Linux {release}: large files are read through FUSE (6.16 reads them natively)"),
    };
    Check::new("kernel", version >= (5, 11), detail)
        .hint("overlayfs in user namespaces needs Linux 5.11; older kernels need root")
}

fn privileges() -> Check {
    let uid = rustix::process::geteuid().as_raw();
    let admin = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    match (uid, admin) {
        (0, true) => Check::new("privileges", true, "root, may mount"),
        (0, false) => Check::new("privileges", true, "root without CAP_SYS_ADMIN, as in an ordinary container"),
        _ => Check::new("privileges", true, format!("ordinary user (uid {uid})")),
    }
}

fn sysctl(name: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    if sysctl("user/max_user_namespaces") == Some(0) {
        return Check::new(name, false, "user.max_user_namespaces is 0")
            .hint("as root: sysctl -w user.max_user_namespaces=15000");
    }
    if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        return Check::new(name, false, "kernel.unprivileged_userns_clone is 0")
            .hint("as root: sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return Check::new(name, false, "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)")
            .hint(
                "as root: give memobuild an AppArmor profile with the `userns` rule, or \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            );
    }
    Check::new(name, true, "no setting forbids them")
}

fn subordinate_ids() -> Check {
    let name = "subordinate ids";
    if rustix::process::geteuid().is_root() {
        return Check::new(name, true, "not needed by root");
    }
    let hint = "without them files get their owners by answering system calls: install uidmap (newuidmap), and as root: \
                usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER";
    match Ids::ranges() {
        Err(why) => Check::new(name, false, why).hint(hint),
        Ok(Ids { map: IdMap::Ranges(ranges) }) => {
            let found = |tool: &str| {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
            };
            let count = ranges.0.iter().map(|(_, _, n)| u64::from(*n)).sum::<u64>();
            match ["newuidmap", "newgidmap"].into_iter().find(|tool| !found(tool)) {
                Some(lacking) => Check::new(name, false, format!("{lacking} is not installed")).hint(hint),
                None => Check::new(name, true, format!("{count} ids")),
            }
        }
        Ok(_) => Check::new(name, false, "none").hint(hint),
    }
}

fn fuse() -> Check {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::new("/dev/fuse", true, "can be opened"),
        Err(e) => Check::new("/dev/fuse", false, format!("cannot be opened: {e}")).hint(
            "as root: modprobe fuse; chmod 666 /dev/fuse. In a container: --device /dev/fuse. Without it trees are laid \
             out on disk, and results are reused on exact matches only",
        ),
    }
}

fn scratch(dir: &Path) -> Check {
    // OVERLAYFS_SUPER_MAGIC of linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    // It may not be there yet; what holds it then decides.
    let found = dir.ancestors().find_map(|dir| rustix::fs::statfs(dir).ok());
    let overlay = found.is_some_and(|s| u64::try_from(s.f_type) == Ok(OVERLAYFS));
    let detail = format!("{}{}", dir.display(), if overlay { " lies on overlayfs" } else { "" });
    Check::new("scratch directory", !overlay, detail)
        .hint("an overlay cannot stand on an overlay: put the cache directory on a volume or a tmpfs")
}

fn mode(config: &SandboxConfig, choice: ModeChoice) -> Check {
    let name = match choice {
        ModeChoice::Traced => "mode traced",
        ModeChoice::Exact => "mode exact",
        _ => "mode chroot",
    };
    let config = SandboxConfig { mode: choice, ..config.clone() };
    match Sandbox::new(config).and_then(|sandbox| sandbox.mode()) {
        Ok(mode) => Check::new(name, true, mode.why),
        Err(SandboxError::Unavailable { reason, .. }) => Check::new(name, false, reason),
        Err(e) => Check::new(name, false, e.to_string()),
    }
}
