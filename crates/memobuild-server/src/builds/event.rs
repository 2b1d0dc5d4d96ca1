//! Events as clients send them, and what is checked before anything else sees them.
//!
//! Their form is that of `memobuild build --progress=rawjson` (and of `TraceEvent` in `memobuild-observe`). Events and
//! fields that are unknown are skipped: a client may be newer than its server.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{BuildId, Layer};

/// The most events in one batch, and the most steps of one build.
pub(crate) const MOST_EVENTS: usize = 10_000;
pub(crate) const MOST_STEPS: usize = 5_000;
/// The most inputs of one step.
const MOST_INPUTS: usize = 1_000;

/// The longest texts that are kept, in bytes; what is longer is cut.
const LONGEST_NAME: usize = 256;
const LONGEST_LABEL: usize = 2 << 10;
const LONGEST_MESSAGE: usize = 8 << 10;

/// The longest duration that is believed, in milliseconds: a year.
const LONGEST: f64 = 366.0 * 86_400_000.0;

/// A batch that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No build's id.
    #[error("not a build's id: {0:?} (expected 8 to 64 of 0-9, a-z and -)")]
    Id(String),
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(String),
    /// A value that makes no sense.
    #[error("{0}")]
    Value(String),
    /// Too many of something.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// Events of one build.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The build.
    pub build: BuildId,
    /// The number of the first event among all of the build; `None`: of a client that does not count.
    pub seq: Option<u64>,
    /// What is built, for people.
    pub name: Option<String>,
    /// The events. None at all says that the build goes on.
    pub events: Vec<Event>,
}

/// A step, as the plan has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PlannedStep {
    /// Its number in the build.
    pub id: u32,
    /// What it is, for people.
    pub label: String,
    /// The stage.
    #[serde(default)]
    pub stage: String,
    /// The steps whose trees it takes.
    #[serde(default)]
    pub inputs: Vec<u32>,
    /// First line of its instruction, from 1.
    #[serde(default)]
    pub line: Option<u32>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A known result was taken.
    Cached,
    /// It was executed.
    Executed,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The plan is known.
    BuildStarted {
        /// All steps, inputs before users.
        steps: Vec<PlannedStep>,
    },
    /// How steps are run.
    SandboxChosen {
        /// In one word.
        mode: String,
        /// Why so.
        #[serde(default)]
        why: String,
    },
    /// A step is being executed.
    NodeExecuting {
        /// The step.
        step: u32,
        /// Why.
        #[serde(default)]
        reason: String,
        /// Not for the first time.
        #[serde(default)]
        again: bool,
    },
    /// A step's result was taken from a cache.
    NodeCached {
        /// The step.
        step: u32,
    },
    /// A step is over.
    NodeDone {
        /// The step.
        step: u32,
        /// How.
        outcome: Outcome,
        /// What it failed with.
        #[serde(default)]
        message: Option<String>,
        /// How long it took, in milliseconds.
        duration_ms: f64,
    },
    /// A step wrote something.
    NodeOutput {
        /// The step.
        step: u32,
        /// What.
        #[serde(deserialize_with = "base64_bytes")]
        data: Vec<u8>,
    },
    /// A layer of the image is ready.
    LayerBuilt(Layer),
    /// Something that the user should know.
    Warning {
        /// For a person.
        message: String,
    },
    /// The build fails with this.
    Error {
        /// For a person.
        message: String,
    },
    /// The build is over.
    BuildFinished {
        /// Whether it did what it should.
        ok: bool,
        /// How long it took, in milliseconds.
        duration_ms: f64,
    },
    /// The sums of a build, of a client that tells no more.
    #[serde(skip)]
    Counted(Counted),
    /// Any other.
    #[serde(other)]
    Unknown,
}

/// Sums of one build.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Counted {
    /// Whether it did what it should.
    pub ok: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Steps taken from a cache.
    pub cached: u32,
    /// Steps executed.
    pub executed: u32,
    /// Time saved, in milliseconds, where the client knows it.
    #[serde(default)]
    pub saved_ms: Option<f64>,
}

fn base64_bytes<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(d)?;
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

