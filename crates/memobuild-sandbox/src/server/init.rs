//! Pid 1 of a step: makes the kernel's file systems ready, waits for the step, enters its root and becomes its command.
//!
//! So the command is pid 1, as under BuildKit, and nothing outlives it: the kernel kills all that is left in a pid
//! namespace when its first process ends. Before that it speaks through a socket, in messages of [`Report`], and keeps
//! no other descriptor across the exec.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{DumpableBehavior, Signal};

use super::{Failure, child, root, stage};
use crate::{
    channel::{self, Receiver},
    spec::{Begin, Room},
    wire::wire,
};

/// What a command's process says before it is the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// Setting up failed.
    Failed { what: Box<[u8]>, errno: i32 },
    /// The root is ready; the command starts.
    Ready {},
    /// The command could not be executed.
    NotStarted { reason: Box<[u8]>, code: i32 },
}
wire!(enum Report {
    0 => Failed { what, errno },
    1 => Ready {},
    2 => NotStarted { reason, code },
});

/// Says one thing. Nobody listening is not this process's trouble.
pub(super) fn report(socket: BorrowedFd<'_>, report: &Report) {
    let _ = channel::send(socket, report, &[]);
}

/// Says what went wrong.
pub(super) fn report_failure(socket: BorrowedFd<'_>, e: Failure) {
    report(socket, &Report::Failed { what: e.what.into_bytes().into(), errno: e.errno });
}

/// Runs as pid 1. Comes back with an exit code only if it never becomes the command.
pub(super) fn run(room: &Room, socket: BorrowedFd<'_>) -> i32 {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(e) = root::furnish(room) {
        report_failure(socket, e);
        return 1;
    }
    let Ok(Some((Begin::Step {}, descriptors))) = Receiver::new().receive::<Begin>(socket) else { return 1 };
    let [spec, stdout, stderr, listener @ ..] = descriptors.as_slice() else { return 1 };
    let spec = match stage::read_spec(spec.as_fd()).and_then(|spec| root::enter(&spec).map(|()| spec)) {
        Ok(spec) => spec,
        Err(e) => {
            report_failure(socket, e);
            return 1;
        }
    };
    report(socket, &Report::Ready {});
    if spec.probe {
        return 0;
    }
    let listener = listener.first().map(AsFd::as_fd);
    let e = child::become_command(&spec, (stdout.as_fd(), stderr.as_fd()), listener, socket, child::Confinement::Own);
    report(socket, &Report::NotStarted { reason: e.reason.into_bytes().into(), code: e.code });
    // They are closed, and their numbers may be another's.
    std::mem::forget(descriptors);
    e.code
}
