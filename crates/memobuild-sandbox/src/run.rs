//! Drives one step from the main process: sends it to the server, serves its files, hears its output, takes in its
//! harvest.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use memobuild_tree::{Diff, Tree};
use rustix::event::{PollFd, PollFlags};

use crate::{
    channel::{self, Receiver},
    contents::Contents,
    error::SandboxError,
    fuse::{
        Export, Served, Server,
        recorder::Recorder,
        sides::{Serving, Side},
    },
    harvest::assemble::{Assembled, Assembler, Clock},
    launch::{Leaving, Running, ServerHandle},
    spec::{Event, Spec},
    step::{Cancel, Exit, Outcome, Output, Stream, Timings},
};

/// What a step needs besides its spec.
pub(crate) struct Job<'a> {
    pub(crate) spec: &'a Spec,
    /// The step's scratch directory.
    pub(crate) dir: &'a Path,
    /// Trees to serve, the root first; unused where trees are laid out.
    pub(crate) trees: &'a [Tree],
    /// How they are served; `None` where trees are laid out.
    pub(crate) serving: Option<Serving<'a>>,
    /// The tree that the diff is against.
    pub(crate) before: &'a Tree,
    pub(crate) contents: &'a Arc<dyn Contents>,
    pub(crate) output: &'a dyn Output,
    pub(crate) cancel: &'a Cancel,
    /// Owner of what the step makes, where only one id is mapped.
    pub(crate) creator: (u32, u32),
    /// When the caller asked.
    pub(crate) asked: Instant,
}

/// What stands at the end of the stream of events.
enum Verdict {
    Ended,
    Error(SandboxError),
}

struct Driver<'a> {
    job: &'a Job<'a>,
    running: Running,
    recorder: Arc<Recorder>,
    files: Option<Server>,
    assembler: Option<Assembler<'a>>,
    receiver: Receiver,
    exit: Option<Exit>,
    ended: Option<Instant>,
    took: Duration,
    verdict: Option<Verdict>,
    open: [bool; 2],
    owners: crate::fuse::OwnerView,
}

/// A step that ran.
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    /// Directories whose time alone is another now.
    pub(crate) touched: Vec<Vec<u8>>,
}

/// Follows a step that has begun to its end.
pub(crate) fn run(server: &ServerHandle, running: Running, job: &Job<'_>) -> Result<Ran, SandboxError> {
    let mut driver = Driver {
        job,
        running,
        recorder: Arc::default(),
        files: None,
        assembler: None,
        receiver: Receiver::new(),
        exit: None,
        ended: None,
        took: Duration::ZERO,
        verdict: None,
        open: [true; 2],
        owners: server.ids.view(),
    };
    let looped = driver.drive();
    driver.finish(server, looped)
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..))
}

