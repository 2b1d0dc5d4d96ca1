//! A circuit breaker: a server that fails, or takes its time, is not asked any more, so that nobody waits for it.
//!
//! It opens after [`FAILURES`] failures or slow answers in a row, or when [`PATIENCE`] was spent on them. Then look-ups are
//! "not known" at once. What is sent beside the build may try again after a while, and closes it if that works.

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Blob, Put, RecordName, Remote, RemoteError};

/// Failures in a row that open it.
const FAILURES: u32 = 3;
/// Time spent on failures in a row that opens it.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer to a small question that takes so long counts as a failure.
const SLOW: Duration = Duration::from_secs(2);
/// The first rest; it doubles up to the longest.
const REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// When to ask, by what happened. It has no clock of its own.
#[derive(Debug, Default)]
struct Switch {
    failures: u32,
    lost: Duration,
    /// Open, until when, and how long the rest was.
    open: Option<(Instant, Duration)>,
    /// Nothing will work.
    is_final: bool,
}

impl Switch {
    /// Whether to ask now. Only who waits for nothing may `probe` one that is open: one at a time.
    fn allows(&mut self, now: Instant, probe: bool) -> bool {
        match &mut self.open {
            None => true,
            Some((until, rest)) if probe && !self.is_final && now >= *until => {
                *until = now + *rest;
                true
            }
            Some(_) => false,
        }
    }

    fn succeeded(&mut self) {
        if !self.is_final {
            *self = Self::default();
        }
    }

    /// Says whether it has just opened.
    fn failed(&mut self, now: Instant, took: Duration, is_final: bool) -> bool {
        self.failures += 1;
        self.lost += took;
        self.is_final |= is_final;
        match &mut self.open {
            Some((until, rest)) => {
                *rest = (*rest * 2).min(LONGEST_REST);
                *until = now + *rest;
                false
            }
            open if is_final || self.failures >= FAILURES || self.lost >= PATIENCE => {
                *open = Some((now + REST, REST));
                true
            }
            _ => false,
        }
    }
}

/// Called when it opens, with what opened it, and whether that is the first time.
type Tell = Box<dyn Fn(&RemoteError, bool) + Send + Sync>;

/// What is known of the breaker outside of it.
pub(super) struct Gate {
    switch: Mutex<Switch>,
    told: AtomicBool,
    tell: Tell,
}

impl Gate {
    pub(super) fn new(tell: impl Fn(&RemoteError, bool) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { switch: Mutex::default(), told: AtomicBool::new(false), tell: Box::new(tell) })
    }

    fn switch(&self) -> std::sync::MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_open(&self) -> bool {
        self.switch().open.is_some()
    }

    /// Has the next probe not wait, where the last failure was a quick one.
    pub(super) fn hurry(&self) {
        let mut switch = self.switch();
        if switch.lost < PATIENCE
            && let Some((until, _)) = &mut switch.open
        {
            *until = Instant::now();
        }
    }
}

/// Asks unless it is open.
pub(super) struct Breaker<R> {
    inner: R,
    gate: Arc<Gate>,
}

impl<R> Breaker<R> {
    pub(super) fn new(inner: R, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }

    fn guarded<T>(
        &self,
        probe: bool,
        is_small: bool,
        ask: impl FnOnce() -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let begun = Instant::now();
        if !self.gate.switch().allows(begun, probe) {
            return Err(RemoteError::Open);
        }
        let answer = ask();
        let took = begun.elapsed();
        let slow = RemoteError::TimedOut("its answers take too long".into());
        let fault = match &answer {
            Ok(_) if is_small && took >= SLOW => &slow,
            Err(e) if e.is_fault() => e,
            _ => {
                self.gate.switch().succeeded();
                return answer;
            }
        };
        let opened = self.gate.switch().failed(Instant::now(), took, fault.is_final());
        if opened {
            let first = !self.gate.told.swap(true, Ordering::Relaxed);
            (self.gate.tell)(fault, first);
        }
        answer
    }
}

impl<R: Remote> Remote for Breaker<R> {
    fn record(&self, name: &RecordName) -> Result<Option<Vec<u8>>, RemoteError> {
        self.guarded(false, true, || self.inner.record(name))
    }

    fn record_put(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Put, RemoteError> {
        self.guarded(true, true, || self.inner.record_put(name, value, blobs))
    }

    fn list(&self, name: &RecordName) -> Result<Vec<Vec<u8>>, RemoteError> {
        self.guarded(false, true, || self.inner.list(name))
    }

    fn list_add(&self, name: &RecordName, value: &[u8], blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.guarded(true, true, || self.inner.list_add(name, value, blobs))
    }

    fn missing(&self, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
        self.guarded(true, true, || self.inner.missing(blobs))
    }

    fn fetch(&self, blob: &Blob, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.guarded(false, false, || self.inner.fetch(blob, to))
    }

    fn send(&self, blob: &Blob, from: &mut File) -> Result<(), RemoteError> {
        self.guarded(true, false, || self.inner.send(blob, from))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::remote::testing::{Fake, blob, name};

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_failures_in_a_row_open_it() {
        let (mut switch, now) = (Switch::default(), Instant::now());
        for _ in 0..5 {
            assert!(!switch.failed(now, QUICK, false) && !switch.failed(now, QUICK, false));
            switch.succeeded();
        }
        assert!(!switch.failed(now, QUICK, false) && !switch.failed(now, QUICK, false));
        assert!(switch.allows(now, false));
        assert!(switch.failed(now, QUICK, false));
        assert!(!switch.allows(now, false) && !switch.allows(now, true));
        // Look-ups do not find out whether it is back; one that nobody waits for does, and one at a time.
        let later = now + REST;
        assert!(!switch.allows(later, false) && switch.allows(later, true) && !switch.allows(later, true));
        assert!(!switch.failed(later, QUICK, false));
        assert!(!switch.allows(later + REST, true) && switch.allows(later + REST * 2, true));
        switch.succeeded();
        assert!(switch.allows(now, false));
    }

    #[test]
    fn lost_time_opens_it_and_what_is_final_stays() {
        let (mut switch, now) = (Switch::default(), Instant::now());
        assert!(switch.failed(now, PATIENCE, false));
        switch.succeeded();
        assert!(switch.failed(now, QUICK, true));
        assert!(!switch.allows(now + LONGEST_REST * 9, true));
        switch.succeeded();
        assert!(!switch.allows(now + LONGEST_REST * 9, true));
    }

    #[test]
    fn an_open_one_asks_nobody_and_tells_once() {
        let told = Arc::<AtomicU32>::default();
        let count = told.clone();
        let gate = Gate::new(move |_, first| {
            count.fetch_add(u32::from(first), Ordering::Relaxed);
        });
        let breaker = Breaker::new(Fake::failing(3), gate.clone());
        for _ in 0..9 {
            breaker.record(&name(1)).unwrap_err();
        }
        assert_eq!(breaker.inner.calls().len(), 3);
        assert!(gate.is_open());
        gate.hurry();
        assert!(matches!(breaker.record(&name(1)), Err(RemoteError::Open)));
        breaker.missing(&[]).unwrap();
        assert!(breaker.record(&name(1)).unwrap().is_none());
        assert_eq!(told.load(Ordering::Relaxed), 1);
        // "Not there" is an answer like any other.
        for _ in 0..9 {
            breaker.fetch(&blob(b"x"), &mut Vec::new()).unwrap_err();
        }
        assert!(!gate.is_open());
    }
}
