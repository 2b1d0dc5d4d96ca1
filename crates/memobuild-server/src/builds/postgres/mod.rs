//! Builds in PostgreSQL, in the database that the storage of several servers has; they share the builds too. All SQL about
//! builds in it is in this directory, but for the tables, which are made with the others (`storage/postgres/schema.rs`).
//!
//! A build's row is locked while a batch is folded into it, so that servers that are told of one build at once do so one
//! after the other. Nothing of a build is kept in a server. What any of them took the others find by looking
//! ([`PostgresBuilds::news`]): each batch raises the build's *revision*, and what it changes has that number.

mod news;
mod prune;
mod take;

use std::sync::atomic::{AtomicU32, Ordering};

use news::Seen;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction, types::Type};

use super::{
    Analytics, Batch, Build, BuildId, Builds, Change, Detail, LOST_AFTER, LayerUse, Limits,
    model::Steps,
    rows::{self, BUILD, PRUNE_EVERY, STEP},
};
use crate::storage::{Database, Result, signed};

/// Builds in a database that any number of servers share.
pub(crate) struct PostgresBuilds {
    database: Database,
    limits: Limits,
    begun: AtomicU32,
}

impl PostgresBuilds {
    pub(crate) fn new(database: Database, limits: Limits) -> Self {
        Self { database, limits, begun: AtomicU32::new(0) }
    }

    /// What changed since the look that gave `seen`, whichever server took it; and what this look saw.
    pub(crate) fn news(&self, seen: &Seen) -> Result<(Vec<Change>, Seen)> {
        self.database.run(async |client| news::news(client, seen).await)
    }
}

impl Builds for PostgresBuilds {
    /// The database's: servers' clocks may differ.
    fn now(&self) -> Result<i64> {
        self.database.run(async |client| Ok(client.query_typed_one("SELECT milliseconds()", &[]).await?.try_get(0)?))
    }

    fn take(&self, batch: &Batch, client: &str, now: i64) -> Result<Change> {
        let (change, is_new) =
            self.database.run(async |connection| take::take(connection, batch, client, now).await)?;
        if is_new && self.begun.fetch_add(1, Ordering::Relaxed) % PRUNE_EVERY == PRUNE_EVERY - 1 {
            // The events were taken, whatever becomes of old builds.
            if let Err(error) = self.prune(now) {
                tracing::warn!("cannot remove old builds: {error}");
            }
        }
        Ok(change)
    }

    fn list(&self, before: Option<i64>, most: usize, now: i64) -> Result<Vec<Build>> {
        let sql = format!("SELECT {BUILD} FROM builds WHERE number < $1 ORDER BY number DESC LIMIT $2");
        let (before, most) = (before.unwrap_or(i64::MAX), signed(most as u64));
        let rows = self
            .database
            .run(async |client| Ok(client.query_typed(&sql, &[(&before, Type::INT8), (&most, Type::INT8)]).await?))?;
        let mut builds: Vec<Build> = rows.iter().map(rows::build).collect::<Result<_>>()?;
        builds.iter_mut().for_each(|build| rows::lose(build, now));
        Ok(builds)
    }

    fn get(&self, id: &BuildId, now: i64) -> Result<Option<Detail>> {
        let mut detail = self.database.run(async |client| get(client, id).await)?;
        if let Some(detail) = &mut detail {
            rows::lose(&mut detail.build, now);
        }
        Ok(detail)
    }

    fn newest(&self) -> Result<Option<BuildId>> {
        let sql = "SELECT id FROM builds ORDER BY number DESC LIMIT 1";
        let row = self.database.run(async |client| Ok(client.query_typed_opt(sql, &[]).await?))?;
        row.map(|row| rows::build_id(&row, 0)).transpose()
    }

    fn analytics(&self, since: i64, now: i64) -> Result<Analytics> {
        let sql = "SELECT to_char(to_timestamp(started / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*),
                   count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'),
                   sum(cached)::bigint, sum(executed + failed)::bigint, sum(saved_ms), sum(coalesce(duration_ms, 0))
                   FROM builds WHERE started >= $1 GROUP BY 1 ORDER BY 1";
        let days = self.database.run(async |client| Ok(client.query_typed(sql, &[(&since, Type::INT8)]).await?))?;
        let sql = "SELECT count(*) FROM builds WHERE state = 'running' AND updated >= $1";
        let heard = now - LOST_AFTER;
        let row = self.database.run(async |client| Ok(client.query_typed_one(sql, &[(&heard, Type::INT8)]).await?))?;
        Ok(rows::analytics(days.iter().map(rows::day).collect::<Result<_>>()?, rows::count(&row, 0)?))
    }

    fn layers(&self, most: usize) -> Result<Vec<LayerUse>> {
        let sql = "SELECT digest, l.size, u.builds, b.id, b.name
                   FROM (SELECT digest, count(*) AS builds, max(build) AS build FROM build_layers GROUP BY digest) u
                   JOIN build_layers l USING (digest, build) JOIN builds b ON b.number = build
                   ORDER BY l.size DESC, digest LIMIT $1";
        let most = signed(most as u64);
        let found = self.database.run(async |client| Ok(client.query_typed(sql, &[(&most, Type::INT8)]).await?))?;
        found.iter().map(rows::layer_use).collect()
    }

    fn prune(&self, now: i64) -> Result<u64> {
        let mut removed = 0;
        loop {
            let some = self.database.run(async |client| prune::builds(client, &self.limits, now).await)?;
            removed += some;
            if some == 0 {
                break;
            }
        }
        self.database.run(async |client| prune::durations(client, &self.limits, now).await)?;
        Ok(removed)
    }
}

/// One view of all tables.
async fn view(client: &mut Client) -> Result<Transaction<'_>> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?)
}

async fn get(client: &mut Client, id: &BuildId) -> Result<Option<Detail>> {
    let tx = view(client).await?;
    let sql = format!("SELECT {BUILD} FROM builds WHERE id = $1");
    let Some(row) = tx.query_typed_opt(&sql, &[(&id.as_str(), Type::TEXT)]).await? else { return Ok(None) };
    let build = rows::build(&row)?;
    let steps = steps(&tx, build.number).await?;
    let of = &[(&build.number as _, Type::INT8)];
    let logs = tx.query_typed("SELECT step, tail, cut FROM build_outputs WHERE build = $1 ORDER BY step", of).await?;
    let sql = "SELECT digest, size FROM build_layers WHERE build = $1 ORDER BY size DESC, digest";
    let layers = tx.query_typed(sql, of).await?;
    tx.commit().await?;
    let logs = logs.iter().map(rows::output).collect::<Result<_>>()?;
    let layers = layers.iter().map(rows::layer).collect::<Result<_>>()?;
    Ok(Some(Detail::new(build, steps, logs, layers)))
}

async fn steps(client: &impl GenericClient, number: i64) -> Result<Steps> {
    let sql = format!("SELECT {STEP} FROM build_steps WHERE build = $1");
    let found = client.query_typed(&sql, &[(&number, Type::INT8)]).await?;
    found.iter().map(|row| rows::step(row).map(|step| (step.id, step))).collect()
}

#[cfg(test)]
mod tests;
