//! The hard cap: bytes are reserved before they are written.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Inner, Result};
use crate::storage::StorageError;

/// How many bytes are kept or being received.
pub(super) struct Space {
    used: AtomicU64,
    max_bytes: Option<u64>,
}

impl Space {
    pub(super) fn new(used: u64, max_bytes: Option<u64>) -> Self {
        Self { used: AtomicU64::new(used), max_bytes }
    }

    pub(super) fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        // The closure always gives a value.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let max = self.max_bytes.unwrap_or(u64::MAX);
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Bytes that may be written; given back when dropped, unless kept.
pub(super) struct Reservation<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Reservation<'_> {
    /// They stay in use.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.space.release(self.bytes);
    }
}

impl Inner {
    /// Reserves, and removes what was not used for longest if there is no room. [`StorageError::Full`] if that does not
    /// help either.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>> {
        if !self.space.try_reserve(bytes) {
            let max = self.space.max_bytes.unwrap_or(u64::MAX);
            if bytes > max {
                return Err(StorageError::Full);
            }
            // A tenth more than needed, so that not every request has to make room; but never for its own sake alone.
            self.collect(None, Some((max - max / 10).min(max - bytes)))?;
            if !self.space.try_reserve(bytes) {
                return Err(StorageError::Full);
            }
        }
        Ok(Reservation { space: &self.space, bytes })
    }
}
