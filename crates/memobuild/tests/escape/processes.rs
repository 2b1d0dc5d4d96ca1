//! Processes outside, and those of other users in the same step.

use super::{Test, World};

pub const TESTS: &[(&str, Test)] =
    &[("processes_outside", processes_outside), ("processes_of_others_in_the_step", processes_of_others_in_the_step)];

fn processes_outside(world: &mut World) {
    let pid = world.host.process();
    // A step's own processes have the low numbers.
    assert!(pid > 100, "too few processes here to tell this one from a step's own");
    let mut attempts = Vec::new();
    for attempt in [
        "signal",
        "attach",
        "seize",
        "pidfd",
        "slow-down",
        "read-process",
        "write-process",
        "limit-process",
        "pin-process",
    ] {
        attempts.push((format!("{attempt}={pid}"), "ESRCH"));
    }
    // Its process group.
    attempts.push((format!("signal=-{pid}"), "ESRCH"));
    for file in ["mem", "environ", "maps", "root", "cwd", "exe", "ns/user", "fd"] {
        attempts.push((format!("open-read=/proc/{pid}/{file}"), "ENOENT"));
    }
    attempts.push((format!("open-write=/proc/{pid}/mem"), "ENOENT"));
    attempts.push((format!("open-write=/proc/{pid}/oom_score_adj"), "ENOENT"));
    world.tries("RUN /probe", &attempts);

    // Nothing of memobuild itself is among those that a step sees: its first process has become the command, with the
    // step's environment and no other.
    world.project.dockerfile(
        "RUN ls -d /proc/[0-9]* | wc -l > /tmp/count; readlink /proc/1/exe > /tmp/exe; \
         for p in /proc/[0-9]*; do cat $p/environ $p/cmdline; done > /tmp/told; grep -c 'memobuil[d]' /tmp/told > /tmp/named; true\n",
    );
    let mut command = world.project.build_command(&["--output", "type=local,dest=../out"]);
    let out = command.env("MEMOBUILD_ESCAPE", "told").output().unwrap();
    assert!(out.status.success(), "{}", crate::common::text(&out.stderr));
    let read = |name: &str| world.project.place.read(&format!("../out/tmp/{name}")).trim().to_owned();
    assert!(read("count").parse::<u32>().unwrap() < 10, "{}", read("count"));
    assert_eq!((read("exe").as_str(), read("named").as_str()), ("/bin/busybox", "0"));
    world.host.is_unchanged();
}

/// Root's processes are none of another user's business. With one id the kernel does not know them apart: then all of a
/// step is the work of whoever started memobuild, which its users are told.
fn processes_of_others_in_the_step(world: &mut World) {
    if !world.who.has_ids() {
        println!("skipped: with one id all processes of a step are one user's");
        return;
    }
    let attempts = [
        ("attach=1", "EPERM"),
        ("seize=1", "EPERM"),
        ("signal=1", "EPERM"),
        ("read-process=1", "EPERM"),
        ("write-process=1", "EPERM"),
        ("limit-process=1", "EPERM"),
        ("slow-down=1", "EPERM"),
        ("open-read=/proc/1/mem", "EACCES"),
        ("open-write=/proc/1/mem", "EACCES"),
        ("open-read=/proc/1/environ", "EACCES"),
        ("read-link=/proc/1/root", "EACCES"),
        ("read-link=/proc/1/exe", "EACCES"),
        ("open-read=/proc/1/fd", "EACCES"),
    ];
    // As the last command of a pipe it is none that the shell becomes: pid 1 stays root's.
    world.tries("RUN : | /probe as=1000", &attempts);
}
