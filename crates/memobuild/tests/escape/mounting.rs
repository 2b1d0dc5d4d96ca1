//! Mounts, and namespaces in which one could mount.

use super::{Test, World};

pub const TESTS: &[(&str, Test)] =
    &[("mounting", mounting), ("mounts_of_the_kernels_files", mounts_of_the_kernels_files)];

pub const EVERYWHERE: &[(&str, Test)] = &[("mounting", mounting)];

fn mounting(world: &mut World) {
    let flags = |flag: i32| format!("{flag:#x}");
    let mut attempts: Vec<(String, &str)> = Vec::new();
    for attempt in ["mount-tmpfs", "mount-bind", "mount-shared", "unmount=/tmp", "pivot"] {
        attempts.push((attempt.into(), "EPERM"));
    }
    // The calls by which newer programs mount, with arguments that make no sense: they are not looked at.
    for call in [
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
    ] {
        attempts.push((format!("call={call}"), "EPERM"));
    }
    // open_tree_attr, of Linux 6.15: like all that is newer than the filter.
    attempts.push(("call=467".into(), "ENOSYS"));
    for namespace in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS,
    ] {
        attempts.push((format!("leave={}", flags(namespace)), "EPERM"));
        attempts.push((format!("clone={}", flags(namespace)), "EPERM"));
        attempts.push((format!("enter={}", flags(namespace)), "EPERM"));
    }
    attempts.push((format!("call={}", libc::SYS_clone3), "ENOSYS"));
    if cfg!(target_arch = "x86_64") {
        // mount, umount2, unshare and setns by their 32-bit numbers; a kernel without 32-bit programs ends the process.
        for number in [21, 52, 310, 346] {
            attempts.push((format!("call32={number}"), "EPERM|signal-11"));
        }
        // mount as the x32 ABI has it.
        attempts.push((format!("call={}", 0x4000_0000 | libc::SYS_mount), "ENOSYS"));
    }
    world.tries("RUN /probe", &attempts);
    // The same for a user who is not root in the step.
    world.tries("USER 1000\nRUN /probe", &attempts);
}

fn mounts_of_the_kernels_files(world: &mut World) {
    let mut attempts = Vec::new();
    for at in ["/", "/proc", "/proc/sys", "/proc/sysrq-trigger", "/proc/kcore", "/sys", "/dev"] {
        attempts.push((format!("mount-writable={at}"), "EPERM"));
        attempts.push((format!("unmount={at}"), "EPERM"));
    }
    world.tries("RUN /probe", &attempts);
}
