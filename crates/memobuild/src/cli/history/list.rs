//! Builds, a line for each.

use memobuild_engine::history::BuildRecord;
use serde_json::Value;

use super::ListArgs;
use crate::cli::{
    record::{self, Sums},
    text,
};

/// Columns that a context takes at most.
const LONGEST: usize = 40;

pub(super) fn builds(all: &[BuildRecord], args: &ListArgs) -> String {
    let shown = all.get(..args.last.unwrap_or(all.len()).min(all.len())).unwrap_or_default();
    if args.json {
        let all: Vec<Value> = shown.iter().map(json).collect();
        return format!("{:#}\n", Value::Array(all));
    }
    let mut rows = vec![["BUILD", "WHEN", "CONTEXT", "RESULT", "REUSED", "RAN", "TOOK", "SAVED"].map(str::to_owned)];
    rows.extend(shown.iter().map(row));
    text::table(&rows)
}

fn row(build: &BuildRecord) -> [String; 8] {
    let sums = Sums::of(build);
    [
        build.id.clone(),
        record::since(build.time),
        text::cut(&record::one_line(&record::context(build)), LONGEST),
        if build.ok { "ok".into() } else { "failed".into() },
        sums.reused.to_string(),
        sums.run.to_string(),
        record::time(build.duration_ms),
        // What was not reused saved nothing that could be told.
        if sums.reused > 0 { record::time(sums.saved_ms) } else { "-".into() },
    ]
}

/// A build without its steps.
fn json(build: &BuildRecord) -> Value {
    let sums = Sums::of(build);
    let mut out = record::head(build);
    out.insert("stepsReused".into(), sums.reused.into());
    out.insert("stepsRun".into(), sums.run.into());
    out.insert("savedMs".into(), sums.saved_ms.into());
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::history::testing::*;

    #[test]
    fn a_line_for_each() {
        let all = [second(), failed(), first()];
        insta::assert_snapshot!(builds(&all, &ListArgs { last: None, json: false }), @r"
        BUILD     WHEN          CONTEXT               RESULT  REUSED  RAN  TOOK   SAVED
        9f8e7d6c  at some time  app                   ok      1       2    120ms  8.1s
        1a99ffff  at some time  app (Dockerfile.dev)  failed  0       1    2.3s   -
        1a2b3c4d  at some time  app                   ok      0       2    2.3s   -
        ");
        assert_eq!(builds(&all, &ListArgs { last: Some(1), json: false }).lines().count(), 2);
        assert_eq!(builds(&[], &ListArgs { last: Some(5), json: true }), "[]\n");
    }

    #[test]
    fn the_same_as_json() {
        let json: Value = serde_json::from_str(&builds(&[second()], &ListArgs { last: None, json: true })).unwrap();
        assert_eq!((&json[0]["build"], &json[0]["ok"]), (&"9f8e7d6c".into(), &true.into()));
        assert_eq!((&json[0]["stepsReused"], &json[0]["stepsRun"]), (&1.into(), &2.into()));
        assert_eq!((&json[0]["savedMs"], &json[0]["steps"]), (&8100.into(), &Value::Null));
    }
}
