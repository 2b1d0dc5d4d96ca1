//! What is too old or too much: for all servers together, by whichever comes to it.

use tokio_postgres::{Client, types::Type};

use crate::{
    builds::{Limits, rows},
    storage::{Result, signed},
};

/// One server removes builds at a time: any number that nobody else uses (see `storage/postgres/schema.rs`).
const PRUNING: i64 = 0x6d65_6d6f_0003;

/// Builds removed at a time, with their steps and outputs: a statement has its time.
const AT_ONCE: i64 = 64;

/// Removes some builds; gives how many. 0: none is left that must go.
pub(super) async fn builds(client: &mut Client, limits: &Limits, now: i64) -> Result<u64> {
    let oldest = rows::oldest(limits, now);
    let tx = client.transaction().await?;
    tx.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&PRUNING, Type::INT8)]).await?;
    // What is heard of in the meantime is waited for, and then is not old.
    let sql = "DELETE FROM builds WHERE number IN
                   (SELECT number FROM builds WHERE updated < $1 ORDER BY number LIMIT $2 FOR UPDATE)";
    let mut removed = tx.execute_typed(sql, &[(&oldest, Type::INT8), (&AT_ONCE, Type::INT8)]).await?;
    let sql = "DELETE FROM builds WHERE number IN (
                   SELECT number FROM (
                       SELECT number, row_number() OVER newest AS place, sum(bytes) OVER newest AS together
                       FROM builds WINDOW newest AS (ORDER BY number DESC)
                   ) o WHERE place > $1 OR (together > $2 AND place > 1) ORDER BY number LIMIT $3
               )";
    let (most, bytes) = (signed(limits.builds), signed(limits.bytes));
    removed += tx.execute_typed(sql, &[(&most, Type::INT8), (&bytes, Type::INT8), (&AT_ONCE, Type::INT8)]).await?;
    tx.commit().await?;
    Ok(removed)
}

/// Forgets how long steps took that were not executed for long. What a batch is changing now is not old.
pub(super) async fn durations(client: &mut Client, limits: &Limits, now: i64) -> Result<()> {
    let sql = "DELETE FROM step_durations WHERE what IN
                   (SELECT what FROM step_durations WHERE learnt < $1 FOR UPDATE SKIP LOCKED)";
    client.execute_typed(sql, &[(&rows::oldest(limits, now), Type::INT8)]).await?;
    Ok(())
}
