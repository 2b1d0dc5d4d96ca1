//! Transfers outside of builds, shown as builds show theirs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use memobuild_observe::{Observer as _, TraceEvent};

use crate::progress::Progress;

/// Passes on how far it is, ten times a second at most.
pub(crate) struct Told<'a> {
    progress: &'a Progress,
    what: String,
    last: Mutex<Option<Instant>>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(progress: &'a Progress, what: String) -> Self {
        Self { progress, what, last: Mutex::new(None) }
    }

    pub(crate) fn tell(&self, done: u64, total: Option<u64>) {
        let finished = total.is_some_and(|total| done >= total);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if finished || last.is_none_or(|last| last.elapsed() >= Duration::from_millis(100)) {
            *last = Some(Instant::now());
            let what = self.what.clone();
            self.progress.event(TraceEvent::RemoteSync { what, done, total, finished });
        }
    }
}
