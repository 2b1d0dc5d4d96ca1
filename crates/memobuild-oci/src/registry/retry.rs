//! When to try again, and how long to wait.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    thread,
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// The longest wait that a server may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(60);
/// Failures in a row, without a byte of progress between them, that end it.
const ATTEMPTS: u32 = 8;

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::of(ATTEMPTS)
    }
}

impl Backoff {
    /// Ends after so many failures in a row.
    pub fn of(attempts: u32) -> Self {
        Self { failures: 0, attempts }
    }

    /// After progress the count starts anew.
    pub fn progress(&mut self) {
        self.failures = 0;
    }

    /// Waits and says that another attempt may be made, or says that there have been enough. The wait doubles from
    /// 100 ms to 5 s, less up to a quarter by chance, so that not all who were cut off come back at once; a server's
    /// own wish (`Retry-After`) counts if it is longer. One of more than a minute is for a person to decide on.
    pub fn again(&mut self, wished: Option<Duration>) -> bool {
        self.failures += 1;
        let wished = wished.unwrap_or_default();
        if self.failures >= self.attempts || wished > LONGEST_WISH {
            return false;
        }
        let own = (FIRST * 2u32.saturating_pow(self.failures - 1)).min(LONGEST);
        let own = own - own.mul_f64(f64::from(RandomState::new().build_hasher().finish() as u16) / 65536.0 / 4.0);
        thread::sleep(own.max(wished));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_kept_or_not_begun_with() {
        let begun = std::time::Instant::now();
        assert!(Backoff::default().again(Some(Duration::from_millis(300))));
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!(!Backoff::default().again(Some(Duration::from_secs(3600))));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
