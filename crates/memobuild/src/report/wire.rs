//! Batches as the server takes them: `{"build": ID, "seq": N, "name": TEXT, "events": [EVENT, ...]}`, with events in the
//! form of `--progress=rawjson`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memobuild_observe::{StepInfo, TraceEvent};
use serde_json::{Value, json};

/// The longest label that is sent, in bytes: those of many steps go into one request.
const LONGEST_LABEL: usize = 500;

/// The body of a request. `first`: the number of the first event.
pub(super) fn body(id: &str, name: &str, first: u64, events: Vec<TraceEvent>) -> Vec<u8> {
    let events: Vec<Value> = events.into_iter().map(event).collect();
    json!({ "build": id, "seq": first, "name": name, "events": events }).to_string().into_bytes()
}

fn event(event: TraceEvent) -> Value {
    match event {
        TraceEvent::NodeOutput { step, stream, data } => {
            let data = STANDARD.encode(data);
            json!({ "event": "node_output", "step": step, "stream": stream, "data": data })
        }
        TraceEvent::BuildStarted { steps } => {
            let steps = steps.into_iter().map(|step| StepInfo { label: cut(step.label), ..step }).collect();
            value(&TraceEvent::BuildStarted { steps })
        }
        event => value(&event),
    }
}

/// One that can't be told keeps its place: events are counted.
fn value(event: &TraceEvent) -> Value {
    serde_json::to_value(event).unwrap_or_else(|_| json!({ "event": "unknown" }))
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_LABEL {
        let end = (0..=LONGEST_LABEL).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use memobuild_observe::Stream;

    use super::*;

    #[test]
    fn output_is_base64_and_labels_are_short() {
        let step = StepInfo { id: 0, label: "ä".repeat(900), stage: "s".into(), inputs: Vec::new(), line: None };
        let events = vec![
            TraceEvent::BuildStarted { steps: vec![step] },
            TraceEvent::NodeOutput { step: 0, stream: Stream::Stderr, data: b"hi\n".to_vec() },
        ];
        let sent: Value = serde_json::from_slice(&body("0123456789", "app", 3, events)).unwrap();
        assert_eq!((&sent["build"], &sent["seq"], &sent["name"]), (&json!("0123456789"), &json!(3), &json!("app")));
        assert_eq!(sent["events"][0]["steps"][0]["label"].as_str().map(str::len), Some(LONGEST_LABEL + 3));
        assert_eq!(sent["events"][1], json!({ "event": "node_output", "step": 0, "stream": "stderr", "data": "aGkK" }));
    }
}
