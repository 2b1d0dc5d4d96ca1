//! Spans as OTLP's JSON: `ExportTraceServiceRequest` of opentelemetry-proto by its JSON mapping, with ids in
//! hexadecimal, numbers of 64 bits as strings, and enumerations as numbers.

use std::time::Duration;

use memobuild_observe::{BuildMetrics, StepOutcome};
use serde_json::{Map, Value, json};

use super::Kept;
use crate::{
    cli::cut,
    telemetry::{
        Trace, random,
        timeline::{End, Note, Span, What},
    },
};

/// `SPAN_KIND_INTERNAL`, and `SPAN_KIND_CLIENT` for what goes to another host.
const INTERNAL: u8 = 1;
const CLIENT: u8 = 3;

/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`; without a status it is unset.
const OK: u8 = 1;
const ERROR: u8 = 2;

/// Characters of the longest text that is sent.
const LONGEST: usize = 1000;

/// The body of a request with these spans.
pub(super) fn request(resource: &[(String, String)], spans: &[Value]) -> Vec<u8> {
    let attributes: Vec<Value> = resource.iter().map(|(key, value)| attribute(key, text(value))).collect();
    let scope = json!({ "name": "memobuild", "version": env!("CARGO_PKG_VERSION") });
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }],
    })
    .to_string()
    .into_bytes()
}

/// All spans of a build: the build itself is the parent of the others. `epoch`: when it began, since 1970.
pub(super) fn spans(kept: &Kept, trace: &Trace, name: &str, epoch: Duration) -> Vec<Value> {
    let numbers = Numbers { trace, base: u64::from_le_bytes(random()), epoch };
    let one = |(span, end, at): &(Span, End, Duration)| match end {
        End::Build { ok, .. } => numbers.build(span, *at, *ok, name, kept),
        end => numbers.part(span, end, *at),
    };
    kept.spans.iter().map(one).collect()
}

struct Numbers<'a> {
    trace: &'a Trace,
    /// Span ids begin here.
    base: u64,
    epoch: Duration,
}

impl Numbers<'_> {
    fn nanos(&self, at: Duration) -> Value {
        (self.epoch + at).as_nanos().to_string().into()
    }

    /// What all spans have. `at`: when it ended.
    fn span(&self, span: &Span, at: Duration, kind: u8, attributes: Vec<Value>) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("traceId".into(), self.trace.own.trace_id().into());
        out.insert("name".into(), text(span.name()));
        out.insert("kind".into(), kind.into());
        out.insert("startTimeUnixNano".into(), self.nanos(span.began));
        out.insert("endTimeUnixNano".into(), self.nanos(at));
        out.insert("attributes".into(), attributes.into());
        out
    }

    fn build(&self, span: &Span, at: Duration, ok: bool, name: &str, kept: &Kept) -> Value {
        let BuildMetrics { cache_hits, cache_misses, bytes_moved, .. } = kept.metrics;
        let attributes = vec![
            attribute("memobuild.build.name", text(name)),
            attribute("memobuild.build.ok", ok),
            attribute("memobuild.cache.hits", cache_hits),
            attribute("memobuild.cache.misses", cache_misses),
            attribute("memobuild.bytes_moved", bytes_moved),
        ];
        let mut out = self.span(span, at, INTERNAL, attributes);
        out.insert("spanId".into(), self.trace.own.span_id().into());
        if let Some(parent) = &self.trace.parent {
            out.insert("parentSpanId".into(), parent.span_id().into());
        }
        let events: Vec<Value> = kept.notes.iter().map(|(at, note)| self.note(*at, note)).collect();
        out.insert("events".into(), events.into());
        out.insert("droppedEventsCount".into(), kept.lost_notes.into());
        let error = kept.notes.iter().rev().find_map(|(_, note)| match note {
            Note::Error(message) => Some(message.as_str()),
            _ => None,
        });
        out.insert("status".into(), if ok { json!({ "code": OK }) } else { failed(error.unwrap_or_default()) });
        Value::Object(out)
    }

    fn part(&self, span: &Span, end: &End, at: Duration) -> Value {
        let mut attributes = Vec::new();
        let mut status = None;
        let kind = match &span.what {
            What::Step { info, reason } => {
                attributes.push(attribute("memobuild.step", info.id));
                attributes.push(attribute("memobuild.stage", text(&info.stage)));
                attributes.extend(info.line.map(|line| attribute("memobuild.line", line)));
                attributes.extend(reason.as_deref().map(|reason| attribute("memobuild.reason", text(reason))));
                INTERNAL
            }
            What::Transfer { bytes, .. } => {
                attributes.push(attribute("memobuild.bytes", *bytes));
                CLIENT
            }
            What::Export { .. } | What::Build => INTERNAL,
        };
        let outcome = match end {
            End::Step(StepOutcome::Cached) => "cached",
            End::Step(StepOutcome::Executed) => "executed",
            End::Step(StepOutcome::Cancelled) => "cancelled",
            End::Step(StepOutcome::Failed { message }) => {
                status = Some(failed(message));
                "failed"
            }
            End::Done | End::Build { .. } => "done",
            End::Stopped => "stopped",
        };
        attributes.push(attribute("memobuild.outcome", outcome));
        let mut out = self.span(span, at, kind, attributes);
        // 0 would be none.
        let id = self.base.wrapping_add(span.number as u64).max(1);
        out.insert("spanId".into(), format!("{id:016x}").into());
        out.insert("parentSpanId".into(), self.trace.own.span_id().into());
        out.extend(status.map(|status| ("status".to_owned(), status)));
        Value::Object(out)
    }

    fn note(&self, at: Duration, note: &Note) -> Value {
        let (name, attributes) = match note {
            Note::Layer { digest, size } => {
                ("layer", vec![attribute("memobuild.digest", text(digest)), attribute("memobuild.bytes", *size)])
            }
            Note::Warning(message) => ("warning", vec![attribute("memobuild.message", text(message))]),
            Note::Error(message) => ("error", vec![attribute("memobuild.message", text(message))]),
        };
        json!({ "timeUnixNano": self.nanos(at), "name": name, "attributes": attributes })
    }
}

fn failed(message: &str) -> Value {
    json!({ "code": ERROR, "message": text(message) })
}

/// A text of a length that collectors take.
fn text(text: &str) -> Value {
    cut(text, LONGEST).into()
}

fn attribute(key: &str, value: impl Into<Value>) -> Value {
    let value = match value.into() {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(value) => json!({ "intValue": value.to_string() }),
        Value::String(value) => json!({ "stringValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": key, "value": value })
}
