//! Raw system calls that no safe wrapper offers: the only place of the workspace with `unsafe`.
//!
//! Every function here is safe to call; what makes it so is said where the unsafe block stands.
#![allow(unsafe_code)]

pub(crate) mod notify;

use std::{
    ffi::{CString, c_char},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rustix::{
    process::Pid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Exit code of a forked child whose code panicked (as `EX_SOFTWARE` of sysexits.h).
const PANICKED: i32 = 70;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs `child` in a forked process, which exits with what it returns. Only for single-threaded processes: the
/// sandbox server and what it forks.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the caller's process has one thread, so no lock is held by a thread that the child lacks; the child
    // never returns from this function.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        exit_now(code);
    }
    check(pid.into())?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Ends the process at once, running no destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no memory and does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces the process by a program; returns only the error.
pub(crate) fn exec(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    fn pointers(list: &[CString]) -> Vec<*const c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Leaves the named namespaces. For single-threaded processes.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: CLONE_FILES, the flag that makes this call unsound, is never passed by this crate.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// All signals back to their defaults and none blocked, as a program expects to be started. Only the `first` call in a
/// process and its children need look at them all.
pub(crate) fn reset_signals(first: bool) {
    // SAFETY: the set is initialised by sigemptyset before it is used; SIG_DFL is a valid handler for every signal
    // (the call fails harmlessly for SIGKILL and SIGSTOP).
    unsafe {
        if first {
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Large buffers always come fresh from the kernel, as zero pages that cost nothing until they are touched.
///
/// fuser takes a zeroed buffer of 16 MiB for each thread of each session. glibc, seeing such buffers freed, would serve
/// the next ones from its heap and clear them by hand: 5 ms for each step.
pub(crate) fn fresh_large_buffers() {
    // SAFETY: mallopt sets a number; with M_MMAP_THRESHOLD it also ends glibc's own adjustment of it.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
    }
}

/// Ended children need not be waited for. Undone in a child by [`reset_signals`].
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN is a valid handler for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Makes `fd` also the descriptor `number` (0, 1 or 2), without close-on-exec.
pub(crate) fn dup_to_stdio(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: only the standard descriptors are replaced, which nobody in this process owns.
    let done = unsafe {
        if fd.as_raw_fd() == number {
            libc::fcntl(number, libc::F_SETFD, 0)
        } else {
            libc::dup3(fd.as_raw_fd(), number, 0)
        }
    };
    check(done.into()).map(drop)
}

/// Closes every descriptor from 3 on but these. Whatever owned the others must neither be used nor dropped any more: it
/// is for a process that becomes another program, or ends.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<libc::c_uint> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut from: libc::c_uint = 3;
    for end in kept.into_iter().filter(|fd| *fd >= 3).map(Some).chain([None]) {
        let last = end.map_or(libc::c_uint::MAX, |fd| fd.saturating_sub(1));
        if last >= from {
            // SAFETY: the call touches no memory; that nobody uses what it closes is the caller's promise.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0 as libc::c_uint) })?;
        }
        from = end.map_or(from, |fd| fd.saturating_add(1));
    }
    Ok(())
}

/// Every descriptor from 3 on is closed when a program is executed.
pub(crate) fn close_on_exec_from_3() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: the call only sets a flag on descriptors.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    check(done).map(drop)
}

/// Sets a resource limit by its `RLIMIT_*` number.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure lives through the call.
    let done = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    check(done.into()).map(drop)
}

fn limit_of(pid: u32, resource: u32, new: Option<libc::rlimit>) -> io::Result<libc::rlimit> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel reads one structure, if there is one, and writes the other; both live through the call.
    let done = unsafe { libc::prlimit(pid.cast_signed(), resource as _, new, &raw mut old) };
    check(done.into()).map(|_| old)
}

/// Another process's soft limit.
pub(crate) fn soft_limit_of(pid: u32, resource: u32) -> io::Result<u64> {
    limit_of(pid, resource, None).map(|limit| limit.rlim_cur)
}

/// Sets another process's soft limit.
pub(crate) fn set_soft_limit_of(pid: u32, resource: u32, soft: u64) -> io::Result<()> {
    let limit = limit_of(pid, resource, None)?;
    limit_of(pid, resource, Some(libc::rlimit { rlim_cur: soft, ..limit })).map(drop)
}

/// Raises the soft limit on open files to the hard one.
pub(crate) fn raise_open_files() -> io::Result<()> {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    set_limit(libc::RLIMIT_NOFILE, hard.unwrap_or(u64::MAX), hard.unwrap_or(u64::MAX))
}

/// Turns mount attributes on (`MOUNT_ATTR_*`) for a mount, and for all below it if asked.
pub(crate) fn mount_set_attributes(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the structure lives through the call and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(done).map(drop)
}

/// Brings a network interface up (the loopback device of a new network namespace).
pub(crate) fn interface_up(name: &[u8]) -> io::Result<()> {
    // SAFETY: a plain socket call; the descriptor is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd.into())?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: ifreq is plain data for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name) {
        *slot = *byte as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(done.into()).map(drop)
}

/// One instruction of a classic BPF program.
pub(crate) type Instruction = libc::sock_filter;

/// Installs a system call filter on this process. With `listener` the descriptor on which the filter's
/// notifications arrive is given back.
pub(crate) fn install_filter(program: &[Instruction], listener: bool) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let flags = if listener { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: the program lives through the call, its length is right, and the kernel only reads it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let fd = check(done)?;
    if !listener {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the call returns a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// From now on the calling thread runs only where a processor would be idle.
pub(crate) fn run_when_idle() -> io::Result<()> {
    // SAFETY: all fields of this C structure are integers, for which zero is a value.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the call reads the structure, which outlives it; 0 names the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) }.into())?;
    Ok(())
}
