//! Objects on their way: uploads, and what is to be deleted.

use std::time::Duration;

use tokio_postgres::{Client, types::Type};

use super::{account, kind, signed};
use crate::{
    BlobId,
    storage::{
        Committed, Result,
        shared::metadata::{Begun, object_name},
    },
};

/// Objects deleted at a time.
const AT_ONCE: i64 = 64;

/// How long after an upload was given up its object may still come to be, in seconds: a request that was sent before is
/// carried out late.
const SETTLING: i64 = 3600;

pub(super) async fn begin(client: &mut Client, id: BlobId, size: u64, lease: Duration, most: i64) -> Result<Begun> {
    let tx = client.transaction().await?;
    let digest = id.as_bytes().as_slice();
    let sql = "SELECT 1 FROM blobs WHERE kind = $1 AND digest = $2";
    if tx.query_typed_opt(sql, &[(&kind(id), Type::INT2), (&digest, Type::BYTEA)]).await?.is_some() {
        return Ok(Begun::Existed);
    }
    let sql = "INSERT INTO uploads (object, size, expires)
               VALUES ($1 || replace(gen_random_uuid()::text, '-', ''), $2, seconds() + $3) RETURNING object";
    let (name, size, lease) = (object_name(id, ""), signed(size), signed(lease.as_secs()));
    let row = tx.query_typed_one(sql, &[(&name, Type::TEXT), (&size, Type::INT8), (&lease, Type::INT8)]).await?;
    let object: String = row.try_get(0)?;
    if !account(&tx, 0, 0, size, most).await? {
        return Ok(Begun::NoRoom);
    }
    tx.commit().await?;
    Ok(Begun::Upload(object))
}

pub(super) async fn finish(client: &mut Client, id: BlobId, object: &str) -> Result<Option<Committed>> {
    let tx = client.transaction().await?;
    let sql = "DELETE FROM uploads WHERE object = $1 RETURNING size";
    let Some(row) = tx.query_typed_opt(sql, &[(&object, Type::TEXT)]).await? else { return Ok(None) };
    let size: i64 = row.try_get(0)?;
    let digest = id.as_bytes().as_slice();
    let sql = "INSERT INTO blobs (kind, digest, object, size, last_used) VALUES ($1, $2, $3, $4, seconds())
               ON CONFLICT DO NOTHING";
    let kind = kind(id);
    let added = tx
        .execute_typed(sql, &[(&kind, Type::INT2), (&digest, Type::BYTEA), (&object, Type::TEXT), (&size, Type::INT8)])
        .await?;
    let committed = if added > 0 {
        account(&tx, 1, 0, 0, 0).await?;
        Committed::Created
    } else {
        let sql = "INSERT INTO garbage (object, size, settled) VALUES ($1, $2, 0)";
        tx.execute_typed(sql, &[(&object, Type::TEXT), (&size, Type::INT8)]).await?;
        Committed::Existed
    };
    tx.commit().await?;
    Ok(Some(committed))
}

pub(super) async fn abandon(client: &mut Client, object: &str) -> Result<()> {
    let sql = "WITH gone AS (DELETE FROM uploads WHERE object = $1 RETURNING object, size)
               INSERT INTO garbage (object, size, settled) SELECT object, size, seconds() + $2 FROM gone";
    client.execute_typed(sql, &[(&object, Type::TEXT), (&SETTLING, Type::INT8)]).await?;
    Ok(())
}

pub(super) async fn garbage(client: &mut Client) -> Result<Vec<String>> {
    let sql = "WITH gone AS (DELETE FROM uploads WHERE expires < seconds() RETURNING object, size)
               INSERT INTO garbage (object, size, settled) SELECT object, size, seconds() + $1 FROM gone";
    client.execute_typed(sql, &[(&SETTLING, Type::INT8)]).await?;
    // What is not settled is deleted at once, and once more when it is.
    let sql = "SELECT object FROM garbage WHERE size > 0 OR settled <= seconds() ORDER BY object LIMIT $1";
    let rows = client.query_typed(sql, &[(&AT_ONCE, Type::INT8)]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn forget(client: &mut Client, objects: &[String]) -> Result<()> {
    let tx = client.transaction().await?;
    // Two servers may have deleted the same ones: who comes second finds nothing to free.
    let sql =
        "SELECT object, size, settled <= seconds() FROM garbage WHERE object = ANY($1) ORDER BY object FOR UPDATE";
    let (mut freed, mut gone, mut later) = (0i64, Vec::new(), Vec::new());
    for row in tx.query_typed(sql, &[(&objects, Type::TEXT_ARRAY)]).await? {
        let (object, size, settled): (String, i64, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        freed = freed.saturating_add(size);
        if settled { gone.push(object) } else { later.push(object) }
    }
    tx.execute_typed("DELETE FROM garbage WHERE object = ANY($1)", &[(&gone, Type::TEXT_ARRAY)]).await?;
    tx.execute_typed("UPDATE garbage SET size = 0 WHERE object = ANY($1)", &[(&later, Type::TEXT_ARRAY)]).await?;
    account(&tx, 0, 0, freed.saturating_neg(), 0).await?;
    Ok(tx.commit().await?)
}
