//! Rights that a step does not have, and the ways to get more: programs of root's, capabilities in files, limits.

use super::{Test, World};

pub const TESTS: &[(&str, Test)] =
    &[("capabilities", capabilities), ("programs_of_root", programs_of_root), ("limits", limits)];

/// The fourteen that Docker gives a container by default, by their bits.
const DEFAULT: &str = "a80425fb";

/// Capabilities that would open a way out, by their numbers: DAC_READ_SEARCH, NET_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_PTRACE,
/// SYS_ADMIN, SYS_BOOT, SYS_TIME, MAC_ADMIN, SYSLOG, BPF.
const DANGEROUS: [u32; 11] = [2, 12, 16, 17, 19, 21, 22, 25, 33, 34, 39];

fn capabilities(world: &mut World) {
    let mut attempts = vec![(format!("held-besides={DEFAULT}"), "nothing")];
    for number in DANGEROUS {
        attempts.push((format!("gain={number}"), "EPERM"));
        attempts.push((format!("ambient={number}"), "EPERM"));
        // Such a program does not start. The number of the first capability that this kernel lacks would be refused
        // before.
        attempts.push((format!("file-capability={number}"), "EPERM"));
    }
    world.tries("RUN /probe", &attempts);
}

/// Set-user-ID programs make root of their callers, in the step and no further.
fn programs_of_root(world: &mut World) {
    let attempts = [
        (format!("held-besides={DEFAULT}"), "nothing"),
        ("mount-tmpfs".into(), "EPERM"),
        ("leave=0x10000000".into(), "EPERM"),
        ("key-add=memobuild".into(), "EPERM"),
        ("gain=21".into(), "EPERM"),
        ("open-write=/proc/sys/kernel/core_pattern".into(), "EROFS|EACCES"),
        (format!("climb={}", world.host.secret().display()), "ENOENT"),
    ];
    world.tries("USER 1000\nRUN /probe-of-root", &attempts);
    world.tries("USER 1000\nRUN /probe", &attempts);
    if world.who.has_ids() {
        // A user has no capability to begin with.
        world.tries("USER 1000\nRUN /probe", &[("gain=0", "EPERM"), ("chroot-twice=/bin/sh", "EPERM")]);
    }
}

fn limits(world: &mut World) {
    let mut attempts = vec![("raise-limit", "EPERM|nothing"), ("hurry", "EACCES"), ("real-time", "EPERM")];
    // A terminal to type into.
    attempts.push(("open-write=/dev/tty", "ENXIO"));
    world.tries("RUN /probe", &attempts);
}
