//! Records, and items of lists.

use std::collections::HashSet;

use tokio_postgres::{Client, GenericClient, Transaction, types::Type};

use super::{account, blob_id, columns, signed};
use crate::{
    BlobId, RecordKey,
    storage::{
        LIST_ITEMS, Record, RecordPut, Result,
        rows::{Table, item_digest, record_size},
    },
};

/// Rows under this key with their numbers, newest first.
pub(super) async fn select(client: &impl GenericClient, table: Table, key: &RecordKey) -> Result<Vec<(i64, Record)>> {
    // One statement sees the rows of one moment.
    let sql = "SELECT r.id, r.value, n.kind, n.digest
               FROM (SELECT id, value, rank FROM records WHERE list = $1 AND namespace = $2 AND key = $3
                     ORDER BY rank DESC LIMIT $4) r
               LEFT JOIN names n ON n.record = r.id ORDER BY r.rank DESC, n.place";
    let (list, namespace, bytes) = (table == Table::Lists, key.namespace(), key.key().as_slice());
    let most = signed(LIST_ITEMS as u64);
    let rows = client
        .query_typed(sql, &[(&list, Type::BOOL), (&namespace, Type::TEXT), (&bytes, Type::BYTEA), (&most, Type::INT8)])
        .await?;
    let mut records: Vec<(i64, Record)> = Vec::new();
    for row in rows {
        let id: i64 = row.try_get(0)?;
        if records.last().is_none_or(|(last, _)| *last != id) {
            records.push((id, Record { value: row.try_get(1)?, blobs: Vec::new() }));
        }
        if row.try_get::<_, Option<i16>>(2)?.is_some()
            && let Some((_, record)) = records.last_mut()
        {
            record.blobs.push(blob_id(&row, 2)?);
        }
    }
    Ok(records)
}

/// Puts in a record that is the first under its key, or an item of a list, of which the newest `keep` stay. `None` if it
/// would be more than `most` bytes.
pub(super) async fn insert(
    client: &mut Client,
    table: Table,
    key: &RecordKey,
    record: &Record,
    keep: usize,
    most: i64,
) -> Result<Option<RecordPut>> {
    loop {
        let tx = client.transaction().await?;
        if table == Table::Records
            && let Some((_, first)) = select(&tx, table, key).await?.pop()
        {
            return Ok(Some(RecordPut::Existing(first)));
        }
        let missing = lock(&tx, &record.blobs).await?;
        if !missing.is_empty() {
            return Ok(Some(RecordPut::Missing(missing)));
        }
        let Some((row, new)) = add(&tx, table, key, record).await? else {
            // Another server was first; its record is there now, unless a collection was quick.
            drop(tx);
            continue;
        };
        if new {
            name(&tx, row, &record.blobs).await?;
        }
        let size = signed(record_size(record));
        let (mut records, mut bytes) = if new { (1, size) } else { (0, 0) };
        if table == Table::Lists {
            let (gone, freed) = shorten(&tx, key, keep).await?;
            (records, bytes) = (records - gone, bytes - freed);
        }
        if !account(&tx, 0, records, bytes, most).await? {
            return Ok(None);
        }
        tx.commit().await?;
        // An equal item that was there had its room already.
        return Ok(Some(if new { RecordPut::Stored } else { RecordPut::Existing(record.clone()) }));
    }
}

/// Keeps blobs from going until the transaction ends; gives those that are not there.
async fn lock(tx: &Transaction<'_>, ids: &[BlobId]) -> Result<Vec<BlobId>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (kinds, digests) = columns(ids);
    // All in one order, so that few meet head-on.
    let sql =
        "SELECT kind, digest FROM blobs WHERE (kind, digest) IN (SELECT * FROM unnest($1::smallint[], $2::bytea[]))
               ORDER BY kind, digest FOR KEY SHARE";
    let rows = tx.query_typed(sql, &[(&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY)]).await?;
    let there: HashSet<BlobId> = rows.iter().map(|row| blob_id(row, 0)).collect::<Result<_>>()?;
    Ok(ids.iter().filter(|id| !there.contains(id)).copied().collect())
}

/// The row's number, and whether it is new; `None` if there is a record under the key.
async fn add(tx: &Transaction<'_>, table: Table, key: &RecordKey, record: &Record) -> Result<Option<(i64, bool)>> {
    // xmax is 0 in a row that was never updated.
    let (list, sql) = match table {
        Table::Records => (
            false,
            "INSERT INTO records (list, namespace, key, item, value, size, last_used)
             VALUES ($1, $2, $3, $4, $5, $6, seconds()) ON CONFLICT DO NOTHING RETURNING id, true",
        ),
        Table::Lists => (
            true,
            "INSERT INTO records AS r (list, namespace, key, item, value, size, last_used)
             VALUES ($1, $2, $3, $4, $5, $6, seconds())
             ON CONFLICT (list, namespace, key, item) DO UPDATE SET rank = nextval('ranks'), last_used = seconds()
             RETURNING id, r.xmax = 0",
        ),
    };
    let item = if list { item_digest(record).to_vec() } else { Vec::new() };
    let (namespace, bytes, size) = (key.namespace(), key.key().as_slice(), signed(record_size(record)));
    let row = tx
        .query_typed_opt(
            sql,
            &[
                (&list, Type::BOOL),
                (&namespace, Type::TEXT),
                (&bytes, Type::BYTEA),
                (&item, Type::BYTEA),
                (&record.value, Type::BYTEA),
                (&size, Type::INT8),
            ],
        )
        .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

async fn name(tx: &Transaction<'_>, row: i64, ids: &[BlobId]) -> Result<()> {
    let (kinds, digests) = columns(ids);
    let sql = "INSERT INTO names (record, place, kind, digest)
               SELECT $1, place, kind, digest
               FROM unnest($2::smallint[], $3::bytea[]) WITH ORDINALITY AS n (kind, digest, place)";
    tx.execute_typed(sql, &[(&row, Type::INT8), (&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY)]).await?;
    Ok(())
}

/// Removes all but the newest items of a list; how many went, and their bytes.
async fn shorten(tx: &Transaction<'_>, key: &RecordKey, keep: usize) -> Result<(i64, i64)> {
    let sql = "WITH gone AS (DELETE FROM records WHERE id IN
                   (SELECT id FROM records WHERE list AND namespace = $1 AND key = $2 ORDER BY rank DESC OFFSET $3)
                   RETURNING size)
               SELECT count(*), coalesce(sum(size), 0)::bigint FROM gone";
    let (namespace, bytes, keep) = (key.namespace(), key.key().as_slice(), signed(keep as u64));
    let row = tx.query_typed_one(sql, &[(&namespace, Type::TEXT), (&bytes, Type::BYTEA), (&keep, Type::INT8)]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
