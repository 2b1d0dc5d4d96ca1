//! All builds for other programs.

use std::time::Duration;

use memobuild_engine::history::{BuildRecord, Outcome};
use memobuild_observe::{BuildMetrics, FailureKind};
use serde_json::Value;

use super::{Format, show};
use crate::cli::{Failure, record::Sums};

pub(super) fn all(builds: &[BuildRecord], format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Json => {
            let all: Vec<Value> = builds.iter().map(show::whole).collect();
            let text = serde_json::to_string(&all).map_err(|e| Failure::caused(FailureKind::Cache, &e))?;
            format!("{text}\n")
        }
        Format::Csv => csv(builds),
        Format::Prometheus => metrics(builds).to_prometheus(),
    })
}

/// Their sums. How many bytes were moved is in no record.
fn metrics(builds: &[BuildRecord]) -> BuildMetrics {
    let mut out = BuildMetrics::default();
    for build in builds {
        out.ended(build.ok, Duration::from_millis(build.duration_ms));
        for step in &build.steps {
            match step.outcome {
                Outcome::Hit => out.cache_hits += 1,
                Outcome::Ran | Outcome::Failed => out.cache_misses += 1,
                Outcome::Source | Outcome::NotReached | Outcome::Unknown => {}
            }
            out.time_saved_ms = out.time_saved_ms.saturating_add(step.saved_ms);
        }
    }
    out
}

const COLUMNS: [&str; 12] = [
    "build",
    "time",
    "context",
    "dockerfile",
    "targets",
    "ok",
    "error",
    "steps_reused",
    "steps_run",
    "steps",
    "duration_ms",
    "saved_ms",
];

/// By RFC 4180, with lines that end as this system's do.
fn csv(builds: &[BuildRecord]) -> String {
    let row = |build: &BuildRecord| {
        let Sums { steps, reused, run, saved_ms, .. } = Sums::of(build);
        [
            build.id.clone(),
            memobuild_image::time::rfc3339(build.time, 0),
            build.context.clone(),
            build.dockerfile.clone().unwrap_or_default(),
            build.targets.join(" "),
            build.ok.to_string(),
            build.error.clone().unwrap_or_default(),
            reused.to_string(),
            run.to_string(),
            steps.to_string(),
            build.duration_ms.to_string(),
            saved_ms.to_string(),
        ]
    };
    let rows = [COLUMNS.map(str::to_owned)].into_iter().chain(builds.iter().map(row));
    rows.map(|row| row.map(|field| quoted(&field)).join(",") + "\n").collect()
}

fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::history::testing::*;

    #[test]
    fn a_line_for_each_build() {
        insta::assert_snapshot!(all(&[second(), failed()], Format::Csv).unwrap(), @r#"
        build,time,context,dockerfile,targets,ok,error,steps_reused,steps_run,steps,duration_ms,saved_ms
        9f8e7d6c,1969-12-31T23:59:59Z,app,,app,true,,1,2,3,120,8100
        1a99ffff,1969-12-31T23:59:59Z,app,Dockerfile.dev,app,false,"process ""/bin/sh -c make, \""x\"""" failed
        more",0,1,1,2345,0
        "#);
        assert_eq!(all(&[], Format::Csv).unwrap().lines().count(), 1);
    }

    #[test]
    fn sums_over_all() {
        let text = all(&[second(), failed(), first()], Format::Prometheus).unwrap();
        for line in [
            "memobuild_builds_total{result=\"success\"} 2",
            "memobuild_builds_total{result=\"failure\"} 1",
            "memobuild_build_duration_seconds_sum 4.81",
            "memobuild_build_duration_seconds_count 3",
            "memobuild_cache_hits_total 1",
            "memobuild_cache_misses_total 5",
            "memobuild_saved_seconds_total 8.1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("moved_bytes"), "{text}");
    }

    #[test]
    fn whole_builds() {
        let text = all(&[second(), first()], Format::Json).unwrap();
        let builds: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!((builds.len(), builds[0]["steps"].as_array().unwrap().len()), (2, 4));
        assert_eq!(all(&[], Format::Json).unwrap(), "[]\n");
    }
}
