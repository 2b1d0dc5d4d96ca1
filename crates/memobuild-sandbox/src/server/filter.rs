//! The system call filter: what Docker's and BuildKit's default profile refuses to a process without CAP_SYS_ADMIN is
//! refused here with the same errors.
//!
//! The profile is a list of what is allowed; here stands what remains of the kernel's table, so that an unknown call
//! number (newer than [`NEWEST`]) fails with ENOSYS, as with runc, and programs fall back to older calls.

use crate::sys::Instruction;

/// The last number of the unified system call table that the profile knows (`removexattrat`).
const NEWEST: u32 = 466;

/// Flags of clone that make namespaces: `CLONE_NEWNS` .. `CLONE_NEWNET` but not `CLONE_NEWTIME`, which clone cannot
/// take.
const NAMESPACES: u32 = 0x7e02_0000;

/// Values of personality() that change nothing dangerous: Linux, Linux with 32-bit uname, both also for a query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Socket families refused: AF_ALG and AF_VSOCK.
const FAMILIES: [u32; 2] = [38, 40];

const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS__sysctl,
    libc::SYS_afs_syscall,
    libc::SYS_getpmsg,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_putpmsg,
    libc::SYS_security,
    libc::SYS_sysfs,
    libc::SYS_tuxcall,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_vserver,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

#[cfg(target_arch = "x86_64")]
mod arch {
    /// AUDIT_ARCH_X86_64.
    pub(super) const NATIVE: u32 = 0xc000_003e;
    /// AUDIT_ARCH_I386: 32-bit programs run too.
    pub(super) const COMPAT: u32 = 0x4000_0003;
    /// The same refusals by i386 numbers (arch/x86/entry/syscalls/syscall_32.tbl); numbers from 424 on are common to
    /// all architectures.
    pub(super) const COMPAT_REFUSED: &[u32] = &[
        21, 22, 25, 51, 52, 62, 74, 79, 86, 87, 88, 101, 103, 110, 111, 113, 115, 121, 127, 128, 129, 130, 131, 134,
        135, 149, 166, 167, 169, 188, 189, 217, 253, 264, 273, 274, 275, 276, 283, 286, 287, 288, 294, 310, 317, 336,
        338, 342, 346, 350, 357, 374, 404, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 443, 450,
    ];
    /// set*id and chown by i386 numbers: answered with success where only one id is mapped.
    pub(super) const COMPAT_IDS: &[u32] = &[
        16, 23, 46, 70, 71, 81, 95, 138, 139, 164, 170, 182, 198, 203, 204, 206, 207, 208, 210, 212, 213, 214, 215,
        216, 298,
    ];
    pub(super) const COMPAT_CLONE: u32 = 120;
    pub(super) const COMPAT_PERSONALITY: u32 = 136;
}
#[cfg(target_arch = "aarch64")]
mod arch {
    /// AUDIT_ARCH_AARCH64.
    pub(super) const NATIVE: u32 = 0xc000_00b7;
    /// No 32-bit programs: nothing has this value.
    pub(super) const COMPAT: u32 = 0;
    pub(super) const COMPAT_REFUSED: &[u32] = &[];
    pub(super) const COMPAT_IDS: &[u32] = &[];
    pub(super) const COMPAT_CLONE: u32 = u32::MAX;
    pub(super) const COMPAT_PERSONALITY: u32 = u32::MAX;
}

