//! How much one client may ask for: token buckets for requests and for bytes, and a count of uploads under way. The table of
//! clients is bounded, whoever calls: those not seen for longest are forgotten.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Security;

/// Clients that are remembered.
const MOST_CLIENTS: usize = 10_000;

/// The longest that a piece of a body is held back, whatever the client owes: its connection must stay alive, and many
/// requests may share the debt.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A bucket that fills at `rate` per second up to `size`.
#[derive(Clone, Copy)]
struct Rate {
    rate: f64,
    size: f64,
}

struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * rate.rate).min(rate.size);
        self.at = now;
    }

    /// How long until the level is `wanted`.
    fn wait(&self, rate: Rate, wanted: f64) -> Duration {
        Duration::try_from_secs_f64((wanted - self.level).max(0.0) / rate.rate).unwrap_or(Duration::MAX)
    }
}

struct Entry {
    requests: Bucket,
    bytes: Bucket,
    uploads: u32,
    seen: Instant,
}

/// The limits, and what clients have used of them.
pub(crate) struct Limits {
    requests: Option<Rate>,
    bytes: Option<Rate>,
    uploads: Option<u32>,
    most_clients: usize,
    clients: Mutex<HashMap<String, Entry>>,
}

impl Limits {
    pub(crate) fn new(security: &Security) -> Self {
        let requests = security.rate_limit.map(|rate| {
            let burst = security.rate_burst.map_or(rate.get().saturating_mul(2), |burst| burst.get());
            Rate { rate: f64::from(rate.get()), size: f64::from(burst) }
        });
        let bytes = security.rate_limit_bytes.map(|rate| {
            let rate = rate.max(crate::LEAST_BYTES_PER_SECOND) as f64;
            Rate { rate, size: rate }
        });
        let uploads = security.max_uploads.map(|n| n.get());
        Self { requests, bytes, uploads, most_clients: MOST_CLIENTS, clients: Mutex::default() }
    }

    /// Whether anything is limited.
    pub(crate) fn any(&self) -> bool {
        self.requests.is_some() || self.bytes.is_some() || self.uploads.is_some()
    }

    /// Whether bytes are counted at all.
    pub(crate) fn counts_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    /// One request more; or how long the client must wait before it may send it.
    pub(crate) fn admit(&self, client: &str, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.requests else { return Ok(()) };
        self.with(client, now, |entry| {
            entry.requests.refill(rate, now);
            if entry.requests.level < 1.0 {
                return Err(entry.requests.wait(rate, 1.0));
            }
            entry.requests.level -= 1.0;
            Ok(())
        })
    }

    /// Bytes that went to or came from the client; how long the next ones are to be held back.
    pub(crate) fn charge(&self, client: &str, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.bytes else { return Duration::ZERO };
        self.with(client, now, |entry| {
            entry.bytes.refill(rate, now);
            entry.bytes.level -= bytes as f64;
            entry.bytes.wait(rate, 0.0).min(LONGEST_PAUSE)
        })
    }

    /// A place for one upload more, if the client has not too many already.
    pub(crate) fn upload(self: &Arc<Self>, client: &str, now: Instant) -> Result<Option<Upload>, TooMany> {
        let Some(most) = self.uploads else { return Ok(None) };
        self.with(client, now, |entry| {
            if entry.uploads >= most {
                return Err(TooMany);
            }
            entry.uploads += 1;
            Ok(())
        })?;
        Ok(Some(Upload { limits: self.clone(), client: client.to_owned() }))
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, client: &str, now: Instant, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut clients = self.clients();
        if let Some(entry) = clients.get_mut(client) {
            entry.seen = now;
            return work(entry);
        }
        if clients.len() >= self.most_clients {
            forget(&mut clients);
        }
        let full = |rate: Option<Rate>| Bucket { level: rate.map_or(0.0, |rate| rate.size), at: now };
        let entry = Entry { requests: full(self.requests), bytes: full(self.bytes), uploads: 0, seen: now };
        work(clients.entry(client.to_owned()).or_insert(entry))
    }
}

