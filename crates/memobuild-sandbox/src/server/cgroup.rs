//! A control group for a step, where a parent was named and the machine lets one be made. Best effort by intent:
//! machines with both versions of control groups, with none, or without the right to write there, build too.

use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    process::Pid,
};

/// Where the unified hierarchy is mounted: alone, or beside version 1.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A group that was made; removed when it is dropped, after the step's processes.
pub(super) struct Group {
    parent: OwnedFd,
    name: String,
}

fn open(at: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, at, flags, Mode::empty()).ok()
}

impl Group {
    /// Makes a group below the parent, which is made, too, where it lacks.
    pub(super) fn make(parent: &[u8]) -> Option<Self> {
        let clean = memobuild_tree::path::clean(parent);
        let relative = OsString::from(std::ffi::OsStr::from_bytes(clean.strip_prefix(b"/").unwrap_or(&clean)));
        let top = HIERARCHIES.iter().map(Path::new).find(|top| top.join("cgroup.procs").exists())?;
        std::fs::create_dir_all(top.join(&relative)).ok()?;
        let parent = open(&top.join(relative))?;
        let name = format!("memobuild-{}", rustix::process::getpid().as_raw_nonzero());
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)).ok()?;
        Some(Self { parent, name })
    }

    /// Moves a process, and with it all that it starts, into the group.
    pub(super) fn take_in(&self, pid: Pid) {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = format!("{}/cgroup.procs", self.name);
        if let Ok(file) = rustix::fs::openat(&self.parent, file, flags, Mode::empty()) {
            let _ = rustix::io::write(&file, pid.as_raw_nonzero().to_string().as_bytes());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}
