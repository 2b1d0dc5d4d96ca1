//! Keeps a processor awake while a step asks for one file after another.
//!
//! The step waits for each answer, and so does the server for each question: with nothing else to do the processor is
//! halted in between, and in a virtual machine waking it takes longer than answering. A thread that only runs where
//! nothing else would (SCHED_IDLE) spins as long as questions keep coming, as KVM's halt polling does on the host.
//! Measured on two virtual processors: some 5% of `npm ci`, which asks 3,500 questions, and as much of a `find`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use crate::sys;

/// For how long after a question.
const LINGER: Duration = Duration::from_millis(2);

/// What the spinning thread and those that are asked share.
#[derive(Debug)]
struct Shared {
    started: Instant,
    /// When the last question came, in nanoseconds since the start.
    last: AtomicU64,
    asleep: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn spin(&self) {
        if sys::run_when_idle().is_err() {
            return;
        }
        while !self.ended.load(Ordering::SeqCst) {
            if self.now().saturating_sub(self.last.load(Ordering::SeqCst)) <= LINGER.as_nanos() as u64 {
                std::thread::yield_now();
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                // Whoever asks, or ends this, after that line wakes it.
                std::thread::park_timeout(Duration::from_secs(3600));
            }
        }
    }
}

/// The spinning thread; it ends with this.
#[derive(Debug)]
pub(super) struct Awake {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Tells of questions.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    shared: Arc<Shared>,
    thread: Option<Thread>,
}

impl Awake {
    /// Starts it. Where no thread can be had, it does nothing.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            last: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("memobuild-awake".into()).spawn(move || own.spin());
        Self { shared, thread: thread.ok() }
    }

    /// For those who are asked.
    pub(super) fn alarm(&self) -> Alarm {
        Alarm { shared: self.shared.clone(), thread: self.thread.as_ref().map(|thread| thread.thread().clone()) }
    }
}

impl Alarm {
    /// A question came.
    pub(super) fn asked(&self) {
        self.shared.last.store(self.shared.now(), Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.unpark();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
