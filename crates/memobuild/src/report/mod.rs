//! Tells a server of a build while it goes on, for its dashboard and its history.
//!
//! In: a build's [`TraceEvent`]s, the same that the progress display gets; nothing else is told, so secrets are in there
//! no more than on the terminal. Out: `POST /build-event` (`docs/api.md`), in batches, from a thread of its own. Never:
//! fails or stalls a build. What does not fit into its queue is dropped, and a server that does not answer is given up,
//! which is said once.

mod queue;
mod wire;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use memobuild_observe::{Backoff, Observer, RetryConfig, Secret, TraceContext, TraceEvent};
use memobuild_oci::registry::{Certificates, impatient_agent};
use queue::{Queue, Taken};
use ureq::Agent;

use crate::{cli::without_password, telemetry::random};

/// How long the server may take to be reached, and to answer.
const CONNECT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(5);

/// After so many failures in a row the server is given up; a restart of it is survived.
const PATIENCE: RetryConfig = RetryConfig {
    max_attempts: 5,
    initial_delay: Duration::from_millis(300),
    backoff_factor: 3.0,
    max_delay: Duration::from_secs(8),
    jitter: true,
};

/// How long the end of a build waits for what is still to be told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where to, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// `http://` or `https://`, a host, perhaps a path; without a slash at its end.
    pub(crate) url: String,
    /// A bearer token.
    pub(crate) token: Option<Secret>,
    /// What the server is trusted by, and shown.
    pub(crate) certificates: Certificates,
    /// What requests are part of.
    pub(crate) trace: Option<TraceContext>,
}

impl Destination {
    /// A server, with the token that it is shown; `None` if it is none that can be told.
    pub(crate) fn new(url: &str, token: Option<&Secret>) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let (scheme, host) = url.split_once("://")?;
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return None;
        }
        // USER:PASSWORD is a registry's.
        let token = token
            .map(|token| token.reveal().trim())
            .filter(|token| !token.contains(':') && !token.chars().any(char::is_control));
        let certificates = Certificates::default();
        Some(Self { url: url.to_owned(), token: token.map(Secret::from), certificates, trace: None })
    }
}

/// An observer that tells a server. Whatever it is asked, it answers at once.
pub(crate) struct Reporter {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reporter {
    /// Begins to tell of a build. `name`: what it builds; `warn` is told once if the server can't be.
    pub(crate) fn start(to: Destination, name: String, warn: impl Fn(String) + Send + 'static) -> Self {
        let queue = Arc::new(Queue::default());
        let shared = Arc::clone(&queue);
        let tell = move || {
            if let Err(why) = tell(&to, &name, &shared) {
                warn(format!("this build is not shown by {}: {why}", without_password(&to.url)));
            }
            shared.end();
        };
        let thread = thread::Builder::new().name("report".into()).spawn(tell);
        if thread.is_err() {
            queue.end();
        }
        Self { queue, thread: Mutex::new(thread.ok()) }
    }

    /// Tells the rest, and waits for that a little. To be called when the build is over.
    pub(crate) fn finish(&self) {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that still waits for the server ends with the process.
        if let Some(thread) = thread.filter(|_| self.queue.wait_for_end(LAST_WORDS)) {
            let _ = thread.join();
        }
    }
}

impl Observer for Reporter {
    fn event(&self, event: TraceEvent) {
        self.queue.push(&event);
    }
}

/// The thread's work: until the queue is closed and empty.
fn tell(to: &Destination, name: &str, queue: &Queue) -> Result<(), String> {
    let id = format!("{:032x}", u128::from_le_bytes(random()));
    let mut agent: Option<Agent> = None;
    let mut backoff = Backoff::new(PATIENCE);
    while let Some(Taken { first, events }) = queue.take() {
        let agent = match &agent {
            Some(agent) => agent,
            None => agent.insert(impatient_agent(&to.certificates, CONNECT, SILENCE)?),
        };
        let body = wire::body(&id, name, first, events);
        loop {
            match post(agent, to, &body) {
                Ok(()) => {
                    backoff.progress();
                    break;
                }
                Err(Refusal::Final(why)) => return Err(why),
                Err(Refusal::Passing(why)) => {
                    // Once more, unless the build is over and this was not the first attempt. The server goes by the
                    // numbers of events: one that it has already is not taken twice.
                    match backoff.next_delay(None).filter(|_| backoff.attempt() == 1 || !queue.is_closed()) {
                        Some(pause) => queue.pause(pause),
                        None => return Err(why),
                    }
                }
            }
        }
    }
    Ok(())
}

/// Why a batch was not taken.
enum Refusal {
    /// The next one won't be either.
    Final(String),
    /// It may be soon.
    Passing(String),
}

fn post(agent: &Agent, to: &Destination, body: &[u8]) -> Result<(), Refusal> {
    let mut request = agent
        .post(format!("{}/build-event", to.url))
        .config()
        // Whatever it is busy with.
        .timeout_global(Some(2 * SILENCE))
        .build()
        .header("content-type", "application/json");
    if let Some(token) = &to.token {
        request = request.header("authorization", token.bearer().reveal());
    }
    if let Some(trace) = &to.trace {
        request = request.header("traceparent", trace.to_string());
    }
    let status = match request.send(body) {
        Ok(response) => response.status().as_u16(),
        Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => return Err(Refusal::Final(error.to_string())),
        Err(error) => return Err(Refusal::Passing(error.to_string())),
    };
    let why = match status {
        200..300 => return Ok(()),
        401 => "it wants a token: set MEMOBUILD_TOKEN".into(),
        403 => "the token may not write".into(),
        404 | 405 => "it takes no events of builds".into(),
        status => format!("it answered {status}"),
    };
    Err(match status {
        408 | 429 | 500.. => Refusal::Passing(why),
        _ => Refusal::Final(why),
    })
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
