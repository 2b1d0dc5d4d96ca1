//! Who starts memobuild in these tests: root, who plays ordinary users too, or an ordinary user.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use rustix::process::geteuid;

use crate::{base, program, support::Project};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root: no user namespace.
    Root,
    /// Nobody, with one id, played by root.
    User,
    /// Nobody, with a range of ids, played by root.
    Ranges,
    /// Whoever runs the tests, if not root.
    Me,
}

impl Who {
    pub fn all() -> Vec<Self> {
        if geteuid().is_root() { vec![Self::Root, Self::User, Self::Ranges] } else { vec![Self::Me] }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User | Self::Me => "user",
            Self::Ranges => "ranges",
        }
    }

    /// Whether a step's users are users to the kernel. With one id they are played.
    pub fn has_ids(self) -> bool {
        matches!(self, Self::Root | Self::Ranges)
    }

    /// Why tests in that mode can't be run here.
    pub fn lacks(self, mode: &str) -> Option<String> {
        if let Err(why) = program::probe() {
            return Some(why);
        }
        if !Path::new(base::BUSYBOX).exists() {
            return Some("needs a static busybox".into());
        }
        if mode == "traced" {
            let Ok(fuse) = fs::metadata("/dev/fuse") else { return Some("needs /dev/fuse".into()) };
            if self != Self::Root && fuse.permissions().mode() & 0o006 != 0o006 {
                return Some("/dev/fuse is not open to all".into());
            }
        }
        let given = |names: &[&str]| names.iter().all(|name| Path::new(name).exists());
        if self == Self::Ranges && !given(&["/usr/bin/newuidmap", "/usr/bin/newgidmap"]) {
            return Some("needs newuidmap (package uidmap)".into());
        }
        let namespaces: &[&str] = match self {
            Self::Root => &["unshare", "--mount", "--pid", "--fork", "true"],
            Self::Me => &["unshare", "--user", "--map-root-user", "--mount", "true"],
            Self::User | Self::Ranges => &[
                "unshare",
                "--mount",
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "unshare",
                "--user",
                "--mount",
                "true",
            ],
        };
        let able = mode == "chroot"
            || Command::new(namespaces[0]).args(&namespaces[1..]).output().is_ok_and(|out| out.status.success());
        (!able).then(|| "needs namespaces".into())
    }

    /// Has the project built by this user from now on.
    pub fn takes_over(self, project: &mut Project) {
        match self {
            Self::Root | Self::Me => {}
            Self::User => assert!(project.by_nobody(false)),
            Self::Ranges => assert!(project.by_nobody(true)),
        }
    }
}
