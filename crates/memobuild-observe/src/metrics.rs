//! Sums over builds: hits, durations, bytes, and the text in which Prometheus reads them.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::TraceEvent;

/// What one build or many came to. Made by [`BuildMetrics::observe`] of the events of builds, one after the other, or
/// filled by whoever knows them from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BuildMetrics {
    /// Steps whose result was found.
    pub cache_hits: u64,
    /// Steps whose result was looked for and not found. What comes from outside (base images, contexts) is never looked
    /// for, and counts as neither.
    pub cache_misses: u64,
    /// Builds that succeeded.
    pub successful_builds: u64,
    /// Builds that did not.
    pub failed_builds: u64,
    /// Of all of these, from begin to end.
    pub total_duration_ms: u64,
    /// Bytes pulled, pushed, imported and shared.
    pub bytes_moved: u64,
    /// What executing the steps that were found had taken. Events do not tell it; records of builds do.
    pub time_saved_ms: u64,
    #[serde(skip)]
    current: Current,
}

/// The build under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Current {
    /// Steps that are counted, and whether as hits. A step has several keys: what is counted is how its look-up ended.
    steps: BTreeMap<usize, bool>,
    /// Bytes of each transfer that are counted.
    moved: BTreeMap<String, u64>,
}

impl BuildMetrics {
    /// Takes in what happened.
    pub fn observe(&mut self, event: &TraceEvent) {
        match event {
            TraceEvent::BuildStarted { .. } => {
                // A build that met damage in the cache goes through its plan once more, and tells all of it again.
                for hit in std::mem::take(&mut self.current.steps).into_values() {
                    let counter = self.counter(hit);
                    *counter = counter.saturating_sub(1);
                }
            }
            TraceEvent::CacheHit { step, .. } | TraceEvent::NodeCached { step } => self.looked_up(*step, true),
            TraceEvent::CacheMiss { step, .. } | TraceEvent::NodeExecuting { step, .. } => self.looked_up(*step, false),
            TraceEvent::RemoteSync { what, done, .. } => {
                let before = self.current.moved.insert(what.clone(), *done).unwrap_or_default();
                // Fewer than before: it began anew.
                let more = done.checked_sub(before).unwrap_or(*done);
                self.bytes_moved = self.bytes_moved.saturating_add(more);
            }
            TraceEvent::BuildFinished { ok, duration, .. } => {
                self.ended(*ok, *duration);
                self.current = Current::default();
            }
            _ => {}
        }
    }

    /// Counts a build that is over.
    pub fn ended(&mut self, ok: bool, duration: Duration) {
        let counter = if ok { &mut self.successful_builds } else { &mut self.failed_builds };
        *counter = counter.saturating_add(1);
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.total_duration_ms = self.total_duration_ms.saturating_add(millis);
    }

