//! Transfers outside of builds, shown as builds show theirs.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use memobuild_observe::{Observer as _, TraceEvent};

use crate::progress::{Progress, ProgressMode};

/// What commands that only move images say of their display.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ProgressArgs {
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    progress: ProgressMode,

    /// Show no progress, print digests only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl ProgressArgs {
    pub(crate) fn mode(self) -> ProgressMode {
        if self.quiet { ProgressMode::Quiet } else { self.progress }
    }
}

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
