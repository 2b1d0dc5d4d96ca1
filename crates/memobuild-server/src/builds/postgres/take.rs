//! Events into the database: one transaction for a batch, in which the build's row is locked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;

use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use crate::{
    builds::{
        BUILD_LOG, Batch, Build, BuildId, Change, Counts, Output,
        fold::{Fold, What},
        rows::{self, BUILD, BUILD_COLUMNS, STEP, Tail},
    },
    storage::{Result, StorageError, signed},
};

/// Takes a batch; gives what it changed, and whether the build is new.
pub(super) async fn take(client: &mut Client, batch: &Batch, who: &str, now: i64) -> Result<(Change, bool)> {
    let tx = client.transaction().await?;
    let (before, revision, is_new) = lock(&tx, &batch.build, who, now).await?;
    let state = before.state;
    let fold = fold(&tx, before, batch, now).await?;
    let logs = write(&tx, &fold, revision + 1, now).await?;
    tx.commit().await?;
    Ok((fold.into_change(state, logs), is_new))
}

/// The build as it is, its revision, and whether it is new. Nobody else changes it until the transaction ends.
async fn lock(tx: &Transaction<'_>, id: &BuildId, who: &str, now: i64) -> Result<(Build, i64, bool)> {
    let id = id.as_str();
    loop {
        let sql = format!("SELECT {BUILD}, revision FROM builds WHERE id = $1 FOR UPDATE");
        if let Some(row) = tx.query_typed_opt(&sql, &[(&id, Type::TEXT)]).await? {
            return Ok((rows::build(&row)?, row.try_get(BUILD_COLUMNS)?, false));
        }
        let sql = format!(
            "INSERT INTO builds (id, name, client, state, started, updated, total, ended, running, cached, executed,
             failed, saved_ms, warnings, next) VALUES ($1, '', $2, 'running', $3, $3, 0, 0, 0, 0, 0, 0, 0, '[]', 0)
             ON CONFLICT (id) DO NOTHING RETURNING {BUILD}"
        );
        let params = [(&id as &(dyn ToSql + Sync), Type::TEXT), (&who, Type::TEXT), (&now, Type::INT8)];
        if let Some(row) = tx.query_typed_opt(&sql, &params).await? {
            return Ok((rows::build(&row)?, 0, true));
        }
        // Another server made it meanwhile.
    }
}

/// The build after the batch. How long steps took is asked for once, when it is known of which.
async fn fold(tx: &Transaction<'_>, before: Build, batch: &Batch, now: i64) -> Result<Fold> {
    let steps = super::steps(tx, before.number).await?;
    let mut wanted = BTreeSet::new();
    let mut fold = Fold::new(before.clone(), steps.clone());
    let Ok(()) = fold.apply(batch, now, |what| {
        wanted.insert(*what);
        Ok::<_, Infallible>(None)
    });
    if wanted.is_empty() {
        return Ok(fold);
    }
    let wanted: Vec<&[u8]> = wanted.iter().map(What::as_slice).collect();
    let sql = "SELECT what, ms FROM step_durations WHERE what = ANY($1)";
    let mut known = HashMap::new();
    for row in tx.query_typed(sql, &[(&wanted, Type::BYTEA_ARRAY)]).await? {
        known.insert(row.try_get::<_, Vec<u8>>(0)?, row.try_get::<_, f64>(1)?);
    }
    fold = Fold::new(before, steps);
    let Ok(()) = fold.apply(batch, now, |what| Ok::<_, Infallible>(known.get(what.as_slice()).copied()));
    Ok(fold)
}

/// Writes what changed; gives the ends of the outputs that grew.
async fn write(tx: &Transaction<'_>, fold: &Fold, revision: i64, now: i64) -> Result<Vec<Output>> {
    let number = fold.build.number;
    if fold.replaced {
        for table in ["build_steps", "build_outputs", "build_layers"] {
            tx.execute_typed(&format!("DELETE FROM {table} WHERE build = $1"), &[(&number, Type::INT8)]).await?;
        }
    }
    if !fold.changed.is_empty() {
        write_steps(tx, fold, revision).await?;
    }
    if !fold.layers.is_empty() {
        // A statement must not meet a row twice; the last one counts.
        let layers: BTreeMap<&str, i64> = fold.layers.iter().map(|l| (l.digest.as_str(), signed(l.size))).collect();
        let (digests, sizes): (Vec<&str>, Vec<i64>) = layers.into_iter().unzip();
        let sql = "INSERT INTO build_layers (build, digest, size) SELECT $1, * FROM unnest($2::text[], $3::bigint[]) l
                   ON CONFLICT (build, digest) DO UPDATE SET size = excluded.size";
        tx.execute_typed(sql, &[(&number, Type::INT8), (&digests, Type::TEXT_ARRAY), (&sizes, Type::INT8_ARRAY)])
            .await?;
    }
    if !fold.learnt.is_empty() {
        // All in one order: other builds may learn the same.
        let learnt: BTreeMap<&[u8], f64> = fold.learnt.iter().map(|(what, ms)| (what.as_slice(), *ms)).collect();
        let (whats, times): (Vec<&[u8]>, Vec<f64>) = learnt.into_iter().unzip();
        let sql = "INSERT INTO step_durations (what, ms, learnt)
                   SELECT d.*, $1 FROM unnest($2::bytea[], $3::double precision[]) d
                   ON CONFLICT (what) DO UPDATE SET ms = excluded.ms, learnt = excluded.learnt";
        tx.execute_typed(sql, &[(&now, Type::INT8), (&whats, Type::BYTEA_ARRAY), (&times, Type::FLOAT8_ARRAY)]).await?;
    }
    let logs = if fold.output.is_empty() { Vec::new() } else { append(tx, fold, revision).await? };
    write_build(tx, fold, revision).await?;
    Ok(logs)
}