    /// Adds those of other builds.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            cache_hits,
            cache_misses,
            successful_builds,
            failed_builds,
            total_duration_ms,
            bytes_moved,
            time_saved_ms,
            current: _,
        } = other;
        for (sum, more) in [
            (&mut self.cache_hits, cache_hits),
            (&mut self.cache_misses, cache_misses),
            (&mut self.successful_builds, successful_builds),
            (&mut self.failed_builds, failed_builds),
            (&mut self.total_duration_ms, total_duration_ms),
            (&mut self.bytes_moved, bytes_moved),
            (&mut self.time_saved_ms, time_saved_ms),
        ] {
            *sum = sum.saturating_add(*more);
        }
    }

    /// The part of look-ups that found something, from 0 to 1; 0 if nothing was looked for.
    pub fn cache_hit_rate(&self) -> f64 {
        part(self.cache_hits, self.cache_misses)
    }

    /// The part of builds that succeeded, from 0 to 1; 0 if there was none.
    pub fn success_rate(&self) -> f64 {
        part(self.successful_builds, self.failed_builds)
    }

    /// How long a build takes, in milliseconds; 0 if there was none.
    pub fn average_build_time_ms(&self) -> f64 {
        match self.successful_builds.saturating_add(self.failed_builds) {
            0 => 0.0,
            builds => self.total_duration_ms as f64 / builds as f64,
        }
    }

    /// For Prometheus (text exposition format 0.0.4), by its conventions: base units, `_total` for what only grows.
    pub fn to_prometheus(&self) -> String {
        let mut out = String::new();
        let builds = "memobuild_builds_total";
        head(&mut out, builds, "counter", "Builds that are over, by how they ended.");
        let _ = writeln!(out, "{builds}{{result=\"success\"}} {}", self.successful_builds);
        let _ = writeln!(out, "{builds}{{result=\"failure\"}} {}", self.failed_builds);
        let duration = "memobuild_build_duration_seconds";
        head(&mut out, duration, "summary", "How long builds took.");
        let _ = writeln!(out, "{duration}_sum {}", seconds(self.total_duration_ms));
        let _ = writeln!(out, "{duration}_count {}", self.successful_builds.saturating_add(self.failed_builds));
        let mut counter = |name: &str, help: &str, value: &dyn std::fmt::Display| {
            head(&mut out, name, "counter", help);
            let _ = writeln!(out, "{name} {value}");
        };
        counter("memobuild_cache_hits_total", "Steps whose result was found.", &self.cache_hits);
        counter("memobuild_cache_misses_total", "Steps whose result was not found.", &self.cache_misses);
        let saved = seconds(self.time_saved_ms);
        counter("memobuild_saved_seconds_total", "What executing the steps that were found had taken.", &saved);
        // Who has not counted them does not say that there were none.
        if self.bytes_moved > 0 {
            counter("memobuild_moved_bytes_total", "Bytes pulled, pushed, imported and shared.", &self.bytes_moved);
        }
        out
    }

    fn counter(&mut self, hit: bool) -> &mut u64 {
        if hit { &mut self.cache_hits } else { &mut self.cache_misses }
    }

    /// The last that is said of a step holds: one key may be found where another was not, and what was found may turn
    /// out to be of no use.
    fn looked_up(&mut self, step: usize, hit: bool) {
        let before = self.current.steps.insert(step, hit);
        if before == Some(hit) {
            return;
        }
        if let Some(before) = before {
            let counter = self.counter(before);
            *counter = counter.saturating_sub(1);
        }
        let counter = self.counter(hit);
        *counter = counter.saturating_add(1);
    }
}

fn part(of: u64, rest: u64) -> f64 {
    match of.saturating_add(rest) {
        0 => 0.0,
        all => of as f64 / all as f64,
    }
}

