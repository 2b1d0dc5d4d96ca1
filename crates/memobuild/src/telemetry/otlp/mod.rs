//! Sends a build's spans to an OpenTelemetry collector: OTLP over HTTP, as JSON.
//!
//! In: a build's [`TraceEvent`]s. Out: when the build is over, one POST (or a few, of a large build) to where
//! `OTEL_EXPORTER_OTLP_ENDPOINT` points. Never: fails a build, or tells of what steps print. The crates of the
//! OpenTelemetry project are not used: they bring an async runtime, and this takes one request.

mod encode;
mod settings;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use memobuild_observe::{Backoff, BuildMetrics, Observer, RetryConfig, TraceEvent};
use memobuild_oci::registry::impatient_agent;
use serde_json::Value;
use ureq::{Agent, http::StatusCode};

use super::{
    Trace,
    timeline::{Change, End, Note, Span, Timeline},
};
use crate::cli::without_password;

pub(crate) use settings::{Settings, read};

/// Spans of one build that are kept. A build of 5000 steps has some 6000.
const MOST_SPANS: usize = 20_000;
/// Notes that are kept: what SDKs allow a span by default.
const MOST_NOTES: usize = 128;
/// Spans in one request.
const BATCH: usize = 2000;
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const ANSWER: u64 = 64 << 10;

/// An observer that keeps a build's spans until they are sent.
pub(crate) struct Exporter {
    settings: Settings,
    trace: Trace,
    name: String,
    began: Instant,
    /// The same by the clock on the wall, in nanoseconds since 1970.
    epoch: Duration,
    kept: Mutex<Kept>,
}

/// What is to be sent.
#[derive(Default)]
struct Kept {
    timeline: Timeline,
    metrics: BuildMetrics,
    /// With how and when each ended.
    spans: Vec<(Span, End, Duration)>,
    notes: Vec<(Duration, Note)>,
    lost_notes: usize,
}

impl Kept {
    fn apply(&mut self, at: Duration, event: TraceEvent) {
        self.metrics.observe(&event);
        for change in self.timeline.apply(at, event) {
            match change {
                Change::Began(_) => {}
                // The build comes last, and is the one that must not lack.
                Change::Ended(span, end) if self.spans.len() < MOST_SPANS || matches!(end, End::Build { .. }) => {
                    self.spans.push((span, end, at));
                }
                Change::Ended(..) => {}
                Change::Noted(note) if self.notes.len() < MOST_NOTES => self.notes.push((at, note)),
                Change::Noted(_) => self.lost_notes += 1,
            }
        }
    }
}

impl Observer for Exporter {
    fn event(&self, event: TraceEvent) {
        // Output is the bulk of all events, and none of it is sent.
        if !matches!(event, TraceEvent::NodeOutput { .. }) {
            let at = self.began.elapsed();
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).apply(at, event);
        }
    }
}

impl Exporter {
    /// For a build that begins now; none if whoever began its trace does not record it. `name`: what it builds.
    pub(crate) fn new(settings: Settings, trace: Trace, name: String) -> Option<Self> {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (began, kept) = (Instant::now(), Mutex::default());
        trace.own.is_sampled().then_some(Self { settings, trace, name, began, epoch, kept })
    }

    /// Sends all that is kept. To be called when the build is over.
    ///
    /// # Errors
    /// Why not, for a person.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let spans = encode::spans(&kept, &self.trace, &self.name, self.epoch);
        let to = without_password(&self.settings.url);
        // The address in an error may be the one with the password.
        let cannot = |why: String| {
            let why = why.replace(&self.settings.url, &to);
            format!("the spans of this build were not sent to {to}: {why}")
        };
        let Settings { certificates, timeout, .. } = &self.settings;
        let agent = impatient_agent(certificates, CONNECT.min(*timeout), *timeout).map_err(cannot)?;
        let until = Instant::now() + *timeout;
        for batch in spans.chunks(BATCH) {
            let body = encode::request(&self.settings.resource, batch);
            self.send(&agent, &body, until).map_err(cannot)?;
        }
        Ok(())
    }

    /// Sends a request, and again where the collector asks for that and there is time.
    fn send(&self, agent: &Agent, body: &[u8], until: Instant) -> Result<(), String> {
        let mut backoff = Backoff::new(RetryConfig::default());
        loop {
            let (status, wish) = match self.post(agent, body, until)? {
                Answer::Taken => return Ok(()),
                Answer::Refused(status, wish) => (status, wish),
            };
            // Those that the protocol names.
            let pause = match status.as_u16() {
                429 | 502..=504 => backoff.next_delay(wish),
                _ => None,
            };
            match pause.filter(|pause| Instant::now() + *pause < until) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(format!("it answered {status}")),
            }
        }
    }

    fn post(&self, agent: &Agent, body: &[u8], until: Instant) -> Result<Answer, String> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut request = agent
            .post(&self.settings.url)
            .config()
            .timeout_global(Some(left))
            .build()
            .header("content-type", "application/json");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(|error| error.to_string())?;
        let status = response.status();
        if !status.is_success() {
            let wish = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
            return Ok(Answer::Refused(status, wish.map(Duration::from_secs)));
        }
        // A collector that took them and says something odd has taken them.
        let answer = response.body_mut().with_config().limit(ANSWER).read_to_string().unwrap_or_default();
        match rejected(&answer) {
            Some(why) => Err(why),
            None => Ok(Answer::Taken),
        }
    }
}

enum Answer {
    Taken,
    /// And how long the collector wishes to be left alone.
    Refused(StatusCode, Option<Duration>),
}

/// Why a collector that took the request did not take all spans in it.
fn rejected(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = partial.get("rejectedSpans")?;
    // A number of 64 bits is a string in this form of JSON.
    let count = count.as_str().and_then(|text| text.parse().ok()).or_else(|| count.as_u64()).filter(|n| *n > 0)?;
    let said = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(format!("it refused {count} of them{}", if said.is_empty() { String::new() } else { format!(": {said}") }))
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
