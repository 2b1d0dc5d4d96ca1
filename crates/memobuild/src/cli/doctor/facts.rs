//! What can be seen of the machine without changing anything, and what it means. [`Facts::gather`] looks; [`checks`] is
//! pure.

use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use memobuild_sandbox::doctor::Check;

use crate::cli::env;

/// `overlayfs` in statfs(2)'s f_type.
const OVERLAYFS: i64 = 0x794c_7630;

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    kernel: String,
    uid: u32,
    /// Settings that forbid user namespaces to ordinary users, as `name=value`.
    userns_limits: Vec<String>,
    subuid: bool,
    newuidmap: bool,
    /// Why /dev/fuse can't be opened, if so.
    fuse: Option<String>,
    cache: String,
    cache_on_overlay: bool,
    git: bool,
}

impl Facts {
    /// Looks.
    pub(super) fn gather(cache: &Path) -> Self {
        let uid = rustix::process::getuid().as_raw();
        let kernel = rustix::system::uname();
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").err().map(|e| e.to_string());
        let overlay = rustix::fs::statfs(cache).is_ok_and(|s| s.f_type == OVERLAYFS);
        Self {
            kernel: format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
            uid,
            userns_limits: userns_limits(),
            subuid: has_range(uid, "/etc/subuid") && has_range(uid, "/etc/subgid"),
            newuidmap: on_path("newuidmap") && on_path("newgidmap"),
            fuse,
            cache: env::display_path(cache),
            cache_on_overlay: overlay,
            git: on_path("git"),
        }
    }
}

fn userns_limits() -> Vec<String> {
    let settings = [
        ("user.max_user_namespaces", "/proc/sys/user/max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    let forbids = |(name, file, bad): (&str, &str, &str)| {
        let value = fs::read_to_string(file).ok()?;
        (value.trim() == bad).then(|| format!("{name}={bad}"))
    };
    settings.into_iter().filter_map(forbids).collect()
}

/// Whether subuid(5) or subgid(5) gives the user a range, by name or number.
fn has_range(uid: u32, file: &str) -> bool {
    let number = uid.to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    let ranges = fs::read_to_string(file).unwrap_or_default();
    ranges.lines().filter_map(|line| line.split(':').next()).any(|who| who == number || Some(who) == name)
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// What the facts mean.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let root = facts.uid == 0;
    let check =
        |name, ok, detail: String, hint: Option<&str>| Check { name, ok, detail, hint: hint.map(str::to_owned) };
    let user = if root { "root".to_owned() } else { format!("ordinary user, id {}", facts.uid) };
    let limits = facts.userns_limits.join(", ");
    let userns_hint = "an administrator can allow user namespaces with sysctl, or (on Ubuntu) with an AppArmor profile \
                       for memobuild that has the rule `userns,`";
    let ids = match (root, facts.subuid, facts.newuidmap) {
        (true, ..) => (true, "all, as root".to_owned(), None),
        (false, true, true) => (true, "ranges in /etc/subuid and /etc/subgid".to_owned(), None),
        (false, true, false) => {
            (false, "ranges, but no newuidmap".to_owned(), Some("Debian's package uidmap has newuidmap"))
        }
        (false, false, _) => (
            false,
            "no range in /etc/subuid and /etc/subgid".to_owned(),
            Some("`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER` gives steps real owners"),
        ),
    };
    vec![
        check("kernel", true, facts.kernel.clone(), None),
        check("user", true, user, None),
        check(
            "user namespaces",
            root || limits.is_empty(),
            if limits.is_empty() { "nothing forbids them".into() } else { limits.clone() },
            (!root && !limits.is_empty()).then_some(userns_hint),
        ),
        check("user ids", ids.0, ids.1, ids.2),
        check(
            "/dev/fuse",
            facts.fuse.is_none(),
            facts.fuse.clone().unwrap_or_else(|| "can be opened".into()),
            facts.fuse.as_ref().map(|_| {
                "`modprobe fuse` makes it, `chmod 666 /dev/fuse` opens it to all, as distributions ship it; in a \
                 container: --device /dev/fuse"
            }),
        ),
        check(
            "cache",
            !facts.cache_on_overlay,
            format!("{}{}", facts.cache, if facts.cache_on_overlay { ", on overlayfs" } else { "" }),
            facts.cache_on_overlay.then_some(
                "an overlay can't lie on another one: set MEMOBUILD_CACHE_DIR to a directory on a volume or tmpfs",
            ),
        ),
        check(
            "git",
            facts.git,
            if facts.git { "found" } else { "not found" }.into(),
            (!facts.git).then_some("it is needed for ADD of repositories and contexts from them"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            kernel: "Linux 6.18.0".into(),
            uid: 1000,
            userns_limits: Vec::new(),
            subuid: true,
            newuidmap: true,
            fuse: None,
            cache: "~/.cache/memobuild".into(),
            cache_on_overlay: false,
            git: true,
        }
    }

    #[test]
    fn a_good_machine_gets_no_hints() {
        assert!(checks(&good()).iter().all(|c| c.ok && c.hint.is_none()));
    }

    #[test]
    fn each_lack_is_named_with_what_helps() {
        let lacks: [fn(&mut Facts); 6] = [
            |f| f.userns_limits = vec!["user.max_user_namespaces=0".into()],
            |f| f.subuid = false,
            |f| f.newuidmap = false,
            |f| f.fuse = Some("Permission denied".into()),
            |f| f.cache_on_overlay = true,
            |f| f.git = false,
        ];
        for lack in lacks {
            let mut facts = good();
            lack(&mut facts);
            let bad: Vec<Check> = checks(&facts).into_iter().filter(|c| !c.ok).collect();
            assert!(bad.len() == 1 && bad.iter().all(|c| c.hint.is_some()), "{bad:?}");
        }
    }

    #[test]
    fn root_needs_neither_ranges_nor_namespaces() {
        let facts = Facts { uid: 0, subuid: false, userns_limits: vec!["user.max_user_namespaces=0".into()], ..good() };
        assert!(checks(&facts).iter().all(|c| c.ok));
    }
}