impl Driver<'_> {
    /// Waits for events until the step is over and all output was read.
    fn drive(&mut self) -> Result<(), SandboxError> {
        let mut socket_open = true;
        loop {
            if self.job.cancel.is_cancelled() {
                self.stop(SandboxError::Cancelled);
            } else if let Some(why) = self.files.as_ref().filter(|_| socket_open).and_then(Server::trouble) {
                // A step that is over has said so before its mount went and the file server ended.
                while socket_open && self.verdict.is_none() && is_readable(&self.running.socket) {
                    socket_open = self.hear()?;
                }
                self.stop(SandboxError::Serving(why));
            }
            let more = socket_open && !matches!(self.verdict, Some(Verdict::Ended));
            if !more && self.open == [false; 2] {
                return Ok(());
            }
            let ready = self.wait(more)?;
            for (index, stream) in [(0, Stream::Stdout), (1, Stream::Stderr)] {
                if ready.get(index).copied().unwrap_or_default() {
                    self.read_output(index, stream);
                }
            }
            if ready.get(2).copied().unwrap_or_default() {
                socket_open = self.hear()?;
            }
        }
    }

    /// Which of stdout, stderr and the socket have something. Wakes for cancellation and trouble, too.
    fn wait(&self, socket_open: bool) -> Result<[bool; 3], SandboxError> {
        let none = PollFlags::empty();
        let flag = |open| if open { PollFlags::IN } else { none };
        let alarmed = self.verdict.is_some();
        let mut slots: Vec<(Option<usize>, BorrowedFd<'_>, bool)> = vec![
            (Some(0), self.running.stdout.as_fd(), self.open[0]),
            (Some(1), self.running.stderr.as_fd(), self.open[1]),
            (Some(2), self.running.socket.as_fd(), socket_open),
        ];
        if let Some(event) = self.job.cancel.event() {
            slots.push((None, event, !alarmed));
        }
        if let Some(files) = &self.files {
            slots.push((None, files.alarm(), !alarmed && socket_open));
        }
        slots.retain(|(_, _, open)| *open);
        let mut polled: Vec<PollFd<'_>> =
            slots.iter().map(|(_, fd, open)| PollFd::from_borrowed_fd(*fd, flag(*open))).collect();
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(SandboxError::setup("waiting for the step", e)),
        }
        let mut ready = [false; 3];
        for ((index, _, _), polled) in slots.iter().zip(&polled) {
            if let Some(slot) = index.and_then(|index| ready.get_mut(index)) {
                *slot = !polled.revents().is_empty();
            }
        }
        Ok(ready)
    }

    /// Kills the step; what it says from now on changes nothing.
    fn stop(&mut self, why: SandboxError) {
        if self.verdict.is_none() {
            self.verdict = Some(Verdict::Error(why));
            // It may be gone already.
            let _ = channel::send(&self.running.socket, &Event::Done {}, &[]);
        }
    }

    fn read_output(&mut self, index: usize, stream: Stream) {
        let mut buffer = vec![0; 64 * 1024];
        let fd: &OwnedFd = if index == 0 { &self.running.stdout } else { &self.running.stderr };
        match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer)) {
            Ok(length @ 1..) => self.job.output.write(stream, buffer.get(..length).unwrap_or_default()),
            _ => {
                if let Some(open) = self.open.get_mut(index) {
                    *open = false;
                }
            }
        }
    }

    /// Takes in one event; false when the other end has gone.
    fn hear(&mut self) -> Result<bool, SandboxError> {
        let received = self.receiver.receive::<Event>(&self.running.socket);
        let Some((event, descriptors)) = received.map_err(|e| SandboxError::Helper(e.to_string()))? else {
            return Ok(false);
        };
        if matches!(self.verdict, Some(Verdict::Error(_))) {
            return Ok(true);
        }
        let result = self.take(event, descriptors);
        if let Err(e) = result {
            self.stop(e);
        }
        Ok(true)
    }

    fn take(&mut self, event: Event, descriptors: Vec<OwnedFd>) -> Result<(), SandboxError> {
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match event {
            Event::Fuse {} => {
                let Some(serving) = self.job.serving else {
                    return Err(SandboxError::Helper("a FUSE device that nobody asked for".into()));
                };
                let both = [Side::Plain, Side::Rich];
                if descriptors.len() != both.len() {
                    return Err(SandboxError::Helper("other than two FUSE devices came".into()));
                }
                let exports = self.job.trees.iter().enumerate().map(|(number, tree)| Export {
                    tree: tree.clone(),
                    native: number == 0 && serving.data.is_some(),
                    division: (number == 0 && serving.sides.contains(&Side::Plain)).then_some(serving.division),
                });
                let exports: Vec<Export> = exports.collect();
                // A device that is closed takes its mount with it.
                let wanted = |side: Side| serving.sides.contains(&side) || side == Side::Rich && exports.len() > 1;
                let devices = both.into_iter().zip(descriptors).filter(|(side, _)| wanted(*side)).collect();
                let served = Served { exports, owners: self.owners };
                let started = Server::start(devices, served, self.job.contents, &self.recorder);
                self.files = Some(started.map_err(|e| SandboxError::Serving(e.to_string()))?);
            }
            Event::Started {} => return Err(SandboxError::Helper("an unexpected message".into())),
            Event::Ended { signal, code, from, to, took } => {
                self.ended = Some(Instant::now());
                self.took = Duration::from_nanos(took);
                self.exit = Some(if signal { Exit::Signal(code) } else { Exit::Code(code) });
                let clock = Clock::new((from, to), self.job.trees);
                let shown = self.job.trees.first().unwrap_or(self.job.before);
                let contents = &**self.job.contents;
                self.assembler = Some(Assembler::new(
                    contents,
                    clock,
                    self.job.dir.to_owned(),
                    self.job.before,
                    shown,
                    self.job.creator,
                ));
            }
            Event::Harvest { bytes } => match &mut self.assembler {
                Some(assembler) => assembler.feed(&bytes)?,
                None => return Err(SandboxError::Helper("a harvest before the end".into())),
            },
            Event::Done {} => self.verdict = Some(Verdict::Ended),
            Event::NotStarted { reason, code } => {
                let command = self.job.spec.argv.first().map(|a| words(a)).unwrap_or_default();
                return Err(SandboxError::Start { command, reason: words(&reason), code });
            }
            Event::Failed { what, errno } => {
                return Err(SandboxError::setup(words(&what), io::Error::from_raw_os_error(errno)));
            }
            Event::HarvestFailed { what, errno } => {
                return Err(SandboxError::harvest(words(&what), io::Error::from_raw_os_error(errno)));
            }
        }
        Ok(())
    }

    fn finish(self, server: &ServerHandle, looped: Result<(), SandboxError>) -> Result<Ran, SandboxError> {
        let Running { socket, .. } = self.running;
        let verdict = match (looped, self.verdict) {
            (Err(e), _) | (Ok(()), Some(Verdict::Error(e))) => Err(e),
            (Ok(()), None) => Err(SandboxError::Helper("it ended before the step".into())),
            (Ok(()), Some(Verdict::Ended)) => Ok(()),
        };
        if let Err(e) = verdict {
            // The other end of the socket closed kills the step, so that the mount goes and the file server ends.
            Leaving::new(socket, self.files).wait();
            return Err(e);
        }
        let failure = self.files.as_ref().and_then(Server::failure);
        let assembled = match self.assembler {
            _ if failure.is_some() => Err(SandboxError::Serving(failure.unwrap_or_default())),
            Some(assembler) if self.exit.is_some_and(Exit::success) && !self.job.spec.probe => assembler.finish(),
            _ => Ok(Assembled { diff: Diff::default(), touched: Vec::new() }),
        };
        server.leave(Leaving::new(socket, self.files));
        let Assembled { diff, touched } = assembled?;
        let exit = self.exit.ok_or_else(|| SandboxError::Helper("no exit status came".into()))?;
        let now = Instant::now();
        let ended = self.ended.unwrap_or(now);
        let between = |from: Instant, to: Instant| to.checked_duration_since(from).unwrap_or(Duration::ZERO);
        let outcome = Outcome {
            exit,
            diff,
            complete: self.job.spec.room.shape.fuse && self.recorder.complete(),
            looks: self.recorder.take(self.job.trees.len()),
            looked: self.recorder.looked(),
            timings: Timings {
                setup: between(self.job.asked, ended).saturating_sub(self.took),
                run: self.took,
                harvest: between(ended, now),
            },
        };
        Ok(Ran { outcome, touched })
    }
}
