//! Pid 1 of a step: enters the root, starts the command, reaps, and lets nothing outlive the command.
//!
//! It speaks through a pipe only: one message of [`Report`]. It keeps no other descriptor, so that nothing of the
//! machine can be reached through `/proc/1`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};

use super::{Failure, cgroup::Group, child, root};
use crate::{
    spec::Spec,
    sys,
    wire::{Wire, wire},
};

/// What pid 1 says, in the order in which it says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// Setting up failed.
    Failed { what: Box<[u8]>, errno: i32 },
    /// The root is ready; the command starts.
    Ready {},
    /// The command could not be executed (said by the command's process itself).
    NotStarted { reason: Box<[u8]>, code: i32 },
    /// The command ended.
    Ended { signal: bool, code: i32 },
}
wire!(enum Report {
    0 => Failed { what, errno },
    1 => Ready {},
    2 => NotStarted { reason, code },
    3 => Ended { signal, code },
});

/// Says one thing. Nobody listening is not this process's trouble.
pub(super) fn report(pipe: BorrowedFd<'_>, report: &Report) {
    let mut bytes = Vec::new();
    crate::wire::put_bytes(&mut bytes, &report.to_bytes());
    let _ = rustix::io::retry_on_intr(|| rustix::io::write(pipe, &bytes));
}

/// Runs as pid 1. The exit code says nothing; the pipe does.
pub(super) fn run(
    spec: &Spec,
    group: Option<&Group>,
    output: (BorrowedFd<'_>, BorrowedFd<'_>),
    pipe: BorrowedFd<'_>,
    listener: Option<BorrowedFd<'_>>,
) -> i32 {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if let Some(group) = group {
        group.enter();
    }
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if spec.probe {
        let report_of = match root::enter(spec) {
            Ok(()) => Report::Ended { signal: false, code: 0 },
            Err(e) => Report::Failed { what: e.what.into_bytes().into(), errno: e.errno },
        };
        report(pipe, &report_of);
        return 0;
    }
    match start(spec, output, pipe, listener) {
        Ok(command) => {
            // Standard input takes the pipe; all else goes.
            if sys::dup_to_stdio(pipe, 0).is_err() {
                return 1;
            }
            sys::close_from(1);
            let status = reap_until(command);
            sys::kill_everyone();
            reap_rest();
            let (signal, code) = ended(status);
            report(std::io::stdin().as_fd(), &Report::Ended { signal, code });
            0
        }
        Err(e) => {
            report(pipe, &Report::Failed { what: e.what.into_bytes().into(), errno: e.errno });
            1
        }
    }
}

fn start(
    spec: &Spec,
    output: (BorrowedFd<'_>, BorrowedFd<'_>),
    pipe: BorrowedFd<'_>,
    listener: Option<BorrowedFd<'_>>,
) -> Result<Pid, Failure> {
    root::enter(spec)?;
    report(pipe, &Report::Ready {});
    let command = sys::fork(|| {
        let e = child::become_command(spec, output, listener, child::Confinement::Own);
        report(pipe, &Report::NotStarted { reason: e.reason.into_bytes().into(), code: e.code });
        e.code
    });
    command.map_err(|e| Failure { what: "starting the command".into(), errno: e.raw_os_error().unwrap_or(libc::EIO) })
}

/// Waits for every child that ends, orphans of the command included, until the command itself does.
pub(super) fn reap_until(command: Pid) -> Option<WaitStatus> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for all children.
pub(super) fn reap_rest() {
    while !matches!(rustix::process::wait(WaitOptions::empty()), Err(e) if e != rustix::io::Errno::INTR) {}
}

/// Whether a signal ended it, and its number or the exit code.
pub(super) fn ended(status: Option<WaitStatus>) -> (bool, i32) {
    let Some(status) = status else { return (true, libc::SIGKILL) };
    match status.terminating_signal() {
        Some(signal) => (true, signal),
        None => (false, status.exit_status().unwrap_or(1)),
    }
}
