//! A step without namespaces or mounts: chroot into a root that is laid out, and a scan afterwards.
//!
//! What a container runtime gives root by default is enough. The step's processes are found and killed as this
//! process's descendants, since it adopts orphans.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::process::{Pid, Signal};

use super::{
    During, Failure, child, init,
    init::Report,
    notify::Owners,
    stage::{self, Command, Watched},
};
use crate::{
    channel,
    harvest::{
        scan::{Before, Scan},
        walk::{Places, Walker},
    },
    spec::{Event, Spec},
    sys,
};

/// Runs a step; gives the last event to send.
pub(super) fn step(spec: &Spec, output: (OwnedFd, OwnedFd), socket: BorrowedFd<'_>) -> Result<Option<Event>, Failure> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).during(|| "adopting orphans".into())?;
    let places = Places::open(spec)?;
    let before = Before::look(&places, spec)?;
    let (near, far) = channel::pair().during(|| "making a socket".into())?;
    let from = stage::now(rustix::time::ClockId::RealtimeCoarse);
    let pid = sys::fork(|| runner(spec, (output.0.as_fd(), output.1.as_fd()), far.as_fd()));
    let pid = pid.during(|| "starting the step".into())?;
    drop((far, output));
    let watched = Command::new(pid, near)?.watch(socket, None);
    kill_descendants();
    let watched = watched?;
    let to = stage::now(rustix::time::ClockId::Realtime);
    let Watched::Ended { signal, code, took } = watched else { return Ok(watched.into_event()) };
    channel::send(socket, &Event::Ended { signal, code, from, to, took }, &[]).during(|| "reporting".into())?;
    if (signal, code) == (false, 0) && !spec.probe {
        let owners = Owners::default();
        let scanned = Scan::new(Walker::new(&places, &owners, socket), &before).run();
        if let Err(e) = scanned {
            return Ok(Some(Event::HarvestFailed { what: e.what.into_bytes().into(), errno: e.errno }));
        }
    }
    Ok(Some(Event::Done {}))
}

/// Changes root and becomes the command.
fn runner(spec: &Spec, output: (BorrowedFd<'_>, BorrowedFd<'_>), socket: BorrowedFd<'_>) -> i32 {
    let root = spec.chroot.as_deref().unwrap_or(b"/");
    let entered = rustix::process::chdir(OsStr::from_bytes(root))
        .during(|| "entering the root".into())
        .and_then(|()| rustix::process::chroot(".").during(|| "changing the root".into()));
    if let Err(e) = entered {
        init::report_failure(socket, e);
        return 1;
    }
    init::report(socket, &Report::Ready {});
    if spec.probe {
        return 0;
    }
    let e = child::become_command(spec, output, None, socket, child::Confinement::Inherited);
    init::report(socket, &Report::NotStarted { reason: e.reason.into_bytes().into(), code: e.code });
    e.code
}

/// Kills children until there are none: the children of a killed one become this process's own.
fn kill_descendants() {
    use rustix::process::{WaitOptions, wait};
    loop {
        for pid in children() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(rustix::io::Errno::CHILD) => return,
                Err(_) => break,
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Processes whose parent this is, by /proc/PID/stat.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: i32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the state and the parent follow the last one.
        let after = stat.iter().rposition(|b| *b == b')')?;
        let rest = String::from_utf8_lossy(stat.get(after + 1..)?).into_owned();
        let parent: i32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (parent == own).then_some(pid)
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(is_child).filter_map(Pid::from_raw).collect()
}