fn seconds(millis: u64) -> f64 {
    // One division: whole milliseconds come out as they are written.
    millis as f64 / 1000.0
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(step: usize) -> TraceEvent {
        TraceEvent::CacheHit { step, key: "k".into() }
    }

    fn miss(step: usize) -> TraceEvent {
        TraceEvent::CacheMiss { step, key: "k".into() }
    }

    fn runs(step: usize) -> TraceEvent {
        TraceEvent::NodeExecuting { step, reason: "new".into(), again: false }
    }

    fn finished(ok: bool, ms: u64) -> TraceEvent {
        TraceEvent::BuildFinished { ok, duration: Duration::from_millis(ms), cached: 9, executed: 9 }
    }

    fn moved(what: &str, done: u64) -> TraceEvent {
        TraceEvent::RemoteSync { what: what.into(), done, total: None, finished: false }
    }

    fn of(events: &[TraceEvent]) -> BuildMetrics {
        let mut metrics = BuildMetrics::default();
        events.iter().for_each(|event| metrics.observe(event));
        metrics
    }

    #[test]
    fn a_step_counts_once_and_by_how_its_look_up_ended() {
        let metrics = of(&[
            TraceEvent::BuildStarted { steps: Vec::new() },
            // Found by its second key.
            miss(1),
            hit(1),
            TraceEvent::NodeCached { step: 1 },
            // Not found by any.
            miss(2),
            miss(2),
            runs(2),
            // Found, and then of no use.
            hit(3),
            runs(3),
            hit(4),
        ]);
        assert_eq!((metrics.cache_hits, metrics.cache_misses), (2, 2));
        assert!((metrics.cache_hit_rate() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_second_round_of_a_build_replaces_the_first_and_a_second_build_does_not() {
        let started = || TraceEvent::BuildStarted { steps: Vec::new() };
        let mut metrics = of(&[started(), hit(1), miss(2), started(), hit(1), hit(2), finished(true, 5)]);
        assert_eq!((metrics.cache_hits, metrics.cache_misses), (2, 0));
        for event in [started(), hit(1), finished(false, 6)] {
            metrics.observe(&event);
        }
        assert_eq!((metrics.cache_hits, metrics.successful_builds, metrics.failed_builds), (3, 1, 1));
        assert_eq!(metrics.total_duration_ms, 11);
    }

    #[test]
    fn bytes_of_a_transfer_count_once_however_often_they_are_told() {
        let all = [moved("a", 10), moved("b", 5), moved("a", 30), moved("a", 30), moved("a", 4), moved("b", 5)];
        assert_eq!(of(&all).bytes_moved, 39);
    }

    #[test]
    fn nothing_to_divide_by_is_nothing() {
        let none = BuildMetrics::default();
        assert_eq!((none.cache_hit_rate(), none.success_rate(), none.average_build_time_ms()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn rates_and_sums() {
        let mut metrics = of(&[hit(1), hit(2), hit(3), miss(4), finished(true, 100)]);
        metrics.merge(&of(&[finished(true, 200), finished(true, 300), finished(false, 200), moved("x", 7)]));
        assert!((metrics.cache_hit_rate() - 0.75).abs() < 1e-9 && (metrics.success_rate() - 0.75).abs() < 1e-9);
        assert!((metrics.average_build_time_ms() - 200.0).abs() < 1e-9);
        assert_eq!(metrics.bytes_moved, 7);
        let most = BuildMetrics { total_duration_ms: u64::MAX, ..BuildMetrics::default() };
        metrics.merge(&most);
        assert_eq!(metrics.total_duration_ms, u64::MAX);
    }

    #[test]
    fn the_text_for_prometheus() {
        let metrics = BuildMetrics {
            cache_hits: 12,
            cache_misses: 3,
            successful_builds: 4,
            failed_builds: 1,
            total_duration_ms: 12_345,
            bytes_moved: 99,
            time_saved_ms: 60_500,
            current: Current::default(),
        };
        let expected = "\
# HELP memobuild_builds_total Builds that are over, by how they ended.
# TYPE memobuild_builds_total counter
memobuild_builds_total{result=\"success\"} 4
memobuild_builds_total{result=\"failure\"} 1
# HELP memobuild_build_duration_seconds How long builds took.
# TYPE memobuild_build_duration_seconds summary
memobuild_build_duration_seconds_sum 12.345
memobuild_build_duration_seconds_count 5
# HELP memobuild_cache_hits_total Steps whose result was found.
# TYPE memobuild_cache_hits_total counter
memobuild_cache_hits_total 12
# HELP memobuild_cache_misses_total Steps whose result was not found.
# TYPE memobuild_cache_misses_total counter
memobuild_cache_misses_total 3
# HELP memobuild_saved_seconds_total What executing the steps that were found had taken.
# TYPE memobuild_saved_seconds_total counter
memobuild_saved_seconds_total 60.5
# HELP memobuild_moved_bytes_total Bytes pulled, pushed, imported and shared.
# TYPE memobuild_moved_bytes_total counter
memobuild_moved_bytes_total 99
";
        assert_eq!(metrics.to_prometheus(), expected);
        assert!(!BuildMetrics::default().to_prometheus().contains("moved_bytes"));
    }
}
