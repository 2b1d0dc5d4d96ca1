//! A flag that stops a build.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Shared by all that belongs to one build; once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the build: running steps are killed, no further one begins.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the build is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
