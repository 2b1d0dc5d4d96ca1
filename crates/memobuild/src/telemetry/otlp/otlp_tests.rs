use std::{net::TcpListener, sync::mpsc::Receiver};

use memobuild_observe::{StepInfo, StepOutcome, Stream, TraceContext};

use super::*;
use crate::testing;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn trace() -> Trace {
    let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    Trace { own: parent.child(0xabc), parent: Some(parent) }
}

fn settings(url: &str, more: &[(&str, &str)]) -> Settings {
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", url)];
    let variables: Vec<(&str, &str)> = endpoint.iter().chain(more).copied().collect();
    let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    let (settings, wrong) = read(&get);
    assert!(wrong.is_empty(), "{wrong:?}");
    settings.unwrap()
}

fn events() -> Vec<TraceEvent> {
    let step = |id, label: &str, line| StepInfo { id, label: label.into(), stage: "app".into(), inputs: vec![], line };
    let done = |step, outcome, ms| TraceEvent::NodeDone { step, outcome, duration: MS(ms) };
    vec![
        TraceEvent::BuildStarted { steps: vec![step(0, "FROM a", Some(1)), step(1, "RUN b", Some(2))] },
        TraceEvent::CacheHit { step: 0, key: "k".into() },
        done(0, StepOutcome::Cached, 0),
        TraceEvent::CacheMiss { step: 1, key: "k".into() },
        TraceEvent::NodeExecuting { step: 1, reason: "new".into(), again: false },
        TraceEvent::NodeOutput { step: 1, stream: Stream::Stdout, data: b"printed".to_vec() },
        TraceEvent::RemoteSync { what: "import a".into(), done: 5, total: Some(5), finished: true },
        TraceEvent::LayerBuilt { digest: "sha256:0".into(), size: 7 },
        done(1, StepOutcome::Failed { message: "exit code: 1".into() }, 3),
        TraceEvent::Error { message: "RUN b failed".into() },
        TraceEvent::BuildFinished { ok: false, duration: MS(9), cached: 0, executed: 0 },
    ]
}

fn exporter(url: &str, more: &[(&str, &str)]) -> Exporter {
    let exporter = Exporter::new(settings(url, more), trace(), "app".into()).unwrap();
    events().into_iter().for_each(|event| exporter.event(event));
    exporter
}

fn spans_of(body: &Value) -> Vec<Value> {
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn bodies(requests: &Receiver<(String, Value)>) -> usize {
    requests.try_iter().count()
}

#[test]
fn spans_as_a_collector_takes_them() {
    let mut kept = Kept::default();
    events().into_iter().zip(1..).for_each(|(event, at)| kept.apply(MS(at), event));
    let mut spans = encode::spans(&kept, &trace(), "app", Duration::from_secs(1_700_000_000));
    // Those of parts begin with a number made by chance.
    let mut ids = std::collections::BTreeSet::new();
    for span in &mut spans {
        let id = span["spanId"].as_str().unwrap().to_owned();
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert!(ids.insert(id));
        if span["name"] != "build" {
            span["spanId"] = "ID".into();
        }
    }
    let body: Value = serde_json::from_slice(&encode::request(&[("service.name".into(), "s".into())], &spans)).unwrap();
    insta::assert_snapshot!(format!("{body:#}").replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn they_are_sent_once_with_what_the_environment_says() {
    let (url, requests) = testing::server(vec![(200, "{\"partialSuccess\":{}}")]);
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=tools,authorization=Basic%20YTpi");
    exporter(&url, &[headers, ("OTEL_SERVICE_NAME", "images")]).finish().unwrap();
    let (head, body) = requests.try_recv().unwrap();
    let lines = head.to_ascii_lowercase();
    assert!(lines.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    for header in ["content-type: application/json\r\n", "x-team: tools\r\n", "authorization: basic ytpi\r\n"] {
        assert!(lines.contains(header), "{head}");
    }
    assert_eq!(spans_of(&body).len(), 4);
    let resource = body["resourceSpans"][0]["resource"]["attributes"].to_string();
    assert!(resource.contains("\"images\"") && !body.to_string().contains("printed"), "{body}");
    assert_eq!(bodies(&requests), 0);
}

#[test]
fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (url, requests) = testing::server(vec![(503, ""), (429, "")]);
    exporter(&url, &[]).finish().unwrap();
    assert_eq!(bodies(&requests), 3);
    for (answer, asked, says) in [
        (vec![(400, "")], 1, "it answered 400"),
        (vec![(503, ""); 9], 3, "it answered 503"),
        (vec![(200, "{\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"too\\nold\"}}")], 1, "refused 2"),
        (vec![(307, "")], 1, "it answered 307"),
    ] {
        let (url, requests) = testing::server(answer);
        let why = exporter(&url, &[]).finish().unwrap_err();
        assert!(why.contains(says) && !why.contains('\n'), "{why}");
        assert_eq!(bodies(&requests), asked, "{why}");
    }
}

#[test]
fn nobody_there_and_one_that_hangs_are_no_more_than_an_error() {
    // A port that was free a moment ago, and one behind which nobody answers.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [free, silent.local_addr().unwrap()] {
        let url = format!("http://me:hunter2@{address}");
        let begun = Instant::now();
        let why = exporter(&url, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "300")]).finish().unwrap_err();
        // And what a busy machine adds.
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(why.contains(&address.to_string()) && !why.contains("hunter2"), "{why}");
    }
}

#[test]
fn a_trace_that_is_not_recorded_is_not_sent() {
    let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap();
    let trace = Trace { own: parent.child(1), parent: Some(parent) };
    assert!(Exporter::new(settings("http://c", &[]), trace, String::new()).is_none());
}

#[test]
fn a_large_build_is_sent_in_parts_and_a_huge_one_is_cut() {
    let mut kept = Kept::default();
    for step in 0..MOST_SPANS + 10 {
        let outcome = StepOutcome::Executed;
        kept.apply(MS(1), TraceEvent::NodeDone { step, outcome, duration: MS(1) });
        kept.apply(MS(1), TraceEvent::Warning { message: "w".into() });
    }
    kept.apply(MS(2), TraceEvent::BuildFinished { ok: true, duration: MS(2), cached: 0, executed: 0 });
    let spans = encode::spans(&kept, &trace(), "app", Duration::ZERO);
    assert_eq!(spans.len(), MOST_SPANS + 1);
    let build = spans.last().unwrap();
    assert_eq!((&build["name"], build["events"].as_array().unwrap().len()), (&"build".into(), MOST_NOTES));
    assert_eq!(build["droppedEventsCount"], MOST_SPANS + 10 - MOST_NOTES);
    let (url, requests) = testing::server(Vec::new());
    let exporter = Exporter::new(settings(&url, &[]), trace(), String::new()).unwrap();
    *exporter.kept.lock().unwrap() = kept;
    exporter.finish().unwrap();
    assert_eq!(bodies(&requests), (MOST_SPANS + 1).div_ceil(BATCH));
}
