//! `--progress=rawjson`: every event as one JSON object on a line of its own, for programs.
//!
//! Each object has `time` (RFC 3339) and the event's own fields; a step's output is base64, as it may be any bytes.

use std::{
    io::{self, BufWriter, Write},
    time::UNIX_EPOCH,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memobuild_observe::TraceEvent;
use serde_json::Value;

use super::{Display, Moment};

/// Writes events as they are.
pub(super) struct RawJson<W: Write> {
    out: BufWriter<W>,
}

impl<W: Write> RawJson<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out: BufWriter::new(out) }
    }
}

impl<W: Write + Send> Display for RawJson<W> {
    fn event(&mut self, at: Moment, event: TraceEvent) -> io::Result<()> {
        let since = at.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let mut object = serde_json::Map::new();
        object.insert("time".into(), memobuild_image::time::rfc3339(seconds, since.subsec_nanos()).into());
        let output = match &event {
            TraceEvent::NodeOutput { data, .. } => Some(STANDARD.encode(data)),
            _ => None,
        };
        // Output is not turned into a JSON array of numbers first.
        let event = match event {
            TraceEvent::NodeOutput { step, stream, .. } => TraceEvent::NodeOutput { step, stream, data: Vec::new() },
            other => other,
        };
        if let Value::Object(fields) = serde_json::to_value(&event)? {
            object.extend(fields);
        }
        if let Some(data) = output {
            object.insert("data".into(), data.into());
        }
        serde_json::to_writer(&mut self.out, &object)?;
        self.out.write_all(b"\n")
    }

    fn tick(&mut self, _: Moment) -> io::Result<()> {
        self.out.flush()
    }

    fn idle(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self, _: Moment) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memobuild_observe::{StepOutcome, Stream};

    use super::*;

    #[test]
    fn one_object_a_line() {
        let mut display = RawJson::new(Vec::new());
        let at = Moment { elapsed: Duration::ZERO, wall: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250) };
        display.event(at, TraceEvent::NodeOutput { step: 3, stream: Stream::Stderr, data: b"hi\n".to_vec() }).unwrap();
        let done = TraceEvent::NodeDone {
            step: 3,
            outcome: StepOutcome::Failed { message: "exit code: 1".into() },
            duration: Duration::from_millis(1500),
        };
        display.event(at, done).unwrap();
        insta::assert_snapshot!(String::from_utf8(display.out.into_inner().unwrap()).unwrap(), @r#"
        {"time":"2023-11-14T22:13:20.25Z","event":"node_output","step":3,"stream":"stderr","data":"aGkK"}
        {"time":"2023-11-14T22:13:20.25Z","event":"node_done","step":3,"outcome":"failed","message":"exit code: 1","duration_ms":1500.0}
        "#);
    }
}
