//! Builds in SQLite: `builds.sqlite` in the data directory. All SQL about builds is here.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params, types::Type};

use super::{
    Analytics, BUILD_LOG, Batch, Build, BuildId, BuildState, Builds, Change, Counts, Day, Detail, LOST_AFTER, Layer,
    LayerUse, Limits, Output, STEP_LOG, Step, StepState, Totals,
    fold::{Fold, What},
    model::Steps,
    text,
};
use crate::storage::Result;

/// Raised when a table changes; what another version wrote is left where it is and not read.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE builds (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, client TEXT NOT NULL,
    state TEXT NOT NULL, started INTEGER NOT NULL, updated INTEGER NOT NULL, duration_ms REAL,
    total INTEGER NOT NULL, ended INTEGER NOT NULL, running INTEGER NOT NULL, cached INTEGER NOT NULL,
    executed INTEGER NOT NULL, failed INTEGER NOT NULL, saved_ms REAL NOT NULL, error TEXT, sandbox TEXT,
    warnings TEXT NOT NULL, next INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX builds_by_start ON builds (started);
CREATE INDEX builds_by_state ON builds (state, updated);
-- inputs: numbers of steps, as JSON.
CREATE TABLE steps (
    build INTEGER NOT NULL REFERENCES builds (number) ON DELETE CASCADE, step INTEGER NOT NULL, label TEXT NOT NULL,
    stage TEXT NOT NULL, line INTEGER, inputs TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, again INTEGER NOT NULL,
    began INTEGER, duration_ms REAL, saved_ms REAL NOT NULL, message TEXT,
    PRIMARY KEY (build, step)
) WITHOUT ROWID;
-- Ends of outputs. cut: whether more came before. at: grows with each change.
CREATE TABLE logs (
    build INTEGER NOT NULL REFERENCES builds (number) ON DELETE CASCADE, step INTEGER NOT NULL, tail BLOB NOT NULL,
    cut INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (build, step)
);
CREATE TABLE layers (
    build INTEGER NOT NULL REFERENCES builds (number) ON DELETE CASCADE, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (build, digest)
) WITHOUT ROWID;
CREATE INDEX layers_by_size ON layers (size);
-- How long a step took when it was last executed.
CREATE TABLE durations (what BLOB PRIMARY KEY, ms REAL NOT NULL, learnt INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX durations_by_age ON durations (learnt);
";

/// The columns of a build, in the order in which [`build`] reads them.
const BUILD: &str = "number, id, name, client, state, started, updated, duration_ms, total, ended, running, cached,
    executed, failed, saved_ms, error, sandbox, warnings, next";

/// Builds that begin between two looks at what is too old or too much.
const PRUNE_EVERY: u32 = 50;

/// What is sent to those who watch of an output that grew, in bytes.
const LIVE_TAIL: usize = 16 << 10;

/// Builds in a database of this machine.
pub struct SqliteBuilds {
    connection: Mutex<Connection>,
    limits: Limits,
    begun: AtomicU32,
}

impl SqliteBuilds {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// If SQLite can't, or the file is of a later version of the program.
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power failure may take the last events.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?,
            VERSION => {}
            found => {
                return Err(crate::storage::StorageError::Format {
                    path: path.display().to_string(),
                    found: found.to_string(),
                    expected: "1",
                });
            }
        }
        Ok(Self { connection: Mutex::new(connection), limits, begun: AtomicU32::new(0) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Builds for SqliteBuilds {
    fn take(&self, batch: &Batch, client: &str, now: i64) -> Result<Change> {
        let mut connection = self.connection();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = find(&tx, &batch.build)?;
        let is_new = found.is_none();
        let before = match found {
            Some(before) => before,
            None => insert(&tx, &batch.build, client, now)?,
        };
        let was_running = before.state == BuildState::Running;
        let steps = steps(&tx, before.number)?;
        let mut fold = Fold::new(before, steps);
        fold.apply(batch, now, |what| known(&tx, what))?;
        let logs = write(&tx, &fold, now)?;
        tx.commit()?;
        drop(connection);
        if is_new && self.begun.fetch_add(1, Ordering::Relaxed) % PRUNE_EVERY == PRUNE_EVERY - 1 {
            self.prune(now)?;
        }
        let Fold { build, mut steps, changed, replaced, .. } = fold;
        let ended = was_running && build.state != BuildState::Running;
        let steps = changed.iter().filter_map(|id| steps.remove(id)).collect();
        Ok(Change { build, steps, replaced, logs, ended })
    }

    fn list(&self, before: Option<i64>, most: usize, now: i64) -> Result<Vec<Build>> {
        let sql = format!("SELECT {BUILD} FROM builds WHERE number < ?1 ORDER BY number DESC LIMIT ?2");
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![before.unwrap_or(i64::MAX), most], build)?;
        let mut builds: Vec<Build> = rows.collect::<rusqlite::Result<_>>()?;
        builds.iter_mut().for_each(|build| lose(build, now));
        Ok(builds)
    }

    fn get(&self, id: &BuildId, now: i64) -> Result<Option<Detail>> {
        let mut connection = self.connection();
        // One view of all tables.
        let tx = connection.transaction()?;
        let Some(mut build) = find(&tx, id)? else { return Ok(None) };
        lose(&mut build, now);
        let steps = steps(&tx, build.number)?;
        let logs = logs(&tx, build.number)?;
        let mut statement = tx.prepare_cached("SELECT digest, size FROM layers WHERE build = ?1 ORDER BY size DESC")?;
        let layers = statement
            .query_map([build.number], |row| Ok(Layer { digest: row.get(0)?, size: unsigned(row.get(1)?) }))?
            .collect::<rusqlite::Result<_>>()?;
        let (sandbox, warnings) = (build.sandbox.take(), std::mem::take(&mut build.warnings));
        Ok(Some(Detail { build, sandbox, warnings, plan: steps.into_values().collect(), logs, layers }))
    }

    fn newest(&self) -> Result<Option<BuildId>> {
        let connection = self.connection();
        let sql = "SELECT id FROM builds ORDER BY number DESC LIMIT 1";
        Ok(connection.prepare_cached(sql)?.query_row([], |row| build_id(row, 0)).optional()?)
    }

    fn analytics(&self, since: i64, now: i64) -> Result<Analytics> {
        let connection = self.connection();
        let sql = "SELECT date(started / 1000, 'unixepoch'), count(*), sum(state = 'succeeded'), sum(state = 'failed'),
                   sum(cached), sum(executed + failed), sum(saved_ms), sum(coalesce(duration_ms, 0))
                   FROM builds WHERE started >= ?1 GROUP BY 1 ORDER BY 1";
        let mut statement = connection.prepare_cached(sql)?;
        let day = |row: &Row<'_>| {
            let totals = Totals {
                builds: unsigned(row.get(1)?),
                succeeded: unsigned(row.get(2)?),
                failed: unsigned(row.get(3)?),
                cached: unsigned(row.get(4)?),
                executed: unsigned(row.get(5)?),
                saved_ms: row.get(6)?,
                duration_ms: row.get(7)?,
            };
            Ok(Day { day: row.get(0)?, totals })
        };
        let days: Vec<Day> = statement.query_map([since], day)?.collect::<rusqlite::Result<_>>()?;
        let mut totals = Totals::default();
        for Day { totals: day, .. } in &days {
            totals.builds += day.builds;
            totals.succeeded += day.succeeded;
            totals.failed += day.failed;
            totals.cached += day.cached;
            totals.executed += day.executed;
            totals.saved_ms += day.saved_ms;
            totals.duration_ms += day.duration_ms;
        }
        let sql = "SELECT count(*) FROM builds WHERE state = 'running' AND updated >= ?1";
        let running = connection.prepare_cached(sql)?.query_row([now - LOST_AFTER], |row| row.get(0))?;
        Ok(Analytics { totals, days, running: unsigned(running) })
    }

    fn layers(&self, most: usize) -> Result<Vec<LayerUse>> {
        let connection = self.connection();
        // With max() the other columns are those of the row that has it.
        let sql = "SELECT digest, size, count(*), max(build), id, name FROM layers JOIN builds ON build = number
                   GROUP BY digest ORDER BY size DESC, digest LIMIT ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
            Ok(LayerUse {
                layer: Layer { digest: row.get(0)?, size: unsigned(row.get(1)?) },
                builds: unsigned(row.get(2)?),
                build: build_id(row, 4)?,
                name: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn prune(&self, now: i64) -> Result<u64> {
        let Limits { age, builds, bytes } = self.limits;
        let oldest = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut connection = self.connection();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut removed = tx.execute("DELETE FROM builds WHERE updated < ?1", [oldest])?;
        let sql = "DELETE FROM builds WHERE number IN (
                       SELECT number FROM (
                           SELECT number, row_number() OVER newest AS place, sum(bytes) OVER newest AS together
                           FROM builds WINDOW newest AS (ORDER BY number DESC)
                       ) WHERE place > ?1 OR (together > ?2 AND place > 1)
                   )";
        removed += tx.execute(sql, params![signed(builds), signed(bytes)])?;
        tx.execute("DELETE FROM durations WHERE learnt < ?1", [oldest])?;
        tx.commit()?;
        Ok(removed as u64)
    }
}

fn find(connection: &Connection, id: &BuildId) -> Result<Option<Build>> {
    let sql = format!("SELECT {BUILD} FROM builds WHERE id = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([id.as_str()], build).optional()?)
}

fn insert(tx: &Transaction<'_>, id: &BuildId, client: &str, now: i64) -> Result<Build> {
    let sql = format!(
        "INSERT INTO builds (id, name, client, state, started, updated, total, ended, running, cached, executed, failed,
         saved_ms, warnings, next) VALUES (?1, '', ?2, 'running', ?3, ?3, 0, 0, 0, 0, 0, 0, 0, '[]', 0) RETURNING {BUILD}"
    );
    Ok(tx.prepare_cached(&sql)?.query_row(params![id.as_str(), client, now], build)?)
}

/// A client that said nothing for too long will hardly come back; if it does, the build goes on.
fn lose(build: &mut Build, now: i64) {
    if build.state == BuildState::Running && build.updated < now - LOST_AFTER {
        build.state = BuildState::Lost;
    }
}

/// Writes what changed; gives the ends of the outputs that grew.
fn write(tx: &Transaction<'_>, fold: &Fold, now: i64) -> Result<Vec<Output>> {
    let Build { number, next, .. } = fold.build;
    if fold.replaced {
        for table in ["steps", "logs", "layers"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE build = ?1"))?.execute([number])?;
        }
    }
    let mut statement = tx.prepare_cached(
        "INSERT OR REPLACE INTO steps (build, step, label, stage, line, inputs, state, reason, again, began, duration_ms,
         saved_ms, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for step in fold.changed.iter().filter_map(|id| fold.steps.get(id)) {
        let inputs = serde_json::Value::from(step.inputs.clone()).to_string();
        let Step { id, label, stage, line, state, reason, again, began, duration_ms, saved_ms, message, .. } = step;
        statement.execute(params![
            number,
            id,
            label,
            stage,
            line,
            inputs,
            state.name(),
            reason,
            again,
            began,
            duration_ms,
            saved_ms,
            message
        ])?;
    }
    let mut statement = tx.prepare_cached("INSERT OR REPLACE INTO layers (build, digest, size) VALUES (?1, ?2, ?3)")?;
    for layer in &fold.layers {
        statement.execute(params![number, layer.digest, signed(layer.size)])?;
    }
    let mut statement = tx.prepare_cached("INSERT OR REPLACE INTO durations (what, ms, learnt) VALUES (?1, ?2, ?3)")?;
    for (what, ms) in &fold.learnt {
        statement.execute(params![what, ms, now])?;
    }
    drop(statement);
    let logs = append(tx, fold)?;
    let Build { name, state, updated, duration_ms, steps, saved_ms, error, sandbox, warnings, .. } = &fold.build;
    let warnings = serde_json::Value::from(warnings.clone()).to_string();
    let Counts { total, ended, running, cached, executed, failed } = *steps;
    // About what its rows take.
    let texts: usize =
        fold.steps.values().map(|step| 200 + step.label.len() + step.message.as_ref().map_or(0, String::len)).sum();
    let logged: i64 = tx
        .prepare_cached("SELECT coalesce(sum(length(tail)), 0) FROM logs WHERE build = ?1")?
        .query_row([number], |row| row.get(0))?;
    let bytes = 500 + signed(texts as u64) + logged;
    tx.prepare_cached(
        "UPDATE builds SET name = ?2, state = ?3, updated = ?4, duration_ms = ?5, total = ?6, ended = ?7, running = ?8,
         cached = ?9, executed = ?10, failed = ?11, saved_ms = ?12, error = ?13, sandbox = ?14, warnings = ?15, next = ?16,
         bytes = ?17 WHERE number = ?1",
    )?
    .execute(params![
        number, name, state.name(), updated, duration_ms, signed(total), signed(ended), signed(running), signed(cached),
        signed(executed), signed(failed), saved_ms, error, sandbox, warnings, signed(next), bytes
    ])?;
    Ok(logs)
}

/// Adds output to the ends that are kept, and keeps them within bounds.
fn append(tx: &Transaction<'_>, fold: &Fold) -> Result<Vec<Output>> {
    let number = fold.build.number;
    let mut grown = std::collections::BTreeMap::<u32, Vec<u8>>::new();
    for (step, bytes) in &fold.output {
        grown.entry(*step).or_default().extend_from_slice(bytes);
    }
    let mut outputs = Vec::new();
    for (step, more) in grown {
        let sql = "SELECT tail, cut FROM logs WHERE build = ?1 AND step = ?2";
        let old = tx.prepare_cached(sql)?.query_row(params![number, step], |row| Ok((row.get(0)?, row.get(1)?)));
        let (mut tail, mut cut): (Vec<u8>, bool) = old.optional()?.unwrap_or_default();
        tail.extend(more);
        if tail.len() > STEP_LOG {
            // From the begin of a line, if one is near.
            let from = tail.len() - STEP_LOG;
            let line = tail.get(from..).and_then(|rest| rest.iter().take(1000).position(|b| *b == b'\n'));
            tail.drain(..from + line.map_or(0, |at| at + 1));
            cut = true;
        }
        let sql = "INSERT OR REPLACE INTO logs (build, step, tail, cut, at)
                   VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(at), 0) + 1 FROM logs WHERE build = ?1))";
        tx.prepare_cached(sql)?.execute(params![number, step, tail, cut])?;
        let shown = text::readable(&tail);
        let (end, shorter) = text::tail(&shown, LIVE_TAIL);
        outputs.push(Output { step, text: end.to_owned(), cut: cut || shorter });
    }
    if !outputs.is_empty() {
        let sql = "UPDATE logs SET tail = x'', cut = 1 WHERE build = ?1 AND step IN (
                       SELECT step FROM (
                           SELECT step, sum(length(tail)) OVER (ORDER BY at DESC) AS together FROM logs WHERE build = ?1
                       ) WHERE together > ?2
                   )";
        tx.prepare_cached(sql)?.execute(params![number, signed(BUILD_LOG)])?;
    }
    Ok(outputs)
}