impl Batch {
    /// The body of `POST /build-event`: `{"build": ID, "seq": N, "name": TEXT, "events": [EVENT, ...]}`, or one event with
    /// `build` in it.
    pub fn events(body: &[u8]) -> Result<Self, BatchError> {
        let mut object = object(body)?;
        let events = match object.remove("events") {
            Some(Value::Array(events)) => events,
            Some(_) => return Err(BatchError::Json("events is not a list".into())),
            // The name of an event is not that of a build.
            None => vec![Value::Object(object.clone())],
        };
        if events.len() > MOST_EVENTS {
            return Err(BatchError::TooMany { what: "events", limit: MOST_EVENTS });
        }
        let events = events.into_iter().map(event).collect::<Result<_, _>>()?;
        Self::new(&mut object, events)
    }

    /// The body of `POST /dag`: `{"build": ID, "name": TEXT, "steps": [STEP, ...]}`.
    pub fn dag(body: &[u8]) -> Result<Self, BatchError> {
        let mut object = object(body)?;
        object.insert("event".into(), "build_started".into());
        let event = event(Value::Object(object.clone()))?;
        Self::new(&mut object, vec![event])
    }

    /// The body of `POST /analytics`: [`Counted`] with `build` and `name`.
    pub fn counted(body: &[u8]) -> Result<Self, BatchError> {
        let mut object = object(body)?;
        let mut counted: Counted = serde_json::from_value(Value::Object(object.clone())).map_err(json)?;
        counted.duration_ms = duration(counted.duration_ms)?;
        counted.saved_ms = counted.saved_ms.map(duration).transpose()?;
        Self::new(&mut object, vec![Event::Counted(counted)])
    }

