#!/usr/bin/env python3
"""Writes the config.json of an OCI bundle that is confined as Docker confines a container by default.

Usage: bundle.py BUNDLE COMMAND...

Root, Docker's default capabilities, its default system call profile (written here as what it refuses), its masked
paths, no /dev/fuse. What is not said here is left to the runtime.
"""
import json
import sys

CAPABILITIES = """CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE""".split()

# What the profile does not allow without CAP_SYS_ADMIN and its like.
REFUSED = """acct add_key bpf clock_settime delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick
get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl
lookup_dcookie mbind migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at
open_tree perf_event_open pivot_root quotactl reboot request_key set_mempolicy setdomainname sethostname setns
settimeofday swapoff swapon syslog umount2 unshare userfaultfd vhangup""".split()

NAMESPACE_FLAGS = 0x7E020000


def config(command):
    capabilities = ["CAP_" + name for name in CAPABILITIES]
    # A system call that makes a namespace by clone, or by clone3, whose arguments a filter cannot read.
    flags = range(17, 32)
    clone = [
        {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 0, "value": 1 << bit, "valueTwo": 1 << bit, "op": "SCMP_CMP_MASKED_EQ"}]}
        for bit in flags if NAMESPACE_FLAGS >> bit & 1
    ]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": "container",
        "process": {
            "terminal": False, "cwd": "/", "args": command, "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/bin:/usr/bin", "HOME=/root", "MEMOBUILD_SANDBOX_TEST_EXPECT=chroot", "RUST_BACKTRACE=1"],
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                "syscalls": [
                    {"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                    *clone,
                ],
            },
        },
    }


if __name__ == "__main__":
    bundle, command = sys.argv[1], sys.argv[2:]
    with open(bundle + "/config.json", "w", encoding="utf-8") as out:
        json.dump(config(command), out, indent=1)
