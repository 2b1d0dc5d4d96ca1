//! When to try again, and how long to wait: one rule for all that goes over a network.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    thread,
    time::Duration,
};

/// The longest wait that a server may ask for: one of more than a minute is for a person to decide on.
const LONGEST_WISH: Duration = Duration::from_secs(60);
/// The part of a wait that chance may take away.
const CHANCE: f64 = 0.25;

/// How often something is tried, and the waits between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryConfig {
    /// Attempts in all, the first one among them; 0 counts as 1.
    pub max_attempts: u32,
    /// The wait before the second attempt.
    pub initial_delay: Duration,
    /// What each wait is multiplied by to get the next.
    pub backoff_factor: f64,
    /// The longest wait.
    pub max_delay: Duration,
    /// Whether up to a quarter of each wait is left out by chance, so that not all who were cut off come back at once.
    pub jitter: bool,
}

impl Default for RetryConfig {
    /// Three attempts, 100 ms, doubled up to 5 s, less some by chance.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_delay: Duration::from_millis(100),
            backoff_factor: 2.0,
            max_delay: Duration::from_secs(5),
            jitter: true,
        }
    }
}

impl RetryConfig {
    /// The same with another number of attempts.
    #[must_use]
    pub fn attempts(self, max_attempts: u32) -> Self {
        Self { max_attempts, ..self }
    }

    /// The wait after failure number `failures` (from 1), before chance takes its part.
    pub fn delay(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = self.backoff_factor.max(0.0).powi(exponent);
        let seconds = (self.initial_delay.as_secs_f64() * factor).min(self.max_delay.as_secs_f64());
        // A factor that is no number stands for no growth.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.initial_delay).min(self.max_delay)
    }
}

/// Counts failures in a row: those without any progress between them.
#[derive(Debug)]
pub struct Backoff {
    config: RetryConfig,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new(config: RetryConfig) -> Self {
        Self { config, failures: 0 }
    }

    /// After progress the count starts anew.
    pub fn progress(&mut self) {
        self.failures = 0;
    }

    /// Attempts since the last progress, one that is being made or has just failed among them.
    pub fn attempt(&self) -> u32 {
        self.failures.max(1)
    }

    /// After one more failure: how long to wait before the next attempt; `None`: there have been enough. A server's own
    /// wish (`Retry-After`) counts if it is longer; one of more than a minute ends it.
    pub fn next_delay(&mut self, wished: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        let wished = wished.unwrap_or_default();
        if self.failures >= self.config.max_attempts || wished > LONGEST_WISH {
            return None;
        }
        let own = self.config.delay(self.failures);
        let own = if self.config.jitter { own - own.mul_f64(CHANCE * chance()) } else { own };
        Some(own.max(wished))
    }

    /// [`Backoff::next_delay`], waited for. False: there have been enough.
    pub fn again(&mut self, wished: Option<Duration>) -> bool {
        self.next_delay(wished).map(thread::sleep).is_some()
    }
}

/// From 0 to 1. Need not be good, only different in each process.
fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u16) / 65536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = RetryConfig::default();
        let waits: Vec<Duration> = (1..=8).map(|n| config.delay(n)).collect();
        assert_eq!(waits, [MS(100), MS(200), MS(400), MS(800), MS(1600), MS(3200), MS(5000), MS(5000)]);
        assert_eq!(config.delay(u32::MAX), MS(5000));
    }

    #[test]
    fn odd_factors_make_no_odd_waits() {
        for factor in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0] {
            let config = RetryConfig { backoff_factor: factor, ..RetryConfig::default() };
            for failures in [1, 2, 50] {
                assert!(config.delay(failures) <= config.max_delay, "{factor} {failures}");
            }
        }
    }

    #[test]
    fn chance_takes_a_quarter_at_most() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let wait = Backoff::new(RetryConfig::default()).next_delay(None).unwrap();
            assert!(wait > MS(74) && wait <= MS(100), "{wait:?}");
            seen.insert(wait);
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }

    #[test]
    fn enough_is_enough_and_progress_starts_anew() {
        let config = RetryConfig { jitter: false, ..RetryConfig::default() };
        let mut backoff = Backoff::new(config);
        assert_eq!(backoff.next_delay(None), Some(MS(100)));
        assert_eq!(backoff.next_delay(None), Some(MS(200)));
        assert_eq!((backoff.next_delay(None), backoff.attempt()), (None, 3));
        backoff.progress();
        assert_eq!((backoff.attempt(), backoff.next_delay(None)), (1, Some(MS(100))));
        assert_eq!(Backoff::new(config.attempts(1)).next_delay(None), None);
        assert_eq!(Backoff::new(config.attempts(0)).next_delay(None), None);
    }

    #[test]
    fn a_wish_is_kept_or_not_begun_with() {
        let mut backoff = Backoff::new(RetryConfig::default());
        assert_eq!(backoff.next_delay(Some(MS(300))), Some(MS(300)));
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(61))), None);
        let begun = std::time::Instant::now();
        assert!(Backoff::new(RetryConfig::default()).again(Some(MS(300))));
        assert!(begun.elapsed() >= MS(300));
    }
}
