//! Tells other programs of events: a POST of JSON, signed with a secret that both sides have.
//!
//! Nobody who causes an event waits. Each URL has a queue of bounded length and a thread that sends; what finds the queue
//! full is dropped and counted. A delivery that fails is tried again a few times, later each time, with the same id, by
//! which a receiver sees that it has it already. Redirects are not followed: the administrator chose that URL.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use axum::http::Uri;
use hmac::{Hmac, KeyInit as _, Mac as _};
use memobuild_observe::{Backoff, RetryConfig};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{clock, metrics::add, trace::Ids};

/// Events that wait for one URL.
const QUEUE: usize = 256;

/// How often a delivery is tried at most.
const TRIES: u32 = 6;

/// The longest wait between two of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The longest that one try may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often an event that clients can cause at will is told.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// The shortest secret, in bytes.
const SHORTEST_SECRET: usize = 16;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A collection was asked for and has ended.
    GcFinished,
    /// Something could not be stored for want of room.
    StorageFull,
    /// A body was not what its digest names.
    IntegrityFailure,
    /// A build that a client told of has ended.
    BuildFinished,
}

impl Event {
    /// As `X-MemoBuild-Event` and the body have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GcFinished => "gc.finished",
            Self::StorageFull => "storage.full",
            Self::IntegrityFailure => "integrity.failure",
            Self::BuildFinished => "build.finished",
        }
    }

    /// Whether clients can cause it as often as they like.
    fn is_frequent(self) -> bool {
        matches!(self, Self::StorageFull | Self::IntegrityFailure)
    }
}

/// Webhooks that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Not an address that a request can go to.
    #[error("not a webhook's URL: {0:?} (expected http:// or https:// and a host)")]
    Url(String),
    /// There are URLs and no secret.
    #[error("a webhook needs a secret to sign with")]
    NoSecret,
    /// The secret is too easy to guess.
    #[error("the secret in {0} is shorter than {SHORTEST_SECRET} bytes")]
    Short(PathBuf),
    /// No thread to send from.
    #[error("cannot start sending to webhooks")]
    Thread(#[source] io::Error),
    /// The secret can't be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// How deliveries went.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// All URLs, and what is to be sent to them.
pub(crate) struct Webhooks {
    queues: Vec<Arc<Queue>>,
    secret: Arc<RwLock<Zeroizing<Vec<u8>>>>,
    secret_file: Option<PathBuf>,
    ids: Ids,
    recent: Mutex<HashMap<Event, (Instant, u64)>>,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Clone)]
struct Delivery {
    id: String,
    event: &'static str,
    body: Arc<[u8]>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    waiting: VecDeque<Delivery>,
    /// No more will come, and what is there is tried once.
    closing: bool,
    ended: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one; `None` once there will be no more.
    fn next(&self) -> Option<Delivery> {
        let until = |state: &mut Pending| state.waiting.is_empty() && !state.closing;
        let mut state = self.changed.wait_while(self.state(), until).unwrap_or_else(PoisonError::into_inner);
        state.waiting.pop_front()
    }

