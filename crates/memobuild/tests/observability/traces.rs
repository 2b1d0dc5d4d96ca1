//! One trace for a build, its log, its spans, and all that the server is asked for it.

use serde_json::Value;

use crate::{
    build,
    collector::Collector,
    common::{Place, text},
    place,
    server::{Server, objects},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a build and its server say of traces.
struct Told {
    /// Of the client's log lines.
    client: Vec<String>,
    spans: Vec<Value>,
    /// Of each request: path, trace and the span that sent it.
    requests: Vec<(String, String, String)>,
    audit: Vec<Value>,
}

fn told(scheme: &str, traceparent: Option<&str>) -> Told {
    let (place, collector) = (place(), Collector::start());
    let server = Server::start(Place::new(), "memobuild=debug", &[]);
    let url = format!("{scheme}://{}", server.addr);
    let mut variables = vec![
        ("RUST_LOG", "memobuild=debug"),
        ("MEMOBUILD_JSON_LOGS", "1"),
        ("MEMOBUILD_REMOTE_URL", &url),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
    ];
    variables.extend(traceparent.map(|value| ("TRACEPARENT", value)));
    let out = build(&place, &variables, &["-q"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let (server, lines) = server.stop();
    let of_client = objects(text(&out.stderr).lines());
    let in_build = of_client.iter().filter(|line| line["spans"][0]["name"] == "build");
    let text_of = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let requests = objects(lines.iter().map(String::as_str)).into_iter().filter_map(|line| {
        let span = line["spans"].as_array()?.iter().find(|span| span["name"] == "request")?.clone();
        Some((text_of(&span["path"]), text_of(&span["trace_id"]), text_of(&span["parent_id"])))
    });
    Told {
        client: in_build.map(|line| text_of(&line["spans"][0]["trace_id"])).collect(),
        spans: collector.spans(),
        requests: requests.collect(),
        audit: objects(server.read("audit").lines()),
    }
}

impl Told {
    /// All of it is of this trace; gives the span that the build is.
    fn all_of(&self, trace: &str) -> String {
        assert!(self.client.len() > 5 && self.client.iter().all(|id| id == trace), "{:?}", self.client);
        let root = self.spans.iter().find(|span| span["name"] == "build").unwrap();
        let span = root["spanId"].as_str().unwrap();
        assert!(self.spans.iter().all(|span| span["traceId"] == trace), "{:?}", self.spans);
        assert!(!self.requests.is_empty());
        for (path, of, by) in &self.requests {
            assert_eq!((of.as_str(), by.as_str()), (trace, span), "{path}");
        }
        assert!(!self.audit.is_empty() && self.audit.iter().all(|line| line["trace_id"] == trace), "{:?}", self.audit);
        span.to_owned()
    }

    fn asked(&self, part: &str) -> bool {
        self.requests.iter().any(|(path, ..)| path.contains(part))
    }
}

#[test]
fn a_build_goes_on_with_the_trace_that_it_is_given() {
    let told = told("http", Some(&format!("00-{TRACE}-{PARENT}-01")));
    let span = told.all_of(TRACE);
    assert_ne!(span, PARENT);
    let root = told.spans.iter().find(|span| span["name"] == "build").unwrap();
    assert_eq!(root["parentSpanId"], PARENT);
    for part in ["/record/", "/cache/missing", "/build-event"] {
        assert!(told.asked(part), "{part}: {:?}", told.requests);
    }
}

#[test]
fn calls_of_the_remote_execution_api_name_it_too() {
    let told = told("grpc", Some(&format!("00-{TRACE}-{PARENT}-01")));
    told.all_of(TRACE);
    assert!(told.asked("ActionCache") && told.asked("ContentAddressableStorage"), "{:?}", told.requests);
}

#[test]
fn without_a_valid_one_it_has_one_of_its_own() {
    let mut seen = Vec::new();
    for given in [None, Some("00-nonsense-01"), Some(&*format!("00-{}-{PARENT}-01", "0".repeat(32)))] {
        let told = told("http", given);
        let trace = told.client[0].clone();
        assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{trace}");
        assert_ne!(trace, "0".repeat(32));
        told.all_of(&trace);
        let root = told.spans.iter().find(|span| span["name"] == "build").unwrap();
        assert_eq!(root["parentSpanId"], Value::Null);
        assert!(!seen.contains(&trace));
        seen.push(trace);
    }
}
