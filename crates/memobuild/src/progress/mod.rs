//! Shows a build's events on standard error, in one of four ways.
//!
//! In: [`TraceEvent`]s from many threads. Out: text. Events go through a bounded channel to one thread that writes, so
//! that a step which prints faster than the terminal reads is slowed down instead of filling memory. The display never
//! fails a build: when standard error is gone, events are dropped.

mod board;
mod lines;
mod plain;
mod rawjson;
pub(crate) mod trace_file;
mod tty;

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use clap::ValueEnum;
use memobuild_observe::{Observer, TraceEvent};

use crate::cli::terminal_is_dumb;

/// Events on their way to the display.
const QUEUE: usize = 512;
/// How often a display may act without an event.
const TICK: Duration = Duration::from_millis(100);

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// tty on a terminal, else plain
    Auto,
    /// A live display
    Tty,
    /// Lines, each with its step's number
    Plain,
    /// One JSON object for each event
    Rawjson,
    /// Nothing; the image's ID on standard output
    Quiet,
}

/// When something happened.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Since the display began.
    elapsed: Duration,
    /// By the clock on the wall.
    wall: SystemTime,
}

/// One way to show events. All calls come from one thread.
trait Display: Send {
    /// Something happened.
    fn event(&mut self, at: Moment, event: TraceEvent) -> io::Result<()>;
    /// Called about ten times a second.
    fn tick(&mut self, at: Moment) -> io::Result<()>;
    /// No event is waiting: time to write out what was collected.
    fn idle(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Nothing more will come.
    fn finish(&mut self, at: Moment) -> io::Result<()>;
}

enum Message {
    Event(Moment, Box<TraceEvent>),
    Finish,
}

/// The display as an observer of builds.
pub(crate) struct Progress {
    began: Instant,
    sender: Option<SyncSender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    labels: Mutex<Vec<(usize, String)>>,
}

impl Progress {
    /// Starts the display on standard error.
    pub(crate) fn start(mode: ProgressMode) -> Self {
        let live = io::stderr().is_terminal() && !terminal_is_dumb();
        let display: Option<Box<dyn Display>> = match mode {
            ProgressMode::Quiet => None,
            ProgressMode::Rawjson => Some(Box::new(rawjson::RawJson::new(io::stderr()))),
            ProgressMode::Auto | ProgressMode::Tty if live => Some(Box::new(tty::Tty::new(io::stderr()))),
            ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
                Some(Box::new(plain::Plain::new(io::stderr())))
            }
        };
        let began = Instant::now();
        let (sender, thread) = match display {
            None => (None, None),
            Some(display) => {
                let (sender, receiver) = sync_channel(QUEUE);
                (Some(sender), Some(thread::spawn(move || drive(display, &receiver, began))))
            }
        };
        Self { began, sender, thread: Mutex::new(thread), labels: Mutex::default() }
    }

    /// Shows what is left and ends the display. To be called when the build is over.
    pub(crate) fn finish(&self) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Finish);
        }
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    /// The label of a step of the build that was observed.
    pub(crate) fn label(&self, step: usize) -> Option<String> {
        let labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        labels.iter().find(|(id, _)| *id == step).map(|(_, label)| label.clone())
    }
}

impl Observer for Progress {
    fn event(&self, event: TraceEvent) {
        if let TraceEvent::BuildStarted { steps, .. } = &event {
            let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
            *labels = steps.iter().map(|s| (s.id, s.label.clone())).collect();
        }
        if let Some(sender) = &self.sender {
            let _ = sender.send(Message::Event(moment(self.began), Box::new(event)));
        }
    }
}

fn moment(began: Instant) -> Moment {
    Moment { elapsed: began.elapsed(), wall: SystemTime::now() }
}

/// The display's thread. Ends with the build, or when standard error can't be written to any more.
fn drive(mut display: Box<dyn Display>, receiver: &Receiver<Message>, began: Instant) {
    let mut next_tick = Instant::now() + TICK;
    loop {
        let message = match receiver.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Disconnected) => Some(Message::Finish),
            Err(TryRecvError::Empty) => {
                if display.idle().is_err() {
                    return;
                }
                match receiver.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => Some(Message::Finish),
                }
            }
        };
        let done = match message {
            Some(Message::Event(at, event)) => display.event(at, *event),
            Some(Message::Finish) => {
                let _ = display.finish(moment(began));
                return;
            }
            None => Ok(()),
        };
        if done.is_err() {
            return;
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            if display.tick(moment(began)).is_err() {
                return;
            }
        }
    }
}
