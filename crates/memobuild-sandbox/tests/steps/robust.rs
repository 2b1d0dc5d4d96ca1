//! What must hold when things go wrong, and what must not be on disk.

use std::{
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use memobuild_sandbox::{ModeChoice, Mount, MountKind, Sandbox, SandboxConfig, doctor};

use crate::{basics::Test, support::World};

pub const TESTS: &[(&str, Test)] =
    &[("a_killed_build_leaves_no_processes", a_killed_build_leaves_no_processes), ("ssh_sockets", ssh_sockets)];

pub const TRACED: &[(&str, Test)] = &[
    ("nothing_is_unpacked", nothing_is_unpacked),
    ("look_ups_are_counted", look_ups_are_counted),
    ("without_native_reads", without_native_reads),
];

pub const ROOT: &[(&str, Test)] = &[("doctor_looks_at_everything", doctor_looks_at_everything)];

/// Set in a program that runs one endless step: where its scratch directory is, and the mode.
pub const VARIABLE: &str = "MEMOBUILD_SANDBOX_TEST_HANG";

/// Runs a step that never ends.
pub fn hang(value: &str) {
    let (mode, scratch) = value.split_once(':').unwrap();
    let mode = [ModeChoice::Traced, ModeChoice::Exact, ModeChoice::Chroot].into_iter().find(|m| m.name() == mode);
    let world = World::with(mode.unwrap(), |config| config.scratch = scratch.into());
    let _ = world.try_run(&world.shell(&world.base, "(setsid sleep 98765 &); sleep 98765"));
}

fn sleepers() -> usize {
    let is_sleeper = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.windows(5).any(|w| w == b"98765") && c.starts_with(b"sleep"))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter(|e| is_sleeper(&e.as_ref().unwrap().file_name().to_string_lossy()))
        .count()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One at a time, since it counts processes.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn a_killed_build_leaves_no_processes(mode: ModeChoice) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("scratch");
    let mut build = Command::new(std::env::current_exe().unwrap())
        .env(VARIABLE, format!("{}:{}", mode.name(), scratch.display()))
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the step", || sleepers() == 2);
    build.kill().unwrap();
    build.wait().unwrap();
    wait_for("the end of the step's processes", || sleepers() == 0);
    assert_ne!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    // The next build on the same scratch directory clears up.
    let world = World::with(mode, |config| config.scratch = scratch.clone());
    assert_eq!(world.sh(&world.base, "echo on").1, "on\n");
    drop(world);
    wait_for("an empty scratch directory", || std::fs::read_dir(&scratch).unwrap().count() == 0);
}

fn ssh_sockets(mode: ModeChoice) {
    let world = World::new(mode);
    let agent = world.dir.path().join("agent");
    let _listener = UnixListener::bind(&agent).unwrap();
    let mut step = world.shell(&world.base, "stat -c '%a %u:%g' /run/agent; test -S /run/agent && echo socket");
    let kind = MountKind::SshSocket { host_path: agent, uid: 0, gid: 0, mode: 0o600 };
    step.mounts = vec![Mount { target: b"/run/agent".to_vec(), kind }];
    let (outcome, out) = world.run(&step);
    assert_eq!(out, "600 0:0\nsocket\n");
    assert!(outcome.diff.is_empty());
}

fn files_below(dir: &Path, found: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if meta.is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push((entry.path().display().to_string(), meta.len()));
        }
    }
}

fn nothing_is_unpacked(mode: ModeChoice) {
    let world = World::new(mode);
    let scratch = world.dir.path().join("scratch");
    let seen = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            world.sh(&world.base, "ls -lR / > /dev/null; cat /bin/busybox > /dev/null; echo x > /o; sleep 1")
        });
        while !running.is_finished() {
            files_below(&scratch, &mut seen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        running.join().unwrap();
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|(name, _)| name.ends_with("/upper/o")), "{seen:?}");
    for (name, size) in seen {
        assert!(!name.contains("busybox") && !name.contains("/bin/") && size < 1000, "{name}");
    }
}

fn look_ups_are_counted(mode: ModeChoice) {
    let world = World::new(mode);
    let (outcome, _) = world.run(&world.shell(&world.base, "ls /etc /nope; cat /nada; true"));
    assert!(outcome.complete);
    assert!(outcome.looked.found > 3 && outcome.looked.absent >= 2 && outcome.looked.listings >= 1);
}

fn without_native_reads(mode: ModeChoice) {
    let world = World::with(mode, |config| config.datadir = false);
    let (outcome, out) = world.run(&world.shell(&world.base, "sha256sum < /bin/busybox"));
    let expected = Command::new("sha256sum").stdin(std::fs::File::open("/bin/busybox").unwrap()).output().unwrap();
    assert_eq!(out, String::from_utf8_lossy(&expected.stdout));
    assert!(outcome.looked.reads > 0);
}

fn doctor_looks_at_everything(_mode: ModeChoice) {
    let dir = tempfile::tempdir().unwrap();
    let config = SandboxConfig::new(dir.path().join("scratch"));
    let checks = doctor::examine(&config);
    for name in ["kernel", "/dev/fuse", "mode traced", "mode exact", "mode chroot"] {
        let check = checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}"));
        assert!(check.ok, "{check:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("scratch")).unwrap().count(), 0);
    // Where nothing can work, it says why.
    let config = SandboxConfig { init_program: "/no/such/program".into(), ..config };
    let checks = doctor::examine(&config);
    let traced = checks.iter().find(|c| c.name == "mode traced").unwrap();
    assert!(!traced.ok && traced.detail.contains("/no/such/program"), "{traced:?}");
    assert!(Sandbox::new(config).unwrap().mode().is_err());
}
