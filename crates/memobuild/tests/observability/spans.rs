//! Spans of builds, as a collector gets them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{build, collector::Collector, common::text, place, server::objects};

fn warnings(out: &std::process::Output) -> Vec<String> {
    let events = objects(text(&out.stderr).lines());
    let all = events.iter().filter(|event| event["event"] == "warning");
    all.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// A span's attributes, with values as text.
fn attributes(span: &Value) -> BTreeMap<String, String> {
    let one = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        (attribute["key"].as_str().unwrap().to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    span["attributes"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_build_and_its_steps_are_sent_when_it_is_over() {
    let (place, collector) = (place(), Collector::start());
    for outcome in ["executed", "cached"] {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
        let dest = "type=oci,dest=../app.tar";
        let out = build(&place, &variables, &["--progress", "rawjson", "-t", "app", "-o", dest]);
        assert!(out.status.success() && warnings(&out).is_empty(), "{}", text(&out.stderr));
        let spans = collector.spans();
        let root = spans.iter().find(|span| span["name"] == "build").unwrap();
        let of_build = attributes(root);
        assert_eq!((&*of_build["memobuild.build.name"], &*of_build["memobuild.build.ok"]), ("app", "true"));
        let hits = if outcome == "cached" { "3" } else { "0" };
        assert_eq!(of_build["memobuild.cache.hits"], hits);
        assert_eq!(root["status"]["code"], 1);
        let copies: Vec<&Value> = spans.iter().filter(|span| span["name"].as_str().unwrap().contains("COPY")).collect();
        assert_eq!(copies.len(), 2, "{spans:?}");
        let number = |span: &Value, field: &str| span[field].as_str().unwrap().parse::<u128>().unwrap();
        for copy in copies {
            let of_step = attributes(copy);
            assert_eq!(of_step["memobuild.outcome"], outcome);
            assert!(of_step.contains_key("memobuild.stage") && of_step.contains_key("memobuild.line"), "{copy}");
            assert_eq!(of_step.contains_key("memobuild.reason"), outcome == "executed");
            assert_eq!(copy["parentSpanId"], root["spanId"]);
            assert!(number(copy, "startTimeUnixNano") >= number(root, "startTimeUnixNano"), "{copy} {root}");
            assert!(number(copy, "endTimeUnixNano") <= number(root, "endTimeUnixNano"), "{copy} {root}");
        }
        assert!(spans.iter().any(|span| span["name"].as_str().unwrap().starts_with("exporting")), "{spans:?}");
    }
}

#[test]
fn a_failed_build_is_sent_as_one() {
    let (place, collector) = (place(), Collector::start());
    place.write("Dockerfile", "FROM scratch\nCOPY missing /\n");
    let out = build(&place, &[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())], &["-q"]);
    assert_eq!(out.status.code(), Some(1));
    let spans = collector.spans();
    let root = spans.iter().find(|span| span["name"] == "build").unwrap();
    assert_eq!(root["status"]["code"], 2);
    assert!(root["status"]["message"].as_str().unwrap().contains("missing"), "{root}");
    assert!(root["events"].as_array().unwrap().iter().any(|event| event["name"] == "error"), "{root}");
    let step = spans.iter().find(|span| span["name"].as_str().unwrap().contains("COPY missing")).unwrap();
    assert_eq!((&*attributes(step)["memobuild.outcome"], &step["status"]["code"]), ("failed", &2.into()));
}

#[test]
fn variables_that_turn_it_off_do() {
    let (place, collector) = (place(), Collector::start());
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let sampled_out = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("TRACEPARENT", sampled_out)] {
        let out = build(&place, &[endpoint, off], &["--progress", "rawjson"]);
        assert!(out.status.success() && warnings(&out).is_empty(), "{off:?} {}", text(&out.stderr));
        assert!(collector.requests().is_empty(), "{off:?}");
    }
}

#[test]
fn what_goes_wrong_is_one_warning_and_no_failure() {
    let place = place();
    for (variables, says) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@127.0.0.1:9")], "were not sent to http://127.0.0.1:9"),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317")], "expected http:// or https://"),
    ] {
        let out = build(&place, &variables, &["--progress", "rawjson"]);
        let warnings = warnings(&out);
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert!(warnings.len() == 1 && warnings[0].contains(says), "{warnings:?}");
        assert!(!text(&out.stderr).contains("hunter2"), "{}", text(&out.stderr));
    }
    let collector = Collector::start();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let out = build(&place, &variables, &["--progress", "rawjson"]);
    let warnings = warnings(&out);
    assert!(warnings.len() == 1 && warnings[0].contains("http/json"), "{warnings:?}");
    assert_eq!(collector.requests().len(), 1);
}
