//! Log lines of a build.

use memobuild::logging::init_logging;
use serde_json::Value;

use crate::{build, common::text, place, server::objects};

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["fields"]["message"].as_str()).collect()
}

#[test]
fn without_being_asked_nothing_is_logged() {
    let out = build(&place(), &[("MEMOBUILD_JSON_LOGS", "0"), ("RUST_LOG", "")], &["-q"]);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
}

#[test]
fn json_logs_are_an_object_a_line_with_fixed_fields() {
    let place = place();
    for json in ["1", "true"] {
        let out = build(&place, &[("MEMOBUILD_JSON_LOGS", json)], &["-q"]);
        let log = text(&out.stderr);
        let lines = objects(log.lines());
        assert_eq!(lines.len(), log.lines().count(), "{log}");
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!(messages(&lines)[0], "build started");
        assert!(first["fields"]["steps"].as_u64().unwrap() >= 4, "{first}");
        assert_eq!((&last["level"], &last["fields"]["message"]), (&"INFO".into(), &"build complete".into()));
        assert_eq!((&last["fields"]["ok"], &last["target"]), (&true.into(), &"memobuild::build".into()));
        // All of it ran the first time, and was found the second time.
        let counts = (&last["fields"]["cache_hits"], &last["fields"]["cache_misses"]);
        let expected = if json == "1" { (0, 3) } else { (3, 0) };
        assert_eq!(counts, (&expected.0.into(), &expected.1.into()), "{last}");
        let steps = lines.iter().filter(|line| line["fields"]["message"] == "step done");
        let outcome = if json == "1" { "executed" } else { "cached" };
        assert!(steps.filter(|line| line["fields"]["outcome"] == outcome).count() >= 3, "{log}");
        assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{log}");
    }
}

#[test]
fn a_directive_chooses_and_covers_all_crates() {
    let place = place();
    let out = build(&place, &[("RUST_LOG", "memobuild=debug")], &["-q"]);
    let log = text(&out.stderr);
    assert!(log.contains("cache miss") && log.contains("step{") && log.contains("build complete"), "{log}");
    // Colours are for terminals.
    assert!(!log.contains('\u{1b}'), "{log}");
    let out = build(&place, &[("RUST_LOG", "memobuild::cache=debug")], &["-q"]);
    let log = text(&out.stderr);
    assert!(log.lines().count() >= 3 && log.lines().all(|line| line.contains("cache hit")), "{log}");
    let out = build(&place, &[("RUST_LOG", "memobuild=warn")], &["-q"]);
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
}

/// Also those of the crates below and of all threads.
#[test]
fn every_line_of_a_build_names_its_trace() {
    let nobody = ("MEMOBUILD_REMOTE_URL", "http://127.0.0.1:9");
    let debug = [("RUST_LOG", "memobuild=debug"), ("MEMOBUILD_JSON_LOGS", "1"), nobody];
    let lines = objects(text(&build(&place(), &debug, &["-q"]).stderr).lines());
    let of_remote = lines.iter().filter(|line| line["target"].as_str().unwrap().starts_with("memobuild_cache::remote"));
    assert!(of_remote.count() > 0, "{lines:?}");
    let trace = &lines[0]["fields"]["trace_id"];
    assert_eq!(trace.as_str().unwrap().len(), 32);
    let without: Vec<_> = lines.iter().filter(|line| line["spans"][0]["trace_id"] != *trace).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn a_failed_build_says_so_in_the_log() {
    let place = place();
    place.write("Dockerfile", "FROM scratch\nCOPY missing /\n");
    let out = build(&place, &[("MEMOBUILD_JSON_LOGS", "1")], &["-q"]);
    assert_eq!(out.status.code(), Some(1));
    let lines = objects(text(&out.stderr).lines());
    let error = lines.iter().find(|line| line["fields"]["message"] == "build failed").unwrap();
    assert_eq!(error["level"], "ERROR");
    assert!(error["fields"]["error"].as_str().unwrap().contains("missing"), "{error}");
    assert!(messages(&lines).contains(&"step failed"), "{lines:?}");
    let last = lines.iter().rev().find(|line| line["fields"]["message"] == "build complete").unwrap();
    assert_eq!(last["fields"]["ok"], false);
}

#[test]
fn a_program_may_set_it_up_twice() {
    init_logging(true).unwrap();
    init_logging(false).unwrap();
    assert!(tracing::enabled!(target: "memobuild::build", tracing::Level::INFO));
    assert!(!tracing::enabled!(target: "ureq_proto::util", tracing::Level::TRACE));
}
