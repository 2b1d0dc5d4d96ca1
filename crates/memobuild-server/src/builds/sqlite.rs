//! Builds in SQLite: `builds.sqlite` in the data directory. All SQL about builds in it is here.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{
    Analytics, BUILD_LOG, Batch, Build, BuildId, Builds, Change, Counts, Day, Detail, LOST_AFTER, LayerUse, Limits,
    Output, Step,
    fold::{Fold, What},
    model::Steps,
    rows::{self, BUILD, PRUNE_EVERY, STEP, Tail},
};
use crate::storage::{Result, signed};

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
        let (state, steps) = (before.state, steps(&tx, before.number)?);
        let mut fold = Fold::new(before, steps);
        fold.apply(batch, now, |what| known(&tx, what))?;
        let logs = write(&tx, &fold, now)?;
        tx.commit()?;
        drop(connection);
        if is_new && self.begun.fetch_add(1, Ordering::Relaxed) % PRUNE_EVERY == PRUNE_EVERY - 1 {
            self.prune(now)?;
        }
        Ok(fold.into_change(state, logs))
    }

    fn list(&self, before: Option<i64>, most: usize, now: i64) -> Result<Vec<Build>> {
        let sql = format!("SELECT {BUILD} FROM builds WHERE number < ?1 ORDER BY number DESC LIMIT ?2");
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement.query_and_then(params![before.unwrap_or(i64::MAX), most], |row| rows::build(row))?;
        let mut builds: Vec<Build> = rows.collect::<Result<_>>()?;
        builds.iter_mut().for_each(|build| rows::lose(build, now));
        Ok(builds)
    }

    fn get(&self, id: &BuildId, now: i64) -> Result<Option<Detail>> {
        let mut connection = self.connection();
        // One view of all tables.
        let tx = connection.transaction()?;
        let Some(mut build) = find(&tx, id)? else { return Ok(None) };
        rows::lose(&mut build, now);
        let steps = steps(&tx, build.number)?;
        let logs = logs(&tx, build.number)?;
        let mut statement = tx.prepare_cached("SELECT digest, size FROM layers WHERE build = ?1 ORDER BY size DESC")?;
        let layers = statement.query_and_then([build.number], |row| rows::layer(row))?.collect::<Result<_>>()?;
        Ok(Some(Detail::new(build, steps, logs, layers)))
    }

    fn newest(&self) -> Result<Option<BuildId>> {
        let connection = self.connection();
        let sql = "SELECT id FROM builds ORDER BY number DESC LIMIT 1";
        let mut statement = connection.prepare_cached(sql)?;
        statement.query_and_then([], |row| rows::build_id(row, 0))?.next().transpose()
    }

    fn analytics(&self, since: i64, now: i64) -> Result<Analytics> {
        let connection = self.connection();
        let sql = "SELECT date(started / 1000, 'unixepoch'), count(*), sum(state = 'succeeded'), sum(state = 'failed'),
                   sum(cached), sum(executed + failed), sum(saved_ms), sum(coalesce(duration_ms, 0))
                   FROM builds WHERE started >= ?1 GROUP BY 1 ORDER BY 1";
        let mut statement = connection.prepare_cached(sql)?;
        let days: Vec<Day> = statement.query_and_then([since], |row| rows::day(row))?.collect::<Result<_>>()?;
        let sql = "SELECT count(*) FROM builds WHERE state = 'running' AND updated >= ?1";
        let running: u32 = connection.prepare_cached(sql)?.query_row([now - LOST_AFTER], |row| row.get(0))?;
        Ok(rows::analytics(days, running.into()))
    }

    fn layers(&self, most: usize) -> Result<Vec<LayerUse>> {
        let connection = self.connection();
        // With max() the other columns are those of the row that has it.
        let sql = "SELECT digest, size, count(*), id, name, max(build) FROM layers JOIN builds ON build = number
                   GROUP BY digest ORDER BY size DESC, digest LIMIT ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_and_then([i64::try_from(most).unwrap_or(i64::MAX)], |row| rows::layer_use(row))?;
        rows.collect()
    }

    fn prune(&self, now: i64) -> Result<u64> {
        let Limits { builds, bytes, .. } = self.limits;
        let oldest = rows::oldest(&self.limits, now);
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
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then([id.as_str()], |row| rows::build(row))?.next().transpose()
}

fn insert(tx: &Transaction<'_>, id: &BuildId, client: &str, now: i64) -> Result<Build> {
    let sql = format!(
        "INSERT INTO builds (id, name, client, state, started, updated, total, ended, running, cached, executed, failed,
         saved_ms, warnings, next) VALUES (?1, '', ?2, 'running', ?3, ?3, 0, 0, 0, 0, 0, 0, 0, '[]', 0) RETURNING {BUILD}"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.as_str(), client, now])?;
    rows::build(rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
}

/// Writes what changed; gives the ends of the outputs that grew.
fn write(tx: &Transaction<'_>, fold: &Fold, now: i64) -> Result<Vec<Output>> {
    let Build { number, next, .. } = fold.build;
    if fold.replaced {
        for table in ["steps", "logs", "layers"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE build = ?1"))?.execute([number])?;
        }
    }
    let mut statement = tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO steps (build, {STEP}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?;
    for step in fold.changed.iter().filter_map(|id| fold.steps.get(id)) {
        let Step { id, label, stage, line, inputs, state, reason, again, began, duration_ms, saved_ms, message } = step;
        statement.execute(params![
            number,
            id,
            label,
            stage,
            line,
            rows::list(inputs),
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
    let warnings = rows::list(warnings);
    let Counts { total, ended, running, cached, executed, failed } = *steps;
    let logged: i64 = tx
        .prepare_cached("SELECT coalesce(sum(length(tail)), 0) FROM logs WHERE build = ?1")?
        .query_row([number], |row| row.get(0))?;
    let bytes = rows::weight(fold) + logged;
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
    let mut outputs = Vec::new();
    for (step, more) in rows::written(fold) {
        let sql = "SELECT tail, cut FROM logs WHERE build = ?1 AND step = ?2";
        let old = tx
            .prepare_cached(sql)?
            .query_row(params![number, step], |row| Ok(Tail { bytes: row.get(0)?, cut: row.get(1)? }));
        let mut tail = old.optional()?.unwrap_or_default();
        tail.grow(&more);
        let sql = "INSERT OR REPLACE INTO logs (build, step, tail, cut, at)
                   VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(at), 0) + 1 FROM logs WHERE build = ?1))";
        tx.prepare_cached(sql)?.execute(params![number, step, tail.bytes, tail.cut])?;
        outputs.push(tail.told(step));
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
    let mut statement = connection.prepare_cached(&format!("SELECT {STEP} FROM steps WHERE build = ?1"))?;
    let rows = statement.query_and_then([number], |row| rows::step(row))?;
    rows.map(|row| row.map(|step| (step.id, step))).collect()
}

fn logs(connection: &Connection, number: i64) -> Result<Vec<Output>> {
    let mut statement = connection.prepare_cached("SELECT step, tail, cut FROM logs WHERE build = ?1 ORDER BY step")?;
    statement.query_and_then([number], |row| rows::output(row))?.collect()
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