/// Calls that change owners or ids: with one mapped id they are answered by the supervisor.
pub(super) const OWNERS: &[i64] = &[libc::SYS_fchown, libc::SYS_fchownat];
#[cfg(target_arch = "x86_64")]
pub(super) const OWNERS_HERE: &[i64] = &[libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OWNERS_HERE: &[i64] = &[];
const IDS: &[i64] = &[
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// Which filter a step gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Refuse what the default profile refuses.
    pub(super) confine: bool,
    /// Let the supervisor answer what changes owners or makes devices.
    pub(super) supervise: bool,
    /// Let the supervisor answer what sets and gets ids, too: there is but one. 32-bit programs are told that setting
    /// them succeeds.
    pub(super) answer_ids: bool,
}

// Offsets in seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    // The low half: both architectures are little-endian.
    16 + 8 * index
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(Instruction { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, offset, 0, 0);
    }

    fn end(&mut self, result: u32) {
        self.push(RETURN, result, 0, 0);
    }

    /// If the loaded value equals, the result; else on.
    fn on(&mut self, value: u32, result: u32) {
        self.push(JUMP_EQUAL, value, 0, 1);
        self.end(result);
    }

    /// If the loaded number is `call`, runs `body`, which must end with a return.
    fn when(&mut self, call: u32, body: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        body(&mut inner);
        self.push(JUMP_EQUAL, call, 0, inner.0.len() as u8);
        self.0.append(&mut inner.0);
    }

    fn clone_and_personality(&mut self, clone: u32, personality: u32) {
        self.when(clone, |p| {
            p.load(argument(0));
            p.push(JUMP_ANY_BIT, NAMESPACES, 0, 1);
            p.end(errno(libc::EPERM));
            p.end(ALLOW);
        });
        self.when(personality, |p| {
            p.load(argument(0));
            for value in PERSONALITIES {
                p.on(value, ALLOW);
            }
            p.end(errno(libc::EPERM));
        });
        // Its flags lie in memory that a filter cannot read; programs fall back to clone.
        self.on(libc::SYS_clone3 as u32, errno(libc::ENOSYS));
    }
}

/// The program for a step.
pub(super) fn program(choice: Choice) -> Vec<Instruction> {
    let mut p = Program(Vec::new());
    p.load(ARCH);
    let native = native(choice);
    let compat = compat(choice);
    // Conditional jumps reach 255 instructions, unconditional ones everywhere.
    p.push(JUMP_EQUAL, arch::NATIVE, 2, 0);
    p.push(JUMP_EQUAL, arch::COMPAT, 2, 0);
    p.end(errno(libc::ENOSYS));
    p.push(JUMP, compat.len() as u32, 0, 0);
    p.0.extend(compat);
    p.0.extend(native);
    p.0
}

fn native(choice: Choice) -> Vec<Instruction> {
    let mut p = Program(Vec::new());
    p.load(NUMBER);
    if choice.answer_ids {
        for call in IDS {
            p.on(*call as u32, NOTIFY);
        }
    }
    if choice.supervise {
        for call in OWNERS.iter().chain(OWNERS_HERE) {
            p.on(*call as u32, NOTIFY);
        }
        // Making devices: only the file type of the mode argument tells.
        let mut device = |call: u32, mode: u32| {
            p.when(call, |p| {
                p.load(argument(mode));
                p.push(AND, libc::S_IFMT, 0, 0);
                p.on(libc::S_IFCHR, NOTIFY);
                p.on(libc::S_IFBLK, NOTIFY);
                p.end(ALLOW);
            });
        };
        device(libc::SYS_mknodat as u32, 2);
        #[cfg(target_arch = "x86_64")]
        device(libc::SYS_mknod as u32, 1);
    }
    if choice.confine {
        // x32 numbers have bit 30 set, so they are above, too.
        p.push(JUMP_ABOVE, NEWEST, 0, 1);
        p.end(errno(libc::ENOSYS));
        p.clone_and_personality(libc::SYS_clone as u32, libc::SYS_personality as u32);
        p.when(libc::SYS_socket as u32, |p| {
            p.load(argument(0));
            for family in FAMILIES {
                p.on(family, errno(libc::EPERM));
            }
            p.end(ALLOW);
        });
        for call in REFUSED.iter().chain(REFUSED_HERE) {
            p.on(*call as u32, errno(libc::EPERM));
        }
    }
    p.end(ALLOW);
    p.0
}

