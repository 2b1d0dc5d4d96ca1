//! Last uses, and removing what was not used for longest.

use std::time::Duration;

use tokio_postgres::{Client, Transaction, types::Type};

use super::{account, blob_id, columns, kind, signed, unsigned};
use crate::{
    BlobId,
    storage::{
        Result,
        rows::{Oldest, Removed, Used},
    },
};

/// One server collects at a time: any number that nobody else uses.
const COLLECTING: i64 = 0x6d65_6d6f_0002;

/// Rows removed at a time: transactions that name blobs among them wait so long.
const AT_ONCE: i64 = 64;

/// Removes some of what was not used for so long, and of what is above `most` bytes; `None` if there is nothing to remove.
pub(super) async fn collect(
    client: &mut Client,
    unused_for: Option<Duration>,
    most: Option<u64>,
) -> Result<Option<Removed>> {
    let tx = client.transaction().await?;
    tx.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&COLLECTING, Type::INT8)]).await?;
    // What is garbage will be free, whoever deletes it.
    let sql = "SELECT bytes - (SELECT coalesce(sum(size), 0)::bigint FROM garbage), seconds() FROM store";
    let row = tx.query_typed_one(sql, &[]).await?;
    let (used, now): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let before = unused_for.map(|span| now.saturating_sub(signed(span.as_secs())));
    let mut over = unsigned(used).saturating_sub(most.unwrap_or(u64::MAX));
    let (mut blobs, mut since, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for row in oldest(&tx).await? {
        if over == 0 && before.is_none_or(|time| row.last_used >= time) {
            break;
        }
        over = over.saturating_sub(row.size);
        match row.what {
            Used::Blob(id) => {
                blobs.push(id);
                since.push(row.last_used);
            }
            Used::Record(row) => records.push(row),
        }
    }
    if blobs.is_empty() && records.is_empty() {
        return Ok(None);
    }
    let removed = remove(&tx, &blobs, &since, &records).await?;
    tx.commit().await?;
    Ok(Some(removed))
}

/// A blob's object is gone.
pub(super) async fn lost(client: &mut Client, id: BlobId, object: &str) -> Result<()> {
    let tx = client.transaction().await?;
    let sql = "SELECT last_used FROM blobs WHERE kind = $1 AND digest = $2 AND object = $3 FOR UPDATE";
    let (kind, digest) = (kind(id), id.as_bytes().as_slice());
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&kind, Type::INT2), (&digest, Type::BYTEA), (&object, Type::TEXT)];
    if let Some(row) = tx.query_typed_opt(sql, &params).await? {
        remove(&tx, &[id], &[row.try_get(0)?], &[]).await?;
    }
    Ok(tx.commit().await?)
}