/// Half of the clients at once, so that a flood of new ones does not look through all of them each time. Who is sending
/// stays: that count must not be lost. There are never more of them than connections.
fn forget(clients: &mut HashMap<String, Entry>) {
    let mut seen: Vec<Instant> = clients.values().filter(|e| e.uploads == 0).map(|e| e.seen).collect();
    let middle = seen.len() / 2;
    if middle >= seen.len() {
        return;
    }
    let (_, median, _) = seen.select_nth_unstable(middle);
    clients.retain(|_, entry| entry.uploads > 0 || entry.seen > *median);
}

/// The client is sending as much at once as it may.
#[derive(Debug)]
pub(crate) struct TooMany;

/// An upload under way, until it is dropped.
pub(crate) struct Upload {
    limits: Arc<Limits>,
    client: String,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(entry) = self.limits.clients().get_mut(&self.client) {
            entry.uploads = entry.uploads.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::num::NonZeroU32;

    use super::*;

    fn limits(change: impl FnOnce(&mut Security)) -> Arc<Limits> {
        let mut security = Security::default();
        change(&mut security);
        Arc::new(Limits::new(&security))
    }

    #[test]
    fn requests_come_back_with_time() {
        let limits = limits(|s| (s.rate_limit, s.rate_burst) = (NonZeroU32::new(2), NonZeroU32::new(3)));
        let start = Instant::now();
        for _ in 0..3 {
            assert!(limits.admit("a", start).is_ok());
        }
        assert_eq!(limits.admit("a", start), Err(Duration::from_millis(500)));
        assert!(limits.admit("b", start).is_ok());
        let later = start + Duration::from_millis(600);
        assert!(limits.admit("a", later).is_ok());
        assert!(limits.admit("a", later).is_err());
        // Never more than the burst.
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| limits.admit("a", much_later).is_ok()).count(), 3);
    }

    #[test]
    fn bytes_are_owed() {
        let limits = limits(|s| s.rate_limit_bytes = Some(1 << 20));
        let start = Instant::now();
        assert_eq!(limits.charge("a", 1 << 20, start), Duration::ZERO);
        assert_eq!(limits.charge("a", 1 << 19, start), Duration::from_millis(500));
        assert_eq!(limits.charge("b", 1, start), Duration::ZERO);
        assert_eq!(limits.charge("a", 1 << 30, start), LONGEST_PAUSE);
        assert_eq!(limits.charge("a", 0, start + Duration::from_secs(3600)), Duration::ZERO);
    }

    #[test]
    fn uploads_end_when_they_are_dropped() {
        let limits = limits(|s| s.max_uploads = NonZeroU32::new(2));
        let now = Instant::now();
        let first = limits.upload("a", now).unwrap();
        let second = limits.upload("a", now).unwrap();
        assert!(limits.upload("a", now).is_err());
        assert!(limits.upload("b", now).is_ok());
        drop(first);
        assert!(limits.upload("a", now).is_ok());
        drop(second);
    }

    #[test]
    fn the_table_is_bounded_and_uploads_stay_in_it() {
        let mut limits = Limits::new(&Security {
            rate_limit: NonZeroU32::new(1),
            rate_burst: NonZeroU32::new(1),
            max_uploads: NonZeroU32::new(1),
            ..Security::default()
        });
        limits.most_clients = 100;
        let limits = Arc::new(limits);
        let start = Instant::now();
        let sending = limits.upload("sender", start).unwrap();
        for n in 0..10_000u32 {
            let now = start + Duration::from_micros(u64::from(n));
            assert!(limits.admit(&n.to_string(), now).is_ok());
            assert!(limits.clients().len() <= 100);
        }
        // One seen a moment ago is still known.
        assert!(limits.admit("9999", start).is_err());
        assert!(limits.upload("sender", start).is_err());
        drop(sending);
        assert!(limits.upload("sender", start).is_ok());
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let limits = limits(|_| ());
        assert!(limits.admit("a", Instant::now()).is_ok());
        assert!(limits.upload("a", Instant::now()).unwrap().is_none());
        assert!(limits.clients().is_empty() && !limits.counts_bytes());
    }
}
