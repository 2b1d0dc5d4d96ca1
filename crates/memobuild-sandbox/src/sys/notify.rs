//! seccomp user notification: the two ioctls and their structures (linux/seccomp.h).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Names the call in the answer.
    pub(crate) id: u64,
    /// The calling thread, as seen from the reader's pid namespace.
    pub(crate) pid: u32,
    /// System call number.
    pub(crate) number: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// Takes the next call; `None` when the caller went away meanwhile.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // SAFETY: plain data for which zeros are valid; the kernel demands that they are zero.
    let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl writes one seccomp_notif.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut request) };
    if done < 0 {
        let error = io::Error::last_os_error();
        return if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) { Ok(None) } else { Err(error) };
    }
    let data = request.data;
    Ok(Some(Call { id: request.id, pid: request.pid, number: data.nr.into(), args: data.args }))
}

/// Whether the call still waits: checked after looking at the caller's memory or files, which might by then be
/// another process's.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the ioctl reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It returns this.
    Value(i64),
    /// It fails with this errno.
    Error(i32),
    /// The kernel carries it out after all.
    Continue,
}

/// Answers a call. A caller that went away is no error.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
    match answer {
        Answer::Value(value) => response.val = value,
        Answer::Error(errno) => response.error = -errno,
        Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    }
    // SAFETY: the ioctl reads one seccomp_notif_resp.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut response) };
    if done < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error);
        }
    }
    Ok(())
}

// _IOWR('!', 0, seccomp_notif), _IOWR('!', 1, seccomp_notif_resp), _IOW('!', 2, u64) of the generic ioctl encoding.
const RECEIVE: libc::Ioctl = ioctl_number(3, 0, size_of::<libc::seccomp_notif>());
const SEND: libc::Ioctl = ioctl_number(3, 1, size_of::<libc::seccomp_notif_resp>());
const ID_VALID: libc::Ioctl = ioctl_number(1, 2, size_of::<u64>());

const fn ioctl_number(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u32) << 16) | ((b'!' as u32) << 8) | number) as libc::Ioctl
}
