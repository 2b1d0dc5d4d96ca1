//! What changed since the last look. Whoever took it, and in whatever order transactions ended: a look goes back further
//! than any of them takes, and knows by the revision of each build what it saw of it.

use std::collections::HashMap;

use tokio_postgres::{Client, types::Type};

use super::view;
use crate::{
    builds::{
        Build, Change, Output, Step,
        rows::{self, BUILD, BUILD_COLUMNS, STEP, STEP_COLUMNS, Tail},
    },
    storage::Result,
};

/// How far a look goes back, in milliseconds. A transaction that took events ends sooner after the time that it wrote down.
const BACK: i64 = 30_000;

/// Of more builds that changed at once nobody is told the steps.
const MOST: usize = 100;

/// What a look saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Builds that changed lately, by number: their revisions.
    revisions: HashMap<i64, i64>,
    /// When it was; `None` before the first one.
    pub(super) at: Option<i64>,
}

/// Looks. Of a build that was not seen lately it is said that all of it may have changed.
pub(super) async fn news(client: &mut Client, seen: &Seen) -> Result<(Vec<Change>, Seen)> {
    let at: i64 = client.query_typed_one("SELECT milliseconds()", &[]).await?.try_get(0)?;
    let since = seen.at.map_or(at, |before| before.min(at)) - BACK;
    let sql = "SELECT number, revision FROM builds WHERE updated >= $1";
    let mut now = Seen { revisions: HashMap::new(), at: Some(at) };
    let (mut numbers, mut known) = (Vec::new(), Vec::new());
    for row in client.query_typed(sql, &[(&since, Type::INT8)]).await? {
        let (number, revision): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let before = seen.revisions.get(&number);
        if before.is_none_or(|before| *before < revision) {
            numbers.push(number);
            known.push(before.copied());
        }
        now.revisions.insert(number, revision);
    }
    if numbers.is_empty() {
        return Ok((Vec::new(), now));
    }
    if numbers.len() > MOST {
        known.fill(None);
    }
    Ok((changes(client, &numbers, &known, &mut now.revisions).await?, now))
}

/// What changed of these builds after the revisions that are known. Writes down the revisions that this is up to.
async fn changes(
    client: &mut Client,
    numbers: &[i64],
    known: &[Option<i64>],
    revisions: &mut HashMap<i64, i64>,
) -> Result<Vec<Change>> {
    let tx = view(client).await?;
    let sql = format!("SELECT {BUILD}, revision, replaced FROM builds WHERE number = ANY($1) ORDER BY updated, number");
    let builds = tx.query_typed(&sql, &[(&numbers, Type::INT8_ARRAY)]).await?;
    // Nothing has a later number than this.
    let since: Vec<i64> = known.iter().map(|known| known.unwrap_or(i64::MAX)).collect();
    let params = &[(&numbers as _, Type::INT8_ARRAY), (&since as _, Type::INT8_ARRAY)];
    let newer = "JOIN unnest($1::bigint[], $2::bigint[]) AS u (build, since) USING (build) WHERE at > since";
    let sql = format!("SELECT {STEP}, build FROM build_steps {newer} ORDER BY build, step");
    let mut steps: HashMap<i64, Vec<Step>> = HashMap::new();
    for row in tx.query_typed(&sql, params).await? {
        steps.entry(row.try_get(STEP_COLUMNS)?).or_default().push(rows::step(&row)?);
    }
    let sql = format!("SELECT step, tail, cut, build FROM build_outputs {newer} ORDER BY build, at, step");
    let mut logs: HashMap<i64, Vec<Output>> = HashMap::new();
    for row in tx.query_typed(&sql, params).await? {
        let tail = Tail { bytes: row.try_get(1)?, cut: row.try_get(2)? };
        logs.entry(row.try_get(3)?).or_default().push(tail.told(rows::number(row.try_get(0)?)?));
    }
    tx.commit().await?;
    let known: HashMap<i64, Option<i64>> = numbers.iter().copied().zip(known.iter().copied()).collect();
    let mut changes = Vec::with_capacity(builds.len());
    for row in &builds {
        let build: Build = rows::build(row)?;
        let (revision, replaced): (i64, i64) = (row.try_get(BUILD_COLUMNS)?, row.try_get(BUILD_COLUMNS + 1)?);
        let number = build.number;
        revisions.insert(number, revision);
        changes.push(Change {
            build,
            steps: steps.remove(&number).unwrap_or_default(),
            replaced: known.get(&number).copied().flatten().is_none_or(|known| replaced > known),
            logs: logs.remove(&number).unwrap_or_default(),
            ended: false,
        });
    }
    Ok(changes)
}
