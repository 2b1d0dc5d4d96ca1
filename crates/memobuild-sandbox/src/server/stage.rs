//! One step, seen from outside of its pid namespace: sets the root up, starts pid 1, waits, harvests.
//!
//! In: a spec, the step's output pipes, a socket to the main process. Out: events on that socket. A byte from the main
//! process, or its end of the socket closed, kills the step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, Signal, WaitOptions},
    thread::UnshareFlags,
};

use super::{During, Failure, cgroup::Group, chroot, init, init::Report, notify::Supervisor, root};
use crate::{
    channel::{self, Receiver},
    harvest::walk,
    spec::{Event, Spec},
    sys,
    wire::{Wire, malformed},
};

/// Runs a step to its end. The exit code says nothing; the socket does.
pub(super) fn run(spec: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> i32 {
    let end = match step(spec, (stdout, stderr), socket) {
        Ok(end) => end,
        Err(e) => Some(Event::Failed { what: e.what.into_bytes().into(), errno: e.errno }),
    };
    end.map_or(0, |event| i32::from(channel::send(socket, &event, &[]).is_err()))
}

pub(super) fn read_spec(file: BorrowedFd<'_>) -> std::io::Result<Spec> {
    let length = rustix::fs::fstat(file)?.st_size;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| malformed())?];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, done as u64)? {
            0 => return Err(malformed()),
            n => done += n,
        }
    }
    Spec::from_bytes(&bytes)
}

/// The last event to send; `None` when all was sent or nobody listens any more.
fn step(
    spec: BorrowedFd<'_>,
    output: (BorrowedFd<'_>, BorrowedFd<'_>),
    socket: BorrowedFd<'_>,
) -> Result<Option<Event>, Failure> {
    let spec = read_spec(spec).during(|| "reading what to run".into())?;
    if spec.chroot.is_some() {
        return chroot::step(&spec, output, socket);
    }
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if spec.no_network {
        flags |= UnshareFlags::NEWNET;
    }
    sys::unshare(flags).during(|| "making namespaces".into())?;
    root::prepare(&spec, socket)?;
    // Opened before the root changes, which takes this process along.
    let places = walk::Places::open(&spec)?;
    let supervisor = spec.supervise.then(|| Supervisor::new(&spec)).transpose()?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).during(|| "making a pipe".into())?;
    let listener = supervisor.as_ref().map(Supervisor::far_end);
    let group = spec.cgroup.as_deref().and_then(Group::make);
    let from = now(rustix::time::ClockId::RealtimeCoarse);
    let pid = sys::fork(|| init::run(&spec, group.as_ref(), output, writer.as_fd(), listener))
        .during(|| "starting pid 1".into())?;
    drop(writer);
    let watch = watch(pid, reader, socket, supervisor)?;
    drop(group);
    let to = now(rustix::time::ClockId::Realtime);
    let (signal, code) = match verdict(watch.end) {
        Ok(ended) => ended,
        Err(event) => return Ok(event),
    };
    let ended = Event::Ended { signal, code, from, to };
    channel::send(socket, &ended, &[]).during(|| "reporting".into())?;
    if (signal, code) == (false, 0) && !spec.probe {
        let sent = walk::harvest(&places, &watch.owners, socket);
        if let Err(e) = sent {
            return Ok(Some(Event::HarvestFailed { what: e.what.into_bytes().into(), errno: e.errno }));
        }
    }
    Ok(Some(Event::Done {}))
}

/// How the command ended, or the last event of a step that did not get so far.
pub(super) fn verdict(end: End) -> Result<(bool, i32), Option<Event>> {
    match end {
        End::Reported(Report::Ended { signal, code }) => Ok((signal, code)),
        End::Reported(Report::Failed { what, errno }) => Err(Some(Event::Failed { what, errno })),
        End::Reported(Report::NotStarted { reason, code }) => Err(Some(Event::NotStarted { reason, code })),
        End::Reported(Report::Ready {}) | End::Silent => {
            let what = b"the step's first process ended early".as_slice().into();
            Err(Some(Event::Failed { what, errno: libc::EIO }))
        }
        End::Abandoned => Err(None),
    }
}

pub(super) fn now(clock: rustix::time::ClockId) -> (i64, u32) {
    let time = rustix::time::clock_gettime(clock);
    (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or_default())
}

pub(super) enum End {
    /// The last thing that pid 1 said.
    Reported(Report),
    /// It ended without a word.
    Silent,
    /// The main process wants no more of it, or is gone.
    Abandoned,
}

pub(super) struct Watched {
    pub(super) end: End,
    owners: super::notify::Owners,
}

/// Waits until pid 1 and with it every process of the step is gone.
pub(super) fn watch(
    pid: Pid,
    reader: OwnedFd,
    socket: BorrowedFd<'_>,
    mut supervisor: Option<Supervisor>,
) -> Result<Watched, Failure> {
    let mut pending = Vec::new();
    let mut end = End::Silent;
    loop {
        let mut polled = vec![PollFd::new(&reader, PollFlags::IN), PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        if let Some(fd) = supervisor.as_ref().and_then(Supervisor::descriptor) {
            polled.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).during(|| "waiting for the step".into()),
        }
        let ready: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        let is_ready = |index: usize| ready.get(index).is_some_and(|r| !r.is_empty());
        if is_ready(1) {
            end = End::Abandoned;
            break;
        }
        if is_ready(2)
            && let Some(supervisor) = &mut supervisor
        {
            supervisor.serve(ready.get(2).copied().unwrap_or(PollFlags::empty()))?;
        }
        if is_ready(0) && !read_reports(&reader, &mut pending, &mut end, socket) {
            break;
        }
    }
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    // Pid 1 is reaped only after all processes of its namespace are.
    let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    waited.during(|| "waiting for pid 1".into())?;
    Ok(Watched { end, owners: supervisor.map(Supervisor::into_owners).unwrap_or_default() })
}

/// Takes in what pid 1 says; false at the end.
fn read_reports(reader: &OwnedFd, pending: &mut Vec<u8>, end: &mut End, socket: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 4096];
    let Ok(got) = rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut buffer)) else { return false };
    if got == 0 {
        return false;
    }
    pending.extend_from_slice(buffer.get(..got).unwrap_or_default());
    loop {
        let mut input = pending.as_slice();
        let Ok(message) = crate::wire::get_bytes(&mut input) else { return true };
        let report = Report::from_bytes(message);
        *pending = input.to_vec();
        match report {
            Ok(Report::Ready {}) => {
                let _ = channel::send(socket, &Event::Started {}, &[]);
            }
            // The command's exit code says less than why it could not start.
            Ok(Report::Ended { .. }) if matches!(end, End::Reported(Report::NotStarted { .. })) => {}
            Ok(report) => *end = End::Reported(report),
            Err(_) => return false,
        }
    }
}

/// A message that carries a descriptor, if one has come.
pub(super) fn receive_descriptor(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let (_, mut descriptors) = Receiver::new().receive::<Event>(socket).ok()??;
    descriptors.pop()
}
