//! The filter beside the profile that Docker and BuildKit use by default.
//!
//! The table below is made from the profile's published form: what it allows to a container with the default capabilities,
//! taken away from the kernel's table. Source: `seccomp/default.json` of github.com/moby/profiles, version seccomp/v0.2.3
//! (May 2026), the one that BuildKit is built with in August 2026. Where the two differ, [`DIFFERENCES`] says why.

#[cfg(target_arch = "x86_64")]
use super::tests::confined_compat;
use super::{tests::confined, *};

/// By which capability the profile would allow a call; none of them is among the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum But {
    /// It is refused whatever the capabilities.
    Never,
    Admin,
    AdminOrBpf,
    AdminOrPerfmon,
    AdminOrSyslog,
    Boot,
    DacReadSearch,
    Module,
    Nice,
    Pacct,
    Ptrace,
    RawIo,
    Time,
    TtyConfig,
}

use But::*;

/// What the profile refuses on every architecture, by the kernel's names and the numbers that the filter sees.
const PUBLISHED: &[(&str, i64, But)] = &[
    ("acct", libc::SYS_acct, Pacct),
    ("add_key", libc::SYS_add_key, Never),
    ("bpf", libc::SYS_bpf, AdminOrBpf),
    ("clock_settime", libc::SYS_clock_settime, Time),
    ("clone3", libc::SYS_clone3, Admin),
    ("delete_module", libc::SYS_delete_module, Module),
    ("fanotify_init", libc::SYS_fanotify_init, Admin),
    ("finit_module", libc::SYS_finit_module, Module),
    ("fsconfig", libc::SYS_fsconfig, Admin),
    ("fsmount", libc::SYS_fsmount, Admin),
    ("fsopen", libc::SYS_fsopen, Admin),
    ("fspick", libc::SYS_fspick, Admin),
    ("get_mempolicy", libc::SYS_get_mempolicy, Nice),
    ("init_module", libc::SYS_init_module, Module),
    ("io_uring_enter", libc::SYS_io_uring_enter, Never),
    ("io_uring_register", libc::SYS_io_uring_register, Never),
    ("io_uring_setup", libc::SYS_io_uring_setup, Never),
    ("kcmp", libc::SYS_kcmp, Ptrace),
    ("kexec_file_load", libc::SYS_kexec_file_load, Never),
    ("kexec_load", libc::SYS_kexec_load, Never),
    ("keyctl", libc::SYS_keyctl, Never),
    ("lookup_dcookie", libc::SYS_lookup_dcookie, Admin),
    ("lsm_get_self_attr", 459, Admin),
    ("lsm_list_modules", 461, Admin),
    ("lsm_set_self_attr", 460, Admin),
    ("mbind", libc::SYS_mbind, Nice),
    ("migrate_pages", libc::SYS_migrate_pages, Never),
    ("mount", libc::SYS_mount, Admin),
    ("mount_setattr", libc::SYS_mount_setattr, Admin),
    ("move_mount", libc::SYS_move_mount, Admin),
    ("move_pages", libc::SYS_move_pages, Never),
    ("nfsservctl", libc::SYS_nfsservctl, Never),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, DacReadSearch),
    ("open_tree", libc::SYS_open_tree, Admin),
    ("perf_event_open", libc::SYS_perf_event_open, AdminOrPerfmon),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, Ptrace),
    ("pivot_root", libc::SYS_pivot_root, Never),
    ("process_madvise", libc::SYS_process_madvise, Ptrace),
    ("quotactl", libc::SYS_quotactl, Admin),
    ("quotactl_fd", libc::SYS_quotactl_fd, Admin),
    ("reboot", libc::SYS_reboot, Boot),
    ("request_key", libc::SYS_request_key, Never),
    ("set_mempolicy", libc::SYS_set_mempolicy, Nice),
    ("set_mempolicy_home_node", libc::SYS_set_mempolicy_home_node, Nice),
    ("setdomainname", libc::SYS_setdomainname, Admin),
    ("sethostname", libc::SYS_sethostname, Admin),
    ("setns", libc::SYS_setns, Admin),
    ("settimeofday", libc::SYS_settimeofday, Time),
    ("swapoff", libc::SYS_swapoff, Never),
    ("swapon", libc::SYS_swapon, Never),
    ("syslog", libc::SYS_syslog, AdminOrSyslog),
    ("umount2", libc::SYS_umount2, Admin),
    ("unshare", libc::SYS_unshare, Admin),
    ("userfaultfd", libc::SYS_userfaultfd, Never),
    ("vhangup", libc::SYS_vhangup, TtyConfig),
];

