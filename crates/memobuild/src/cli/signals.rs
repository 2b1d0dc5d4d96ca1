//! Ctrl-C and SIGTERM: the first stops the build in good order, the second ends the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use memobuild_engine::Cancel;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::text;

/// Which signal stopped the build, if one did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// The first signal that came.
    pub(crate) fn signal(&self) -> Option<i32> {
        Some(self.0.load(Ordering::SeqCst)).filter(|s| *s != 0)
    }
}

/// From now on signals stop what `cancel` belongs to. Where handlers can't be set, the system's default stays.
pub(crate) fn cancel_on_signal(cancel: &Cancel) -> Interrupt {
    let interrupt = Interrupt::default();
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return interrupt };
    let (seen, cancel) = (interrupt.clone(), cancel.clone());
    thread::spawn(move || {
        for signal in signals.forever() {
            if seen.0.swap(signal, Ordering::SeqCst) == 0 {
                cancel.cancel();
            } else {
                text::to_stderr("\nerror: stopped at once by a second signal\n");
                std::process::exit(128 + signal);
            }
        }
    });
    interrupt
}
