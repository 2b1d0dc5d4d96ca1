//! The machine around a step, as far as a step that got out could change it: what is looked at before and after.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What is in the file that no step may see.
pub const SECRET: &str = "known outside alone";

/// The name that mounts and keys of these tests bear.
const MARK: &str = "memobuild-escape";

/// Settings of the kernel that steps try to change.
const SETTINGS: [&str; 9] = [
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/vm/overcommit_memory",
    "/sys/class/net/lo/flags",
];

/// A directory and a process that are there to be attacked, and how everything was.
pub struct Host {
    dir: tempfile::TempDir,
    sleeper: Child,
    before: Vec<String>,
    mount_points: Vec<String>,
}

impl Host {
    /// The directory and all in it are anybody's: permissions are not what keeps a step away from it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path();
        fs::write(host.join("secret"), SECRET).unwrap();
        fs::create_dir(host.join("dir")).unwrap();
        fs::write(host.join("dir/file"), "untouched").unwrap();
        for name in [".", "secret", "dir", "dir/file"] {
            fs::set_permissions(host.join(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut sleeper = Command::new("sleep");
        // A group of its own, to be signalled as one.
        let sleeper =
            sleeper.arg("100000").process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut host = Self { dir, sleeper, before: Vec::new(), mount_points: mounts().1 };
        host.before = host.look();
        host
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file that no step may see.
    pub fn secret(&self) -> PathBuf {
        self.dir().join("secret")
    }

    /// A process that no step may reach, alone in its process group.
    pub fn process(&self) -> u32 {
        self.sleeper.id()
    }

    fn look(&self) -> Vec<String> {
        let mut out = Vec::new();
        for name in ["", "secret", "dir", "dir/file"] {
            let path = self.dir().join(name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { names(&path).join(" ") };
            let (mode, owner, time) = (meta.mode(), (meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
            out.push(format!("{name} {mode:o} {owner:?} {} {time:?} {content}", meta.nlink()));
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        // It sleeps or is about to; it is not to be stopped.
        out.extend(
            status.lines().filter(|line| line.starts_with("State:") && line.contains("stop")).map(str::to_owned),
        );
        let told = ["TracerPid:", "Uid:", "Cpus_allowed:"];
        out.extend(status.lines().filter(|line| told.iter().any(|t| line.starts_with(t))).map(str::to_owned));
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process())).unwrap();
        // Its priority and its nice value.
        out.extend(stat.rsplit_once(") ").unwrap().1.split(' ').skip(15).take(2).map(str::to_owned));
        out.extend(SETTINGS.iter().map(|name| format!("{name}: {:?}", fs::read_to_string(name).ok())));
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        out.extend(swaps.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
        out.extend(mounts().0);
        let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
        out.extend(keys.lines().filter(|line| line.contains(MARK)).map(str::to_owned));
        out
    }

    /// That nothing has changed.
    #[track_caller]
    pub fn is_unchanged(&mut self) {
        assert!(self.sleeper.try_wait().unwrap().is_none(), "a process outside was ended");
        assert_eq!(self.look(), self.before);
        let now = mounts().1;
        let gone: Vec<_> = self.mount_points.iter().filter(|at| !now.contains(at)).collect();
        assert!(gone.is_empty(), "unmounted: {gone:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Mounts that bear the tests' mark, and where the machine's own file systems are mounted; others come and go.
fn mounts() -> (Vec<String>, Vec<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let marked = table.lines().filter(|line| line.contains(MARK)).map(str::to_owned).collect();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let own = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/tmp"];
    (marked, points.filter(|at| own.contains(at)).map(str::to_owned).collect())
}