fn compat(choice: Choice) -> Vec<Instruction> {
    let mut p = Program(Vec::new());
    p.load(NUMBER);
    if choice.answer_ids {
        for call in arch::COMPAT_IDS {
            p.on(*call, errno(0));
        }
    }
    if choice.confine {
        p.push(JUMP_ABOVE, NEWEST, 0, 1);
        p.end(errno(libc::ENOSYS));
        p.clone_and_personality(arch::COMPAT_CLONE, arch::COMPAT_PERSONALITY);
        for call in arch::COMPAT_REFUSED {
            p.on(*call, errno(libc::EPERM));
        }
    }
    p.end(ALLOW);
    p.0
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod published;

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny interpreter of the instructions used here.
    fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            _ => args[(offset as usize - 16) / 8] as u32,
        };
        let (mut at, mut value) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let mut branch = |yes: bool| at += usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LOAD => value = word(i.k),
                AND => value &= i.k,
                JUMP => at += i.k as usize,
                JUMP_EQUAL => branch(value == i.k),
                JUMP_ABOVE => branch(value > i.k),
                JUMP_ANY_BIT => branch(value & i.k != 0),
                RETURN => return i.k,
                other => panic!("{other:x}"),
            }
        }
    }

    fn profile(arch: u32, number: u32, args: [u64; 6]) -> u32 {
        run(&program(Choice { confine: true, supervise: false, answer_ids: false }), arch, number, args)
    }

    pub(super) fn confined(number: i64, args: [u64; 6]) -> u32 {
        profile(arch::NATIVE, number as u32, args)
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn confined_compat(number: u32, args: [u64; 6]) -> u32 {
        profile(arch::COMPAT, number, args)
    }

    #[test]
    fn the_profile_decides_as_published() {
        let eperm = errno(libc::EPERM);
        assert_eq!(confined(libc::SYS_read, [0; 6]), ALLOW);
        assert_eq!(confined(libc::SYS_mount, [0; 6]), eperm);
        assert_eq!(confined(libc::SYS_vhangup, [0; 6]), eperm);
        assert_eq!(confined(libc::SYS_clone, [0x1200011, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(confined(libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), eperm);
        assert_eq!(confined(libc::SYS_clone3, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(confined(libc::SYS_personality, [8, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(confined(libc::SYS_personality, [0x40000, 0, 0, 0, 0, 0]), eperm);
        assert_eq!(confined(libc::SYS_socket, [2, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(confined(libc::SYS_socket, [40, 1, 0, 0, 0, 0]), eperm);
        assert_eq!(confined(i64::from(NEWEST) + 1, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(confined(0x4000_0001, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(confined(libc::SYS_chown, [0; 6]), ALLOW);
    }

    #[test]
    fn other_architectures_are_told_apart() {
        let program = program(Choice { confine: true, supervise: true, answer_ids: true });
        assert_eq!(run(&program, 0x1234, 1, [0; 6]), errno(libc::ENOSYS));
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(run(&program, arch::COMPAT, 4, [0; 6]), ALLOW);
            assert_eq!(run(&program, arch::COMPAT, 21, [0; 6]), errno(libc::EPERM));
            assert_eq!(run(&program, arch::COMPAT, 213, [0; 6]), errno(0));
        }
    }

    #[test]
    fn owners_and_devices_are_asked_about_with_one_id() {
        let program = program(Choice { confine: true, supervise: true, answer_ids: true });
        let run = |number: i64, args| run(&program, arch::NATIVE, number as u32, args);
        assert_eq!(run(libc::SYS_setuid, [0; 6]), NOTIFY);
        assert_eq!(run(libc::SYS_getuid, [0; 6]), NOTIFY);
        assert_eq!(run(libc::SYS_fchownat, [0; 6]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [0, 0, u64::from(libc::S_IFBLK | 0o600), 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [0, 0, u64::from(libc::S_IFIFO | 0o600), 0, 0, 0]), ALLOW);
    }
}
