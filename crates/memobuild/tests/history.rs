//! `memobuild history`, on builds that need no sandbox.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod common;

use common::{Place, text};
use serde_json::Value;

const DOCKERFILE: &str = "\
FROM scratch AS base
COPY a.txt /data/a
FROM base
COPY b.txt /data/b
WORKDIR /data
";

/// Three builds: from nothing, with a file changed, and one that fails.
fn built() -> Place {
    let place = Place::with(&[("Dockerfile", DOCKERFILE), ("a.txt", "a\n"), ("b.txt", "b\n")]);
    place.stdout(&["build", "-q", "."]);
    place.write("b.txt", "other\n");
    place.stdout(&["build", "-q", "-t", "app", "."]);
    place.write("Dockerfile.bad", "FROM scratch\nCOPY missing /\n");
    assert_eq!(place.memobuild(&["build", "-q", "-f", "Dockerfile.bad", "."]).status.code(), Some(1));
    place
}

fn json(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&place.stdout(args)).unwrap()
}

/// Without names, times and blanks, which differ from run to run.
fn scrub(shown: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':']);
        let end = &word[bare.len()..];
        let number = bare.strip_suffix("ms").or_else(|| bare.strip_suffix('s'));
        if bare.len() == 8 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            format!("BUILD{end}")
        } else if number.is_some_and(|n| n.parse::<f64>().is_ok()) {
            format!("TIME{end}")
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| {
        let mut words: Vec<String> = line.split_whitespace().map(word).collect();
        while let Some(at) = words.iter().position(|w| w.trim_end_matches([',', ':']) == "ago") {
            let end = words[at].trim_start_matches("ago").to_owned();
            words.splice(at - 2..=at, ["just".to_owned(), format!("now{end}")]);
        }
        words.join(" ")
    };
    shown.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn builds_are_listed_newest_first() {
    let place = built();
    insta::assert_snapshot!("history_list", scrub(&place.stdout(&["history"])));
    assert_eq!(scrub(&place.stdout(&["history", "list"])), scrub(&place.stdout(&["history"])));
    assert_eq!(place.stdout(&["history", "-n", "1"]).lines().count(), 2);
    let all = json(&place, &["history", "--json"]);
    let short: Vec<(bool, u64, u64)> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["ok"] == true, b["stepsReused"].as_u64().unwrap(), b["stepsRun"].as_u64().unwrap()))
        .collect();
    // The WORKDIR depends on nothing that changed.
    assert_eq!(short, [(false, 0, 1), (true, 2, 1), (true, 0, 3)]);
    assert!(all[0]["error"].as_str().unwrap().contains("missing"), "{all}");
    assert_eq!(json(&place, &["history", "list", "--last", "2", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn one_build_is_shown_with_its_steps() {
    let place = built();
    let all = json(&place, &["history", "--json"]);
    let second = all[1]["build"].as_str().unwrap();
    insta::assert_snapshot!("history_show", scrub(&place.stdout(&["history", "show", second])));
    insta::assert_snapshot!("history_show_failed", scrub(&place.stdout(&["history", "show"])));
    let shown = json(&place, &["history", "show", &second[..6], "--json"]);
    assert_eq!(shown["build"], second);
    let hits = shown["steps"].as_array().unwrap().iter().filter(|step| step["outcome"] == "hit");
    assert_eq!(hits.count(), 2, "{shown:#}");
    assert_eq!(json(&place, &["history", "show", "latest", "--json"])["build"], all[0]["build"]);
}

#[test]
fn two_builds_are_compared() {
    let place = built();
    let all = json(&place, &["history", "--json"]);
    let [first, second] = [2, 1].map(|at| all[at]["build"].as_str().unwrap());
    let shown = place.stdout(&["history", "compare", first, second]);
    let line = |part: &str| shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {shown}"));
    assert!(line("COPY a.txt").contains("ran ") && line("COPY a.txt").contains("hit "), "{shown}");
    let compared = json(&place, &["history", "compare", first, second, "--json"]);
    let step = |part: &str| {
        let steps = compared["steps"].as_array().unwrap();
        steps.iter().find(|s| s["b"]["label"].as_str().unwrap_or_default().contains(part)).cloned()
    };
    let copied = step("COPY a.txt").unwrap();
    assert_eq!((&copied["a"]["outcome"], &copied["b"]["outcome"]), (&"ran".into(), &"hit".into()));
    // It ran in both, for another reason.
    let differs = step("COPY b.txt").unwrap()["differs"].to_string();
    assert!(differs.contains("why") && !differs.contains("outcome"), "{compared:#}");
    let with_latest = json(&place, &["history", "compare", first, "--json"]);
    assert_eq!(with_latest["b"]["build"], all[0]["build"]);
}

#[test]
fn all_is_exported_for_other_programs() {
    let place = built();
    let csv = place.stdout(&["history", "export", "--format", "csv"]);
    assert!(csv.starts_with("build,time,context,") && csv.matches(",true,").count() == 2, "{csv}");
    let builds = json(&place, &["history", "export", "--format", "json"]);
    assert_eq!(builds.as_array().unwrap().len(), 3);
    assert!(builds[1]["steps"].as_array().unwrap().len() >= 4, "{builds:#}");
    let metrics = place.stdout(&["history", "--export", "prometheus"]);
    for line in [
        "memobuild_builds_total{result=\"success\"} 2",
        "memobuild_builds_total{result=\"failure\"} 1",
        "memobuild_cache_hits_total 2",
        "memobuild_cache_misses_total 5",
        "memobuild_build_duration_seconds_count 3",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    assert_eq!(place.stdout(&["history", "export", "--format", "prometheus"]), metrics);
    // Each family has its head, once.
    for family in ["memobuild_builds_total", "memobuild_build_duration_seconds", "memobuild_cache_hits_total"] {
        assert_eq!(metrics.matches(&format!("# TYPE {family} ")).count(), 1, "{metrics}");
        assert_eq!(metrics.matches(&format!("# HELP {family} ")).count(), 1, "{metrics}");
    }
}

#[test]
fn what_is_not_there_is_said_and_makes_no_cache() {
    let place = Place::new();
    assert_eq!(json(&place, &["history", "--json"]), Value::Array(Vec::new()));
    assert_eq!(place.stdout(&["history"]).lines().count(), 1);
    assert!(place.stdout(&["history", "--export", "prometheus"]).contains("memobuild_cache_hits_total 0"));
    let none = place.memobuild(&["history", "show"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("no record of a build yet"), "{}", text(&none.stderr));
    assert!(!place.path("../cache").exists(), "looking makes no cache");
    let place = built();
    let unknown = place.memobuild(&["history", "show", "zz"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no build \"zz\""), "{}", text(&unknown.stderr));
}