pub(super) async fn touch(client: &mut Client, used: &[(Used, Duration)]) -> Result<()> {
    let (mut ids, mut blob_ages, mut rows, mut row_ages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (what, age) in used {
        match what {
            Used::Blob(id) => (ids.push(*id), blob_ages.push(signed(age.as_secs()))),
            Used::Record(row) => (rows.push(*row), row_ages.push(signed(age.as_secs()))),
        };
    }
    let (kinds, digests) = columns(&ids);
    let tx = client.transaction().await?;
    let sql = "UPDATE blobs b SET last_used = greatest(b.last_used, seconds() - u.age)
               FROM unnest($1::smallint[], $2::bytea[], $3::bigint[]) AS u (kind, digest, age)
               WHERE b.kind = u.kind AND b.digest = u.digest AND b.last_used < seconds() - u.age";
    tx.execute_typed(sql, &[(&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY), (&blob_ages, Type::INT8_ARRAY)])
        .await?;
    let sql = "UPDATE records r SET last_used = greatest(r.last_used, seconds() - u.age)
               FROM unnest($1::bigint[], $2::bigint[]) AS u (id, age)
               WHERE r.id = u.id AND r.last_used < seconds() - u.age";
    tx.execute_typed(sql, &[(&rows, Type::INT8_ARRAY), (&row_ages, Type::INT8_ARRAY)]).await?;
    Ok(tx.commit().await?)
}

/// What was not used for longest, first. Of what was used in the same second records go first: they name blobs.
async fn oldest(tx: &Transaction<'_>) -> Result<Vec<Oldest>> {
    let sql = "SELECT * FROM (
                   (SELECT kind, digest, NULL::bigint AS id, size, last_used FROM blobs ORDER BY last_used LIMIT $1)
                   UNION ALL
                   (SELECT (-1)::smallint, ''::bytea, id, size, last_used FROM records ORDER BY last_used LIMIT $1)
               ) o ORDER BY last_used, kind LIMIT $1";
    let rows = tx.query_typed(sql, &[(&AT_ONCE, Type::INT8)]).await?;
    let mut oldest = Vec::with_capacity(rows.len());
    for row in rows {
        let what = match row.try_get::<_, Option<i64>>(2)? {
            Some(id) => Used::Record(id),
            None => Used::Blob(blob_id(&row, 0)?),
        };
        oldest.push(Oldest { what, size: unsigned(row.try_get(3)?), last_used: row.try_get(4)? });
    }
    Ok(oldest)
}

/// Removes records, and blobs whose last use is still the one that was seen, with the records that name them.
async fn remove(tx: &Transaction<'_>, blobs: &[BlobId], since: &[i64], records: &[i64]) -> Result<Removed> {
    let (kinds, digests) = columns(blobs);
    // Waits for transactions that are naming these blobs; those that want to after this wait for us, and find them gone.
    let sql = "SELECT b.kind, b.digest, b.object, b.size FROM blobs b
               JOIN unnest($1::smallint[], $2::bytea[], $3::bigint[]) AS u (kind, digest, last_used)
                   USING (kind, digest, last_used)
               ORDER BY b.kind, b.digest FOR UPDATE OF b";
    let rows = tx
        .query_typed(sql, &[(&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY), (&since, Type::INT8_ARRAY)])
        .await?;
    let (mut kinds, mut digests, mut objects, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        kinds.push(row.try_get::<_, i16>(0)?);
        digests.push(row.try_get::<_, &[u8]>(1)?);
        objects.push(row.try_get::<_, &str>(2)?);
        sizes.push(row.try_get::<_, i64>(3)?);
    }
    // A statement of its own: it sees what the transactions waited for have named.
    let sql = "WITH gone AS (DELETE FROM records WHERE id = ANY($1) OR id IN
                   (SELECT record FROM names
                    WHERE (kind, digest) IN (SELECT * FROM unnest($2::smallint[], $3::bytea[])))
                   RETURNING size)
               SELECT count(*), coalesce(sum(size), 0)::bigint FROM gone";
    let row = tx
        .query_typed_one(
            sql,
            &[(&records, Type::INT8_ARRAY), (&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY)],
        )
        .await?;
    let (gone, freed): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let sql = "DELETE FROM blobs WHERE (kind, digest) IN (SELECT * FROM unnest($1::smallint[], $2::bytea[]))";
    tx.execute_typed(sql, &[(&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY)]).await?;
    let sql = "INSERT INTO garbage (object, size, settled)
               SELECT object, size, 0 FROM unnest($1::text[], $2::bigint[]) AS g (object, size)";
    tx.execute_typed(sql, &[(&objects, Type::TEXT_ARRAY), (&sizes, Type::INT8_ARRAY)]).await?;
    let count = rows.len() as u64;
    // Bytes of objects are free once these are deleted.
    account(tx, signed(count).saturating_neg(), gone.saturating_neg(), freed.saturating_neg(), 0).await?;
    let bytes = sizes.iter().fold(unsigned(freed), |sum, size| sum.saturating_add(unsigned(*size)));
    Ok(Removed { blobs: count, records: unsigned(gone), bytes })
}