/// What it refuses besides where there are such calls.
#[cfg(target_arch = "x86_64")]
const PUBLISHED_HERE: &[(&str, i64, But)] = &[
    ("_sysctl", libc::SYS__sysctl, Never),
    ("afs_syscall", libc::SYS_afs_syscall, Never),
    ("create_module", 174, Never),
    ("get_kernel_syms", 177, Never),
    ("getpmsg", libc::SYS_getpmsg, Never),
    ("ioperm", libc::SYS_ioperm, RawIo),
    ("iopl", libc::SYS_iopl, RawIo),
    ("putpmsg", libc::SYS_putpmsg, Never),
    ("query_module", 178, Never),
    ("security", libc::SYS_security, Never),
    ("sysfs", libc::SYS_sysfs, Never),
    ("tuxcall", libc::SYS_tuxcall, Never),
    ("uselib", libc::SYS_uselib, Never),
    ("ustat", libc::SYS_ustat, Never),
    ("vserver", libc::SYS_vserver, Never),
];
#[cfg(not(target_arch = "x86_64"))]
const PUBLISHED_HERE: &[(&str, i64, But)] = &[];

/// Calls of the table that the filter lets through, and why that gives a step nothing.
const DIFFERENCES: &[(&str, &str)] = &[
    // The kernel asks for what ptrace asks for, and the profile allows ptrace on every kernel since 4.8.
    ("kcmp", "of processes that the caller may trace anyway"),
    ("pidfd_getfd", "of processes that the caller may trace anyway"),
    ("process_madvise", "of processes that the caller may trace anyway"),
    // The profile's authors closed them until their use is settled.
    ("lsm_get_self_attr", "tells a process of itself, as /proc/self/attr does"),
    ("lsm_list_modules", "tells the names that /sys/kernel/security/lsm tells"),
    ("lsm_set_self_attr", "a security module decides on it, as on writing to /proc/self/attr"),
    // No kernel since 2.6 has them: the answer is ENOSYS instead of EPERM.
    ("create_module", "the kernel has no such call"),
    ("get_kernel_syms", "the kernel has no such call"),
    ("query_module", "the kernel has no such call"),
];

fn published() -> impl Iterator<Item = &'static (&'static str, i64, But)> {
    PUBLISHED.iter().chain(PUBLISHED_HERE)
}

#[test]
fn what_the_published_profile_refuses_is_refused() {
    for (name, number, _) in published() {
        let expected = match *name {
            // So that programs fall back to clone, whose flags can be looked at.
            "clone3" => errno(libc::ENOSYS),
            _ if DIFFERENCES.iter().any(|(different, _)| different == name) => ALLOW,
            _ => errno(libc::EPERM),
        };
        // Whatever the arguments.
        for args in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(confined(*number, args), expected, "{name}");
        }
    }
}