fn known(connection: &Connection, what: &What) -> Result<Option<f64>> {
    let mut statement = connection.prepare_cached("SELECT ms FROM durations WHERE what = ?1")?;
    Ok(statement.query_row([what], |row| row.get(0)).optional()?)
}

fn steps(connection: &Connection, number: i64) -> Result<Steps> {
    let sql = "SELECT step, label, stage, line, inputs, state, reason, again, began, duration_ms, saved_ms, message
               FROM steps WHERE build = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([number], |row| {
        let inputs: String = row.get(4)?;
        let state: String = row.get(5)?;
        Ok(Step {
            id: row.get(0)?,
            label: row.get(1)?,
            stage: row.get(2)?,
            line: row.get(3)?,
            inputs: serde_json::from_str(&inputs).map_err(|e| bad(4, e))?,
            state: StepState::of(&state).ok_or_else(|| bad(5, format!("state {state}")))?,
            reason: row.get(6)?,
            again: row.get(7)?,
            began: row.get(8)?,
            duration_ms: row.get(9)?,
            saved_ms: row.get(10)?,
            message: row.get(11)?,
        })
    })?;
    Ok(rows.map(|row| row.map(|step: Step| (step.id, step))).collect::<rusqlite::Result<_>>()?)
}

fn logs(connection: &Connection, number: i64) -> Result<Vec<Output>> {
    let mut statement = connection.prepare_cached("SELECT step, tail, cut FROM logs WHERE build = ?1 ORDER BY step")?;
    let rows = statement.query_map([number], |row| {
        let tail: Vec<u8> = row.get(1)?;
        Ok(Output { step: row.get(0)?, text: text::readable(&tail), cut: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    let (state, warnings): (String, String) = (row.get(4)?, row.get(17)?);
    Ok(Build {
        number: row.get(0)?,
        id: build_id(row, 1)?,
        name: row.get(2)?,
        client: row.get(3)?,
        state: BuildState::of(&state).ok_or_else(|| bad(4, format!("state {state}")))?,
        started: row.get(5)?,
        updated: row.get(6)?,
        duration_ms: row.get(7)?,
        steps: Counts {
            total: unsigned(row.get(8)?),
            ended: unsigned(row.get(9)?),
            running: unsigned(row.get(10)?),
            cached: unsigned(row.get(11)?),
            executed: unsigned(row.get(12)?),
            failed: unsigned(row.get(13)?),
        },
        saved_ms: row.get(14)?,
        error: row.get(15)?,
        sandbox: row.get(16)?,
        warnings: serde_json::from_str(&warnings).map_err(|e| bad(17, e))?,
        next: unsigned(row.get(18)?),
    })
}

fn build_id(row: &Row<'_>, at: usize) -> rusqlite::Result<BuildId> {
    row.get::<_, String>(at)?.parse().map_err(|e| bad(at, e))
}

fn bad(at: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into())
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