    fn new(object: &mut Map<String, Value>, events: Vec<Event>) -> Result<Self, BatchError> {
        let build = match object.get("build") {
            Some(Value::String(text)) => text.parse()?,
            _ => return Err(BatchError::Json("build, the build's id, is missing".into())),
        };
        let seq = match object.get("seq") {
            None => None,
            // Beyond this the database has no number.
            Some(seq) => Some(
                seq.as_u64()
                    .filter(|n| *n < 1 << 53)
                    .ok_or_else(|| BatchError::Value("seq is no whole number below 2^53".into()))?,
            ),
        };
        let name = match object.get("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(line(name, LONGEST_NAME)).filter(|name| !name.is_empty()),
            Some(_) => return Err(BatchError::Json("name is no text".into())),
        };
        Ok(Self { build, seq, name, events })
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, BatchError> {
    serde_json::from_slice(body).map_err(json)
}

fn json(error: serde_json::Error) -> BatchError {
    BatchError::Json(error.to_string())
}

/// One event, its texts cut and its numbers checked.
fn event(value: Value) -> Result<Event, BatchError> {
    let mut event: Event = serde_json::from_value(value).map_err(json)?;
    match &mut event {
        Event::BuildStarted { steps } => check_plan(steps)?,
        Event::SandboxChosen { mode, why } => {
            *mode = line(mode, LONGEST_NAME);
            *why = line(why, LONGEST_LABEL);
        }
        Event::NodeExecuting { reason, .. } => lines(reason, LONGEST_MESSAGE),
        Event::NodeDone { message, duration_ms, .. } => {
            if let Some(message) = message {
                lines(message, LONGEST_MESSAGE);
            }
            *duration_ms = duration(*duration_ms)?;
        }
        Event::LayerBuilt(layer) => {
            let hex = layer.digest.strip_prefix("sha256:").unwrap_or_default();
            if memobuild_tree::Sha256Digest::from_hex(hex).is_err() || i64::try_from(layer.size).is_err() {
                return Err(BatchError::Value("a layer has a digest sha256:... and a size in bytes".into()));
            }
        }
        Event::Warning { message } | Event::Error { message } => lines(message, LONGEST_MESSAGE),
        Event::BuildFinished { duration_ms, .. } => *duration_ms = duration(*duration_ms)?,
        Event::NodeCached { .. } | Event::NodeOutput { .. } | Event::Counted(_) | Event::Unknown => {}
    }
    Ok(event)
}

/// Numbers are given once, and inputs come before those who take them: nobody walks in circles later.
fn check_plan(steps: &mut [PlannedStep]) -> Result<(), BatchError> {
    if steps.len() > MOST_STEPS {
        return Err(BatchError::TooMany { what: "steps", limit: MOST_STEPS });
    }
    let mut known = std::collections::BTreeSet::new();
    for step in steps {
        step.label = line(&step.label, LONGEST_LABEL);
        step.stage = line(&step.stage, LONGEST_NAME);
        if step.inputs.len() > MOST_INPUTS {
            return Err(BatchError::TooMany { what: "inputs of a step", limit: MOST_INPUTS });
        }
        if let Some(input) = step.inputs.iter().find(|input| !known.contains(*input)) {
            let message = format!("step {} takes step {input}, which does not come before it", step.id);
            return Err(BatchError::Value(message));
        }
        if !known.insert(step.id) {
            return Err(BatchError::Value(format!("there are two steps {}", step.id)));
        }
    }
    Ok(())
}

fn duration(ms: f64) -> Result<f64, BatchError> {
    match (0.0..=LONGEST).contains(&ms) {
        true => Ok(ms),
        false => Err(BatchError::Value("a duration is out of range".into())),
    }
}

/// Cuts at a character.
fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
}

/// As lines. PostgreSQL keeps no text with a NUL in it.
fn lines(text: &mut String, longest: usize) {
    cut(text, longest);
    text.retain(|c| c != '\0');
}

/// As one line without control characters.
fn line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&mut line, longest);
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn batch(events: Value) -> Result<Batch, BatchError> {
        Batch::events(json!({ "build": ID, "seq": 7, "name": "app\n1", "events": events }).to_string().as_bytes())
    }

    #[test]
    fn a_batch_and_a_single_event() {
        let taken = batch(json!([
            { "event": "node_output", "step": 1, "stream": "stdout", "data": "aGkK", "time": "2024-05-31T00:00:00Z" },
            { "event": "from_the_future", "what": [1, 2] },
            { "event": "node_done", "step": 1, "outcome": "failed", "message": "exit code: 1", "duration_ms": 12.5 },
        ]))
        .unwrap();
        assert_eq!((taken.seq, taken.name.as_deref()), (Some(7), Some("app 1")));
        assert_eq!(taken.events[0], Event::NodeOutput { step: 1, data: b"hi\n".to_vec() });
        assert_eq!(taken.events[1], Event::Unknown);
        let single = Batch::events(br#"{"build":"0123456789abcdef","event":"node_cached","step":3}"#).unwrap();
        assert_eq!((single.seq, single.events), (None, vec![Event::NodeCached { step: 3 }]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [&b"["[..], b"7", b"{}", br#"{"build":7,"events":[]}"#, br#"{"build":"0123456789abcdef"}"#] {
            assert!(Batch::events(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        for events in [
            json!([{ "event": "node_done", "step": 1, "outcome": "cached", "duration_ms": -1.0 }]),
            json!([{ "event": "node_done", "step": 1, "outcome": "cached", "duration_ms": 1e300 }]),
            json!([{ "event": "node_done", "step": -1, "outcome": "cached", "duration_ms": 1 }]),
            json!([{ "event": "node_output", "step": 1, "data": "not base64!" }]),
            json!([{ "event": "layer_built", "digest": "sha256:../..", "size": 1 }]),
            json!([{ "event": "build_started", "steps": [{ "id": 1, "label": "a" }, { "id": 1, "label": "b" }] }]),
            json!([{ "event": "build_started", "steps": [{ "id": 1, "label": "a", "inputs": [1] }] }]),
            json!([7]),
            json!({}),
        ] {
            assert!(batch(events.clone()).is_err(), "{events}");
        }
        let many = vec![json!({ "event": "x" }); MOST_EVENTS + 1];
        assert_eq!(batch(many.into()), Err(BatchError::TooMany { what: "events", limit: MOST_EVENTS }));
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "ä".repeat(LONGEST_LABEL);
        let taken = batch(json!([{ "event": "build_started", "steps": [{ "id": 1, "label": long }] }])).unwrap();
        let Some(Event::BuildStarted { steps }) = taken.events.first() else { panic!("{taken:?}") };
        assert!(steps[0].label.len() <= LONGEST_LABEL + 3 && steps[0].label.ends_with('…'));
    }

    #[test]
    fn texts_are_such_that_any_database_keeps_them() {
        let taken = batch(json!([{ "event": "warning", "message": "a\0b\nc" }])).unwrap();
        assert_eq!(taken.events, [Event::Warning { message: "ab\nc".into() }]);
    }
}