/// What the filter refuses as a whole stands in the table: nothing that Docker allows is taken away from a step.
#[test]
fn nothing_else_is_refused() {
    let known: Vec<i64> = published().map(|(_, number, _)| *number).collect();
    for number in 0..=i64::from(NEWEST) {
        if known.contains(&number) {
            continue;
        }
        let allowed = confined(number, [0; 6]) == ALLOW;
        assert!(allowed, "{number} is refused, and the profile allows it");
    }
    assert_eq!(confined(i64::from(NEWEST) + 1, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn each_difference_is_one() {
    for (name, why) in DIFFERENCES {
        let listed = published().any(|(published, ..)| published == name);
        assert!(listed || cfg!(not(target_arch = "x86_64")), "{name} is not refused by the profile: {why}");
    }
}

/// None of the capabilities by which the profile would allow more is one that steps have.
#[test]
fn no_step_has_what_would_open_more() {
    use crate::server::child::DEFAULT_CAPABILITIES as HELD;
    use rustix::thread::CapabilitySet as Set;
    for (name, _, but) in published() {
        let opening = match but {
            Never => Set::empty(),
            Admin => Set::SYS_ADMIN,
            AdminOrBpf => Set::SYS_ADMIN | Set::BPF,
            AdminOrPerfmon => Set::SYS_ADMIN | Set::PERFMON,
            AdminOrSyslog => Set::SYS_ADMIN | Set::SYSLOG,
            Boot => Set::SYS_BOOT,
            DacReadSearch => Set::DAC_READ_SEARCH,
            Module => Set::SYS_MODULE,
            Nice => Set::SYS_NICE,
            Pacct => Set::SYS_PACCT,
            Ptrace => Set::SYS_PTRACE,
            RawIo => Set::SYS_RAWIO,
            Time => Set::SYS_TIME,
            TtyConfig => Set::SYS_TTY_CONFIG,
        };
        assert!((HELD & opening).is_empty(), "{name}");
    }
}

/// The profile decides on these by their arguments.
#[test]
fn arguments_decide_as_published() {
    let eperm = errno(libc::EPERM);
    for family in 0..64 {
        // AF_ALG and AF_VSOCK.
        let expected = if matches!(family, 38 | 40) { eperm } else { ALLOW };
        assert_eq!(confined(libc::SYS_socket, [family, 1, 0, 0, 0, 0]), expected, "socket family {family}");
    }
    let personalities: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    for value in personalities {
        assert_eq!(confined(libc::SYS_personality, [value, 0, 0, 0, 0, 0]), ALLOW, "{value:x}");
    }
    for bit in (0..32).map(|bit| 1_u64 << bit).filter(|value| !personalities.contains(value)) {
        assert_eq!(confined(libc::SYS_personality, [bit, 0, 0, 0, 0, 0]), eperm, "{bit:x}");
    }
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    for flag in (0..32).map(|bit| 1_u64 << bit) {
        let expected = if u64::from(namespaces.cast_unsigned()) & flag == 0 { ALLOW } else { eperm };
        assert_eq!(confined(libc::SYS_clone, [flag, 0, 0, 0, 0, 0]), expected, "clone flag {flag:x}");
    }
}

/// The same calls by the numbers of 32-bit programs, which the profile covers as well.
#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_refused_the_same() {
    /// The profile's refusals that exist there, by the i386 table's numbers. Numbers from 424 on are common to both.
    const NUMBERS: &[(&str, u32)] = &[
        ("mount", 21),
        ("umount", 22),
        ("stime", 25),
        ("acct", 51),
        ("umount2", 52),
        ("ustat", 62),
        ("sethostname", 74),
        ("settimeofday", 79),
        ("uselib", 86),
        ("swapon", 87),
        ("reboot", 88),
        ("ioperm", 101),
        ("syslog", 103),
        ("iopl", 110),
        ("vhangup", 111),
        ("vm86old", 113),
        ("swapoff", 115),
        ("setdomainname", 121),
        ("create_module", 127),
        ("init_module", 128),
        ("delete_module", 129),
        ("get_kernel_syms", 130),
        ("quotactl", 131),
        ("bdflush", 134),
        ("sysfs", 135),
        ("_sysctl", 149),
        ("vm86", 166),
        ("query_module", 167),
        ("nfsservctl", 169),
        ("getpmsg", 188),
        ("putpmsg", 189),
        ("pivot_root", 217),
        ("lookup_dcookie", 253),
        ("clock_settime", 264),
        ("vserver", 273),
        ("mbind", 274),
        ("get_mempolicy", 275),
        ("set_mempolicy", 276),
        ("kexec_load", 283),
        ("add_key", 286),
        ("request_key", 287),
        ("keyctl", 288),
        ("migrate_pages", 294),
        ("unshare", 310),
        ("move_pages", 317),
        ("perf_event_open", 336),
        ("fanotify_init", 338),
        ("open_by_handle_at", 342),
        ("setns", 346),
        ("finit_module", 350),
        ("bpf", 357),
        ("userfaultfd", 374),
        ("clock_settime64", 404),
        ("io_uring_setup", 425),
        ("io_uring_enter", 426),
        ("io_uring_register", 427),
        ("open_tree", 428),
        ("move_mount", 429),
        ("fsopen", 430),
        ("fsconfig", 431),
        ("fsmount", 432),
        ("fspick", 433),
        ("mount_setattr", 442),
        ("quotactl_fd", 443),
        ("set_mempolicy_home_node", 450),
    ];
    for (name, number) in NUMBERS {
        assert_eq!(confined_compat(*number, [0; 6]), errno(libc::EPERM), "{name}");
    }
    let known = |number: u32| NUMBERS.iter().any(|(_, known)| *known == number);
    // clone without namespaces, personality, and clone3 are decided on otherwise.
    for number in (0..=NEWEST).filter(|number| !known(*number) && *number != libc::SYS_clone3 as u32) {
        assert_eq!(confined_compat(number, [0; 6]), ALLOW, "{number}");
    }
    // The profile looks at the family of `socket` here too, and lets `socketcall` make the same sockets: nothing is gained
    // by the one without the other. What it refuses besides are calls of Linux 1 that newer ones have replaced (`oldstat`,
    // `signal`, `nice`...), which do no more than those.
    const SOCKET: u32 = 359;
    assert_eq!(confined_compat(SOCKET, [38, 5, 0, 0, 0, 0]), ALLOW);
}
