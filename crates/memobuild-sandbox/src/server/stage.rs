//! One step, seen from outside of its pid namespace: makes a room ready, waits for the step, sets its root up, waits for
//! its command, harvests, and removes what is left.
//!
//! In: a room, and a socket to the main process on which the step comes. Out: events on that socket. Anything more from
//! the main process, or its end of the socket closed, kills the step. This process does not die with the server, but
//! ends by itself when the main process is gone, so that nothing of the step is left.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{Mode, OFlags},
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus},
    thread::UnshareFlags,
};

use super::{During, Failure, cgroup::Group, chroot, init, init::Report, notify::Supervisor, remove, root};
use crate::{
    channel::{self, Receiver},
    harvest::walk,
    spec::{Begin, Event, Room, Spec},
    sys,
    wire::{Wire, malformed},
};

/// Runs a step to its end. The exit code says nothing; the socket does.
pub(super) fn run(room: Option<&Room>, socket: BorrowedFd<'_>) -> i32 {
    let _ = rustix::process::set_parent_process_death_signal(None);
    let parent = room.and_then(|room| parent_of(&room.dir));
    let end = match room {
        Some(room) => in_room(room, socket),
        None => in_chroot(socket),
    };
    let end = end.unwrap_or_else(|e| Some(Event::Failed { what: e.what.into_bytes().into(), errno: e.errno }));
    let code = end.map_or(0, |event| i32::from(channel::send(socket, &event, &[]).is_err()));
    if let Some((parent, name)) = parent {
        // The main process takes large files from the directory, and lets go when it has them all.
        let _ = wait_for_word(socket);
        // Best effort: what stays is removed with the directory that all steps of a build share.
        let _ = remove::remove_at(parent.as_fd(), name);
    }
    code
}

/// The directory that a path lies in, opened while the path still means something, and the path's last name.
fn parent_of(at: &[u8]) -> Option<(OwnedFd, &[u8])> {
    use std::os::unix::ffi::OsStrExt;
    let slash = at.iter().rposition(|b| *b == b'/')?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = std::ffi::OsStr::from_bytes(at.get(..slash)?);
    Some((rustix::fs::open(parent, flags, Mode::empty()).ok()?, at.get(slash + 1..)?))
}

fn wait_for_word(socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))
}

/// Reads a step from its memory file.
pub(super) fn read_spec(file: BorrowedFd<'_>) -> Result<Spec, Failure> {
    let what = || "reading what to run".to_owned();
    let length = rustix::fs::fstat(file).during(what)?.st_size;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| malformed()).during(what)?];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, done as u64).during(what)? {
            0 => return Err(malformed()).during(what),
            n => done += n,
        }
    }
    Spec::from_bytes(&bytes).during(what)
}

