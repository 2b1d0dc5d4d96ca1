//! Who watches builds as they go on. Nothing is kept for those who are slow: a queue of bounded length is shared by all,
//! and who falls behind its end is told to come again.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};

use super::{BuildId, Change};

/// Changes that may wait for a watcher. One is at most some 100 KiB, and most are below 1 KiB.
const QUEUE: usize = 128;

/// Watchers at once.
const MOST_WATCHERS: usize = 256;

/// A batch with more changed steps than this is told as: ask again.
const MOST_STEPS: usize = 100;

/// A change as text, for all who watch.
pub(crate) struct Told {
    /// The build that changed.
    pub(crate) build: BuildId,
    /// What everybody is told: the build without its steps.
    pub(crate) brief: String,
    /// What those are told who watch this build.
    pub(crate) detail: String,
}

/// Tells watchers.
pub(crate) struct Live {
    sender: broadcast::Sender<Arc<Told>>,
    slots: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    /// Somebody came to watch, or something was taken.
    stirred: Notify,
    /// What is told is found in a database, see `follow.rs`.
    follows: bool,
}

/// One who watches.
pub(crate) struct Watcher {
    /// What changes from now on.
    pub(crate) changes: broadcast::Receiver<Arc<Told>>,
    /// Becomes true when the server ends.
    pub(crate) closed: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

impl Live {
    /// `follows`: other servers take events too, and what is told is what [`super::follow`] finds.
    pub(crate) fn new(follows: bool) -> Self {
        Self {
            sender: broadcast::Sender::new(QUEUE),
            slots: Arc::new(Semaphore::new(MOST_WATCHERS)),
            closed: watch::Sender::new(false),
            stirred: Notify::new(),
            follows,
        }
    }

    /// A place to watch from; `None` if all are taken.
    pub(crate) fn watch(&self) -> Option<Watcher> {
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        let watcher = Watcher { changes: self.sender.subscribe(), closed: self.closed(), _slot: slot };
        self.stirred.notify_one();
        Some(watcher)
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> u64 {
        (MOST_WATCHERS - self.slots.available_permits()) as u64
    }

    /// This server took something, which is to be told. Never waits.
    pub(crate) fn taken(&self, change: &Change) {
        if self.follows {
            self.stirred.notify_one();
        } else {
            self.tell(change);
        }
    }

    /// Waits until somebody comes to watch, or something is taken. For one who waits only.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Becomes true when the server ends.
    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Tells what changed. Never waits.
    pub(super) fn tell(&self, change: &Change) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let Change { build, steps, replaced, logs, .. } = change;
        let reload = *replaced || steps.len() > MOST_STEPS;
        let steps = if reload { &[] } else { steps.as_slice() };
        // The most recent output of many steps at once is more than anybody reads.
        let logs = logs.get(logs.len().saturating_sub(6)..).unwrap_or_default();
        let detail = json!({
            "type": "steps", "build": build.id, "updated": build.updated, "reload": reload, "steps": steps, "logs": logs,
        });
        let told = Told {
            build: build.id.clone(),
            brief: json!({ "type": "build", "build": build }).to_string(),
            detail: detail.to_string(),
        };
        // Fails if nobody watches any more.
        let _ = self.sender.send(Arc::new(told));
    }

    /// Sends all watchers away.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }
}