    /// Waits before another try; whether there is to be one.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), time, |state| !state.closing);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}

impl Webhooks {
    /// Starts a thread for each URL.
    pub(crate) fn start(urls: &[String], secret_file: Option<&Path>, retry: Duration) -> Result<Self, WebhookError> {
        let secret = match (urls, secret_file) {
            ([], _) => Zeroizing::default(),
            (_, None) => return Err(WebhookError::NoSecret),
            (_, Some(file)) => read_secret(file)?,
        };
        let secret = Arc::new(RwLock::new(secret));
        let counts = Arc::new(Counts::default());
        let mut queues = Vec::new();
        for url in urls {
            let host = checked(url)?;
            let queue = Arc::new(Queue::default());
            let sender = Sender {
                url: url.clone(),
                host,
                queue: queue.clone(),
                secret: secret.clone(),
                counts: counts.clone(),
                retry,
            };
            let thread = std::thread::Builder::new().name("webhook".to_owned());
            thread.spawn(move || sender.run()).map_err(WebhookError::Thread)?;
            queues.push(queue);
        }
        let secret_file = secret_file.map(Path::to_owned);
        Ok(Self { queues, secret, secret_file, ids: Ids::new(), recent: Mutex::default(), counts })
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Reads the secret again.
    pub(crate) fn reload(&self) -> Result<(), WebhookError> {
        if let (Some(file), false) = (&self.secret_file, self.queues.is_empty()) {
            let secret = read_secret(file)?;
            *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        }
        Ok(())
    }

    /// Queues an event for all URLs. Never waits.
    pub(crate) fn send(&self, event: Event, mut data: Value) {
        if self.queues.is_empty() {
            return;
        }
        let Some(unsaid) = self.is_due(event, Instant::now()) else { return };
        if let (true, Value::Object(fields)) = (unsaid > 0, &mut data) {
            fields.insert("suppressed".into(), unsaid.into());
        }
        let id = String::from_utf8_lossy(&self.ids.next()).into_owned();
        let text = json!({ "id": id, "event": event.name(), "time": clock::timestamp(), "data": data }).to_string();
        let delivery = Delivery { id, event: event.name(), body: Arc::from(text.into_bytes()) };
        for queue in &self.queues {
            let mut state = queue.state();
            if state.waiting.len() >= QUEUE || state.closing {
                add(&self.counts.dropped, 1);
                continue;
            }
            state.waiting.push_back(delivery.clone());
            drop(state);
            queue.changed.notify_all();
        }
    }

    /// How many events of this kind were not told since the last one that was; `None`: nor is this one.
    fn is_due(&self, event: Event, now: Instant) -> Option<u64> {
        if !event.is_frequent() {
            return Some(0);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match recent.get_mut(&event) {
            Some((at, unsaid)) if now.saturating_duration_since(*at) < AT_MOST_EVERY => {
                *unsaid += 1;
                None
            }
            _ => Some(recent.insert(event, (now, 0)).map_or(0, |(_, unsaid)| unsaid)),
        }
    }

    /// Tries once to send what is still queued; waits for that no longer than this. Blocks.
    pub(crate) fn finish(&self, at_most: Duration) {
        for queue in &self.queues {
            queue.state().closing = true;
            queue.changed.notify_all();
        }
        let until = Instant::now() + at_most;
        for queue in &self.queues {
            let left = until.saturating_duration_since(Instant::now());
            let waited = queue.changed.wait_timeout_while(queue.state(), left, |state| !state.ended);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Sends to one URL.
struct Sender {
    url: String,
    /// For the log: the path and the query may be secret.
    host: String,
    queue: Arc<Queue>,
    secret: Arc<RwLock<Zeroizing<Vec<u8>>>>,
    counts: Arc<Counts>,
    retry: Duration,
}

impl Sender {
    fn run(self) {
        let agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("memobuild/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        while let Some(delivery) = self.queue.next() {
            self.deliver(&agent, &delivery);
        }
        self.queue.state().ended = true;
        self.queue.changed.notify_all();
    }

    fn deliver(&self, agent: &ureq::Agent, delivery: &Delivery) {
        let rule = RetryConfig {
            max_attempts: TRIES,
            initial_delay: self.retry,
            backoff_factor: 4.0,
            max_delay: LONGEST_PAUSE,
            ..RetryConfig::default()
        };
        let mut backoff = Backoff::new(rule);
        loop {
            let (reason, again) = match self.post(agent, delivery) {
                Ok(200..=299) => {
                    add(&self.counts.delivered, 1);
                    return;
                }
                Ok(status) => (format!("status {status}"), matches!(status, 408 | 429 | 500..)),
                Err(error) => (error.to_string(), true),
            };
            tracing::debug!("webhook at {}: {} was not taken: {reason}", self.host, delivery.event);
            let pause = backoff.next_delay(None).filter(|_| again);
            if !pause.is_some_and(|pause| self.queue.pause(pause)) {
                tracing::warn!("webhook at {}: {} is given up: {reason}", self.host, delivery.event);
                break;
            }
        }
        add(&self.counts.failed, 1);
    }

    fn post(&self, agent: &ureq::Agent, delivery: &Delivery) -> Result<u16, ureq::Error> {
        let signature = sign(&self.secret.read().unwrap_or_else(PoisonError::into_inner), &delivery.body);
        let response = agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("x-memobuild-event", delivery.event)
            .header("x-memobuild-delivery", &delivery.id)
            .header("x-memobuild-signature", signature)
            .send(&delivery.body[..])?;
        Ok(response.status().as_u16())
    }
}

/// `sha256=` and the HMAC-SHA256 (RFC 2104) of the body in hexadecimal digits.
fn sign(secret: &[u8], body: &[u8]) -> String {
    let mut text = "sha256=".to_owned();
    // HMAC takes keys of any length.
    if let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(secret) {
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// The host of a URL that a request can go to.
fn checked(url: &str) -> Result<String, WebhookError> {
    let uri: Option<Uri> = url.parse().ok();
    let usable = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let host = usable.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
    host.map(str::to_owned).ok_or_else(|| WebhookError::Url(url.chars().take(100).collect()))
}

fn read_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>, WebhookError> {
    let secret =
        fs::read(file).map(Zeroizing::new).map_err(|source| WebhookError::File { path: file.to_owned(), source })?;
    // Editors end a file with a newline.
    let secret = secret.trim_ascii_end();
    if secret.len() < SHORTEST_SECRET {
        return Err(WebhookError::Short(file.to_owned()));
    }
    Ok(Zeroizing::new(secret.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        // Test cases 2 and 1.
        assert_eq!(
            sign(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            sign(&[0x0b; 20], b"Hi There"),
            "sha256=b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn urls_and_secrets() {
        assert_eq!(checked("https://user:pass@hooks.example:8443/path?key=1").unwrap(), "hooks.example");
        for bad in ["", "hooks.example/path", "/path", "ftp://hooks.example", "https://", "http:// x"] {
            assert!(matches!(checked(bad), Err(WebhookError::Url(_))), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "short\n").unwrap();
        let urls = ["http://127.0.0.1:1/".to_owned()];
        let start = |file| Webhooks::start(&urls, file, Duration::ZERO).err();
        assert!(matches!(start(Some(&file)), Some(WebhookError::Short(_))));
        assert!(matches!(start(None), Some(WebhookError::NoSecret)));
        fs::write(&file, "long enough for this\n").unwrap();
        assert_eq!(**read_secret(&file).unwrap(), *b"long enough for this");
    }

    #[test]
    fn what_clients_can_cause_is_told_now_and_then() {
        let hooks = Webhooks::start(&[], None, Duration::ZERO).unwrap();
        let start = Instant::now();
        assert_eq!(hooks.is_due(Event::StorageFull, start), Some(0));
        assert_eq!(hooks.is_due(Event::StorageFull, start), None);
        assert_eq!(hooks.is_due(Event::StorageFull, start), None);
        assert_eq!(hooks.is_due(Event::IntegrityFailure, start), Some(0));
        assert_eq!(hooks.is_due(Event::GcFinished, start), Some(0));
        assert_eq!(hooks.is_due(Event::GcFinished, start), Some(0));
        assert_eq!(hooks.is_due(Event::StorageFull, start + AT_MOST_EVERY), Some(2));
    }

    #[test]
    fn a_receiver_that_is_not_there_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "long enough for this\n").unwrap();
        // Bound and not listening: refused at once, and nobody else's.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", taken.local_addr().unwrap());
        drop(taken);
        let hooks = Webhooks::start(&[url], Some(&file), Duration::from_secs(3600)).unwrap();
        for n in 0..3 * QUEUE {
            hooks.send(Event::GcFinished, json!({ "n": n }));
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // One may be under way.
        assert!(count(&hooks.counts.dropped) >= 2 * QUEUE as u64 - 1);
        hooks.finish(Duration::from_secs(60));
        assert_eq!(count(&hooks.counts.delivered), 0);
        assert_eq!(count(&hooks.counts.failed) + count(&hooks.counts.dropped), 3 * QUEUE as u64);
    }
}