/// What to run, and where its output goes.
struct Begun {
    spec: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Waits for the step; `None` when none will come.
fn begin(socket: BorrowedFd<'_>) -> Result<Option<Begun>, Failure> {
    let what = || "waiting for what to run".to_owned();
    let Some((Begin::Step {}, descriptors)) = Receiver::new().receive::<Begin>(socket).during(what)? else {
        return Ok(None);
    };
    let [spec, stdout, stderr] = descriptors.try_into().map_err(|_| malformed()).during(what)?;
    Ok(Some(Begun { spec, stdout, stderr }))
}

fn in_chroot(socket: BorrowedFd<'_>) -> Result<Option<Event>, Failure> {
    let Some(Begun { spec, stdout, stderr }) = begin(socket)? else { return Ok(None) };
    chroot::step(&read_spec(spec.as_fd())?, (stdout, stderr), socket)
}

/// The last event to send; `None` when all was sent or nobody listens any more.
fn in_room(room: &Room, socket: BorrowedFd<'_>) -> Result<Option<Event>, Failure> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(flags).during(|| "making namespaces".into())?;
    root::prepare(room, socket)?;
    let (near, far) = channel::pair().during(|| "making a socket".into())?;
    let pid = sys::fork(|| init::run(room, far.as_fd())).during(|| "starting pid 1".into())?;
    drop(far);
    let command = Command::new(pid, near)?;
    let Some(begun) = begin(socket)? else { return Ok(None) };
    let from = now(rustix::time::ClockId::RealtimeCoarse);
    let spec = read_spec(begun.spec.as_fd())?;
    root::overlay(&spec)?;
    // Opened before the root changes, which takes this process along.
    let places = walk::Places::open(&spec)?;
    let mut supervisor = spec.supervise.then(|| Supervisor::new(&spec)).transpose()?;
    let group = spec.cgroup.as_deref().and_then(Group::make);
    if let Some(group) = &group {
        group.take_in(pid);
    }
    command.begin(begun, supervisor.as_ref().map(Supervisor::far_end));
    let watched = command.watch(socket, supervisor.as_mut())?;
    drop(group);
    let to = now(rustix::time::ClockId::Realtime);
    let Watched::Ended { signal, code, took } = watched else { return Ok(watched.into_event()) };
    channel::send(socket, &Event::Ended { signal, code, from, to, took }, &[]).during(|| "reporting".into())?;
    if (signal, code) == (false, 0) && !spec.probe {
        let owners = supervisor.map(Supervisor::into_owners).unwrap_or_default();
        if let Err(e) = walk::harvest(&places, &owners, socket) {
            return Ok(Some(Event::HarvestFailed { what: e.what.into_bytes().into(), errno: e.errno }));
        }
    }
    Ok(Some(Event::Done {}))
}

pub(super) fn now(clock: rustix::time::ClockId) -> (i64, u32) {
    let time = rustix::time::clock_gettime(clock);
    (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What became of a command's process.
pub(super) enum Watched {
    /// It was the command and ended, within so many nanoseconds.
    Ended { signal: bool, code: i32, took: u64 },
    /// It never became the command.
    Failed(Event),
    /// The main process wants no more of it, or is gone.
    Abandoned,
}

impl Watched {
    /// The last event of a step that has not ended by itself.
    pub(super) fn into_event(self) -> Option<Event> {
        match self {
            Self::Failed(event) => Some(event),
            Self::Ended { .. } | Self::Abandoned => None,
        }
    }
}

/// A process that becomes a step's command; killed and waited for when dropped.
pub(super) struct Command {
    pid: Pid,
    end: OwnedFd,
    reports: OwnedFd,
    ready: Option<Instant>,
    failed: Option<Event>,
    reaped: bool,
}

impl Command {
    /// `reports` is the socket on which the process speaks.
    pub(super) fn new(pid: Pid, reports: OwnedFd) -> Result<Self, Failure> {
        let end = rustix::process::pidfd_open(pid, PidfdFlags::empty()).during(|| "watching the command".into())?;
        Ok(Self { pid, end, reports, ready: None, failed: None, reaped: false })
    }

    /// Hands the step over to pid 1. That it is gone shows when it is watched.
    fn begin(&self, begun: Begun, listener: Option<BorrowedFd<'_>>) {
        let mut descriptors = vec![begun.spec.as_fd(), begun.stdout.as_fd(), begun.stderr.as_fd()];
        descriptors.extend(listener);
        let _ = channel::send(&self.reports, &Begin::Step {}, &descriptors);
    }

    /// Waits until the process is gone, and with a pid 1 every process of the step.
    pub(super) fn watch(
        mut self,
        socket: BorrowedFd<'_>,
        mut supervisor: Option<&mut Supervisor>,
    ) -> Result<Watched, Failure> {
        let mut speaks = true;
        loop {
            let mut polled =
                vec![PollFd::new(&self.end, PollFlags::IN), PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            let (mut asks_at, mut speaks_at) = (None, None);
            if let Some(fd) = supervisor.as_ref().and_then(|s| s.descriptor()) {
                asks_at = Some(polled.len());
                polled.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
            if speaks {
                speaks_at = Some(polled.len());
                polled.push(PollFd::new(&self.reports, PollFlags::IN));
            }
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).during(|| "waiting for the step".into()),
            }
            let ready: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
            drop(polled);
            let at = |index: Option<usize>| index.and_then(|i| ready.get(i)).copied().filter(|r| !r.is_empty());
            if at(Some(1)).is_some() {
                return Ok(Watched::Abandoned);
            }
            if let (Some(ready), Some(supervisor)) = (at(asks_at), &mut supervisor) {
                supervisor.serve(ready)?;
            }
            if at(speaks_at).is_some() {
                speaks = self.hear();
            }
            if at(Some(0)).is_some() {
                // What it said before its end is there.
                while speaks {
                    speaks = self.hear();
                }
                break;
            }
        }
        let (signal, code) = ended(self.reap()?);
        Ok(match (self.failed.take(), self.ready) {
            (Some(event), _) => Watched::Failed(event),
            (None, Some(since)) => {
                let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Watched::Ended { signal, code, took }
            }
            (None, None) => {
                let what = b"the step's first process ended early".as_slice().into();
                Watched::Failed(Event::Failed { what, errno: libc::EIO })
            }
        })
    }

    /// Takes in one thing that the process says; false at the end.
    fn hear(&mut self) -> bool {
        match Receiver::new().receive::<Report>(&self.reports) {
            Ok(Some((Report::Ready {}, _))) => self.ready = Some(Instant::now()),
            Ok(Some((Report::Failed { what, errno }, _))) => self.failed = Some(Event::Failed { what, errno }),
            Ok(Some((Report::NotStarted { reason, code }, _))) => {
                self.failed = Some(Event::NotStarted { reason, code });
            }
            Ok(None) | Err(_) => return false,
        }
        true
    }

    fn reap(&mut self) -> Result<Option<WaitStatus>, Failure> {
        // A pid 1 is reaped only after all processes of its namespace are.
        let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.pid), WaitOptions::empty()));
        self.reaped = true;
        Ok(waited.during(|| "waiting for the command".into())?.map(|(_, status)| status))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// Whether a signal ended it, and its number or the exit code.
fn ended(status: Option<WaitStatus>) -> (bool, i32) {
    let Some(status) = status else { return (true, libc::SIGKILL) };
    match status.terminating_signal() {
        Some(signal) => (true, signal),
        None => (false, status.exit_status().unwrap_or(1)),
    }
}

/// A message that carries a descriptor, if one has come.
pub(super) fn receive_descriptor(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let (_, mut descriptors) = Receiver::new().receive::<Event>(socket).ok()??;
    descriptors.pop()
}
