//! The tables, and how those of an older version become those of this one.

use tokio_postgres::{Client, Transaction, types::Type};

use crate::storage::Result;

/// Of everything that servers do by turns ([`super::collect`] and `crate::builds::postgres` have others): any number that
/// nobody else uses.
const MIGRATING: i64 = 0x6d65_6d6f_0001;

/// One step for each version, the first one first. A step that was released never changes: new ones are added.
const STEPS: &[&str] = &["
CREATE TABLE store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    identity text NOT NULL DEFAULT gen_random_uuid()::text,
    blobs bigint NOT NULL DEFAULT 0, records bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO store DEFAULT VALUES;
-- Times are seconds since 1970 by the database's clock: servers' clocks may differ.
CREATE FUNCTION seconds() RETURNS bigint LANGUAGE sql AS
    $$ SELECT floor(extract(epoch FROM clock_timestamp()))::bigint $$;
CREATE TABLE blobs (
    kind smallint, digest bytea, object text NOT NULL, size bigint NOT NULL, last_used bigint NOT NULL,
    PRIMARY KEY (kind, digest)
);
CREATE INDEX blobs_by_use ON blobs (last_used);
CREATE TABLE uploads (object text PRIMARY KEY, size bigint NOT NULL, expires bigint NOT NULL);
CREATE INDEX uploads_by_end ON uploads (expires);
-- settled: from then on nobody can be making the object any more.
CREATE TABLE garbage (object text PRIMARY KEY, size bigint NOT NULL, settled bigint NOT NULL);
CREATE SEQUENCE ranks;
-- One row for a record, one for each item of a list. item: BLAKE3 of an item, empty for a record. rank: the newer the higher.
CREATE TABLE records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    list boolean NOT NULL, namespace text NOT NULL, key bytea NOT NULL, item bytea NOT NULL,
    rank bigint NOT NULL DEFAULT nextval('ranks'),
    value bytea NOT NULL, size bigint NOT NULL, last_used bigint NOT NULL,
    UNIQUE (list, namespace, key, item)
);
CREATE INDEX records_by_use ON records (last_used);
-- The second reference is the promise that a record is there only while its blobs are.
CREATE TABLE names (
    record bigint NOT NULL REFERENCES records (id) ON DELETE CASCADE, place integer NOT NULL,
    kind smallint NOT NULL, digest bytea NOT NULL,
    PRIMARY KEY (record, place),
    FOREIGN KEY (kind, digest) REFERENCES blobs (kind, digest)
);
CREATE INDEX names_by_blob ON names (kind, digest);
", "
-- Builds that clients tell of. Their times are milliseconds since 1970, by the database's clock again.
CREATE FUNCTION milliseconds() RETURNS bigint LANGUAGE sql AS
    $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;
-- revision: grows with each batch. replaced: the one that brought the plan.
CREATE TABLE builds (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, name text NOT NULL,
    client text NOT NULL, state text NOT NULL, started bigint NOT NULL, updated bigint NOT NULL,
    duration_ms double precision, total bigint NOT NULL, ended bigint NOT NULL, running bigint NOT NULL,
    cached bigint NOT NULL, executed bigint NOT NULL, failed bigint NOT NULL, saved_ms double precision NOT NULL,
    error text, sandbox text, warnings text NOT NULL, next bigint NOT NULL, bytes bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0, replaced bigint NOT NULL DEFAULT 0
);
CREATE INDEX builds_by_start ON builds (started);
CREATE INDEX builds_by_change ON builds (updated);
-- inputs: numbers of steps, as JSON. at: the revision that changed it last.
CREATE TABLE build_steps (
    build bigint NOT NULL REFERENCES builds (number) ON DELETE CASCADE, step bigint NOT NULL, label text NOT NULL,
    stage text NOT NULL, line bigint, inputs text NOT NULL, state text NOT NULL, reason text, again boolean NOT NULL,
    began bigint, duration_ms double precision, saved_ms double precision NOT NULL, message text, at bigint NOT NULL,
    PRIMARY KEY (build, step)
);
-- Ends of outputs. cut: whether more came before.
CREATE TABLE build_outputs (
    build bigint NOT NULL REFERENCES builds (number) ON DELETE CASCADE, step bigint NOT NULL, tail bytea NOT NULL,
    cut boolean NOT NULL, at bigint NOT NULL,
    PRIMARY KEY (build, step)
);
CREATE TABLE build_layers (
    build bigint NOT NULL REFERENCES builds (number) ON DELETE CASCADE, digest text NOT NULL, size bigint NOT NULL,
    PRIMARY KEY (build, digest)
);
CREATE INDEX build_layers_by_digest ON build_layers (digest, build);
-- How long a step took when it was last executed.
CREATE TABLE step_durations (what bytea PRIMARY KEY, ms double precision NOT NULL, learnt bigint NOT NULL);
CREATE INDEX step_durations_by_age ON step_durations (learnt);
"];

/// The version that this program reads and writes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// Brings the tables to [`VERSION`], all or nothing, one server at a time. Gives the version found if it is newer.
pub(super) async fn migrate(client: &mut Client) -> Result<Option<i32>> {
    let tx = client.transaction().await?;
    // Another server may be at it, and a step over many rows may take its time.
    tx.batch_execute("SET LOCAL lock_timeout = '5min'; SET LOCAL statement_timeout = 0").await?;
    tx.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MIGRATING, Type::INT8)]).await?;
    let there = tx.query_typed_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'memobuild'", &[]).await?.is_some();
    if !there {
        // Made for the server by somebody who may, it need not have the right to.
        tx.batch_execute("CREATE SCHEMA memobuild").await?;
    }
    tx.batch_execute("CREATE TABLE IF NOT EXISTS versions (version integer PRIMARY KEY, since timestamptz NOT NULL)")
        .await?;
    let found = version(&tx).await?;
    if found > VERSION {
        return Ok(Some(found));
    }
    for (version, step) in (1i32..).zip(STEPS) {
        if version > found {
            tx.batch_execute(step).await?;
            tx.execute_typed("INSERT INTO versions VALUES ($1, now())", &[(&version, Type::INT4)]).await?;
        }
    }
    tx.commit().await?;
    Ok(None)
}

async fn version(tx: &Transaction<'_>) -> Result<i32> {
    Ok(tx.query_typed_one("SELECT coalesce(max(version), 0) FROM versions", &[]).await?.try_get(0)?)
}