async fn write_steps(tx: &Transaction<'_>, fold: &Fold, revision: i64) -> Result<()> {
    let steps: Vec<_> = fold.changed.iter().filter_map(|id| fold.steps.get(id)).collect();
    // One parameter for all of them. Numbers and texts are the same after it.
    let json = serde_json::to_string(&steps)
        .map_err(|error| StorageError::Io { what: "write steps as JSON".into(), source: error.into() })?;
    // Label, stage, line and inputs stay as they were planned.
    let sql = format!(
        "INSERT INTO build_steps (build, at, {STEP})
         SELECT $1, $2, id, label, stage, line, inputs, state, reason, again, began, duration_ms, saved_ms, message
         FROM json_to_recordset($3::json) AS s (id bigint, label text, stage text, line bigint, inputs text, state text,
             reason text, again boolean, began bigint, duration_ms double precision, saved_ms double precision,
             message text)
         ON CONFLICT (build, step) DO UPDATE SET (at, state, reason, again, began, duration_ms, saved_ms, message) =
             (excluded.at, excluded.state, excluded.reason, excluded.again, excluded.began, excluded.duration_ms,
              excluded.saved_ms, excluded.message)"
    );
    let params =
        [(&fold.build.number as &(dyn ToSql + Sync), Type::INT8), (&revision, Type::INT8), (&json, Type::TEXT)];
    tx.execute_typed(&sql, &params).await?;
    Ok(())
}

/// Adds output to the ends that are kept, and keeps them within bounds.
async fn append(tx: &Transaction<'_>, fold: &Fold, revision: i64) -> Result<Vec<Output>> {
    let number = fold.build.number;
    let written = rows::written(fold);
    let steps: Vec<i64> = written.keys().map(|step| i64::from(*step)).collect();
    let sql = "SELECT step, tail, cut FROM build_outputs WHERE build = $1 AND step = ANY($2)";
    let mut old = HashMap::new();
    for row in tx.query_typed(sql, &[(&number, Type::INT8), (&steps, Type::INT8_ARRAY)]).await? {
        old.insert(row.try_get::<_, i64>(0)?, Tail { bytes: row.try_get(1)?, cut: row.try_get(2)? });
    }
    let (mut tails, mut cuts, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for (step, more) in written {
        let mut tail = old.remove(&i64::from(step)).unwrap_or_default();
        tail.grow(&more);
        outputs.push(tail.told(step));
        cuts.push(tail.cut);
        tails.push(tail.bytes);
    }
    let sql = "INSERT INTO build_outputs (build, at, step, tail, cut)
               SELECT $1, $2, * FROM unnest($3::bigint[], $4::bytea[], $5::boolean[]) o
               ON CONFLICT (build, step) DO UPDATE SET (at, tail, cut) = (excluded.at, excluded.tail, excluded.cut)";
    let params = [
        (&number as &(dyn ToSql + Sync), Type::INT8),
        (&revision, Type::INT8),
        (&steps, Type::INT8_ARRAY),
        (&tails, Type::BYTEA_ARRAY),
        (&cuts, Type::BOOL_ARRAY),
    ];
    tx.execute_typed(sql, &params).await?;
    let sql = "UPDATE build_outputs SET tail = '', cut = true WHERE build = $1 AND step IN (
                   SELECT step FROM (
                       SELECT step, sum(length(tail)) OVER (ORDER BY at DESC, step DESC) AS together
                       FROM build_outputs WHERE build = $1
                   ) o WHERE together > $2
               )";
    tx.execute_typed(sql, &[(&number, Type::INT8), (&signed(BUILD_LOG), Type::INT8)]).await?;
    Ok(outputs)
}

async fn write_build(tx: &Transaction<'_>, fold: &Fold, revision: i64) -> Result<()> {
    let Build { number, name, state, updated, duration_ms, steps, saved_ms, error, sandbox, warnings, next, .. } =
        &fold.build;
    let (state, warnings, next) = (state.name(), rows::list(warnings), signed(*next));
    let Counts { total, ended, running, cached, executed, failed } = *steps;
    let counts = [total, ended, running, cached, executed, failed].map(signed);
    let [total, ended, running, cached, executed, failed] = &counts;
    let weight = rows::weight(fold);
    let sql = "UPDATE builds SET name = $2, state = $3, updated = $4, duration_ms = $5, total = $6, ended = $7,
               running = $8, cached = $9, executed = $10, failed = $11, saved_ms = $12, error = $13, sandbox = $14,
               warnings = $15, next = $16, revision = $17, replaced = CASE WHEN $18 THEN $17 ELSE replaced END,
               bytes = $19 + (SELECT coalesce(sum(length(tail)), 0) FROM build_outputs WHERE build = $1)
               WHERE number = $1";
    let params = [
        (number as &(dyn ToSql + Sync), Type::INT8),
        (name, Type::TEXT),
        (&state, Type::TEXT),
        (updated, Type::INT8),
        (duration_ms, Type::FLOAT8),
        (total, Type::INT8),
        (ended, Type::INT8),
        (running, Type::INT8),
        (cached, Type::INT8),
        (executed, Type::INT8),
        (failed, Type::INT8),
        (saved_ms, Type::FLOAT8),
        (error, Type::TEXT),
        (sandbox, Type::TEXT),
        (&warnings, Type::TEXT),
        (&next, Type::INT8),
        (&revision, Type::INT8),
        (&fold.replaced, Type::BOOL),
        (&weight, Type::INT8),
    ];
    tx.execute_typed(sql, &params).await?;
    Ok(())
}
