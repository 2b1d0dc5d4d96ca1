//! Last uses that the database does not have yet: a GET must not wait for a write.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::storage::{Result, rows::Used};

/// How many are remembered before they are written down.
const MOST: usize = 10_000;

/// How many are written in one transaction: rows that others want to use wait so long.
const AT_ONCE: usize = 2_000;

/// When what was used last. Told to the database as how long ago, so that this machine's clock does not matter.
#[derive(Default)]
pub(super) struct Uses {
    used: Mutex<HashMap<Used, Instant>>,
}

impl Uses {
    /// These are used now. Whether it is time to write them down.
    pub(super) fn add(&self, used: impl IntoIterator<Item = Used>) -> bool {
        let now = Instant::now();
        let mut map = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        map.extend(used.into_iter().map(|u| (u, now)));
        map.len() >= MOST
    }

    /// Hands them over, some at a time. What can't be written is forgotten: it only says what goes first.
    pub(super) fn take(&self, mut write: impl FnMut(&[(Used, Duration)]) -> Result<()>) -> Result<()> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let mut used: Vec<(Used, Duration)> = used.into_iter().map(|(what, at)| (what, at.elapsed())).collect();
        // Servers that write at once lock rows in one order.
        used.sort_unstable();
        used.chunks(AT_ONCE).try_for_each(&mut write)
    }
}
