//! System calls that reach into the kernel, and what belongs to the machine as a whole: its clocks, its settings.

use super::{Test, World};

pub const TESTS: &[(&str, Test)] = &[("kernel_calls", kernel_calls), ("kernel_files", kernel_files)];

pub const EVERYWHERE: &[(&str, Test)] = &[("kernel_calls", kernel_calls)];

/// What is refused whatever the arguments are. None of it does anything with those that it gets.
const CALLS: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_vhangup,
];

fn kernel_calls(world: &mut World) {
    let mut attempts: Vec<(String, &str)> = CALLS.iter().map(|call| (format!("call={call}"), "EPERM")).collect();
    for attempt in [
        "key-add=memobuild",
        "key-request=memobuild",
        "key-control",
        "bpf",
        "events",
        "ring",
        "page-faults",
        "by-handle",
        "set-clock",
        "tune-clock",
        "set-name=memobuild-escape",
        "set-domain=memobuild-escape",
        "kernel-log",
        "interface-flags=lo",
        // Addresses that are the same in each process.
        "persona=0x40000",
        // AF_ALG and AF_VSOCK.
        "family-packets=38",
        "family=40",
    ] {
        attempts.push((attempt.into(), "EPERM"));
    }
    if cfg!(target_arch = "x86_64") {
        #[cfg(target_arch = "x86_64")]
        attempts.extend([libc::SYS_iopl, libc::SYS_ioperm].map(|call| (format!("call={call}"), "EPERM")));
        // add_key, keyctl, bpf, perf_event_open, init_module, reboot and swapoff by their 32-bit numbers.
        for number in [286, 288, 357, 336, 128, 88, 115] {
            attempts.push((format!("call32={number}"), "EPERM|signal-11"));
        }
    }
    world.tries("RUN /probe", &attempts);
    world.tries("USER 1000\nRUN /probe", &attempts);
}

fn kernel_files(world: &mut World) {
    let mut attempts = Vec::new();
    // Who is not root of the machine may not write to most of them in the first place.
    for setting in [
        "kernel/hostname",
        "kernel/domainname",
        "kernel/core_pattern",
        "kernel/modprobe",
        "kernel/panic",
        "kernel/sysrq",
        "kernel/ns_last_pid",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
    ] {
        attempts.push((format!("open-write=/proc/sys/{setting}"), "EROFS|EACCES|ENOENT"));
    }
    attempts.push(("open-write=/proc/sysrq-trigger".into(), "EROFS|EACCES|ENOENT"));
    for at in ["/proc/escape", "/proc/sys/escape"] {
        attempts.push((format!("mkdir={at}"), "EROFS|ENOENT|EPERM|EACCES"));
    }
    for at in ["/sys/escape", "/sys/kernel/escape"] {
        attempts.push((format!("mkdir={at}"), "EROFS"));
    }
    attempts.push(("open-write=/sys/power/state".into(), "EROFS|EACCES|ENOENT"));
    // Masked: an empty file in its place, or an empty directory.
    for at in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug"] {
        attempts.push((format!("read={at}"), "nothing|ENOENT"));
    }
    for at in ["/sys/firmware/acpi", "/sys/firmware/efi", "/sys/devices/virtual/powercap/intel-rapl", "/proc/scsi/scsi"]
    {
        attempts.push((format!("open-read={at}"), "ENOENT"));
    }
    for at in ["/dev/mem", "/dev/kmsg", "/dev/port", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/kvm", "/dev/net/tun"] {
        attempts.push((format!("open-read={at}"), "ENOENT"));
    }
    world.tries("RUN /probe", &attempts);
}
