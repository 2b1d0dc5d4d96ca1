//! Rows of blobs and records in PostgreSQL, shared by any number of servers.
//!
//! What must hold whatever several servers do at once is held by the database: a record's names refer to blobs (a foreign
//! key), the first record of a key is the one whose row could be made (a unique index), and the bytes in use are one row
//! that each transaction changes last, within the cap. A deadlock between two of them is noticed by the database, which
//! ends one: that one is done again.

mod address;
mod collect;
mod database;
mod pool;
mod records;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod uploads;

use std::{collections::HashMap, time::Duration};

pub(crate) use database::Database;
use memobuild_tree::{ContentDigest, Sha256Digest};
use tokio_postgres::{Client, Row, Transaction, types::Type};

use super::{
    Committed, Record, RecordPut, Result, StorageError, Usage,
    rows::{Removed, Table, Used, kind, signed, unsigned},
    shared::metadata::{Begun, Metadata, Place},
};
use crate::{BlobId, RecordKey};

/// How long the database may take to say that it answers.
const READY_LIMIT: Duration = Duration::from_secs(3);

/// Rows of blobs and records in PostgreSQL.
pub(super) struct Postgres {
    database: Database,
    max_bytes: Option<u64>,
    identity: String,
}

impl Postgres {
    pub(super) fn open(database: Database, max_bytes: Option<u64>) -> Result<Self> {
        let identity = database
            .run(async |client| Ok(client.query_typed_one("SELECT identity FROM store", &[]).await?.try_get(0)?))?;
        Ok(Self { database, max_bytes, identity })
    }

    fn run<T>(&self, work: impl AsyncFn(&mut Client) -> Result<T>) -> Result<T> {
        self.database.run(work)
    }

    /// The cap as a parameter.
    fn most(&self) -> i64 {
        self.max_bytes.map_or(i64::MAX, signed)
    }
}

impl Metadata for Postgres {
    fn identity(&self) -> Result<String> {
        Ok(self.identity.clone())
    }

    fn find(&self, ids: &[BlobId]) -> Result<HashMap<BlobId, Place>> {
        let (kinds, digests) = columns(ids);
        let rows = self.run(async |client| {
            let sql = "SELECT kind, digest, object, size FROM blobs
                       WHERE (kind, digest) IN (SELECT * FROM unnest($1::smallint[], $2::bytea[]))";
            Ok(client.query_typed(sql, &[(&kinds, Type::INT2_ARRAY), (&digests, Type::BYTEA_ARRAY)]).await?)
        })?;
        rows.iter()
            .map(|row| {
                let place = Place { object: row.try_get(2)?, size: unsigned(row.try_get(3)?) };
                Ok((blob_id(row, 0)?, place))
            })
            .collect()
    }

    fn begin(&self, id: BlobId, size: u64, lease: Duration) -> Result<Begun> {
        self.run(async |client| uploads::begin(client, id, size, lease, self.most()).await)
    }

    fn finish(&self, id: BlobId, object: &str) -> Result<Option<Committed>> {
        self.run(async |client| uploads::finish(client, id, object).await)
    }

    fn abandon(&self, object: &str) -> Result<()> {
        self.run(async |client| uploads::abandon(client, object).await)
    }

    fn lost(&self, id: BlobId, object: &str) -> Result<()> {
        self.run(async |client| collect::lost(client, id, object).await)
    }

    fn select(&self, table: Table, key: &RecordKey) -> Result<Vec<(i64, Record)>> {
        self.run(async |client| records::select(client, table, key).await)
    }

    fn insert(&self, table: Table, key: &RecordKey, record: &Record, keep: usize) -> Result<Option<RecordPut>> {
        self.run(async |client| records::insert(client, table, key, record, keep, self.most()).await)
    }

    fn touch(&self, used: &[(Used, Duration)]) -> Result<()> {
        self.run(async |client| collect::touch(client, used).await)
    }

    fn collect(&self, unused_for: Option<Duration>, most: Option<u64>) -> Result<Option<Removed>> {
        self.run(async |client| collect::collect(client, unused_for, most).await)
    }

    fn garbage(&self) -> Result<Vec<String>> {
        self.run(uploads::garbage)
    }

    fn forget(&self, objects: &[String]) -> Result<()> {
        self.run(async |client| uploads::forget(client, objects).await)
    }

    fn usage(&self) -> Result<Usage> {
        let row = self
            .run(async |client| Ok(client.query_typed_one("SELECT blobs, records, bytes FROM store", &[]).await?))?;
        Ok(Usage {
            blobs: unsigned(row.try_get(0)?),
            records: unsigned(row.try_get(1)?),
            bytes: unsigned(row.try_get(2)?),
            max_bytes: self.max_bytes,
        })
    }

    fn ready(&self) -> Result<()> {
        self.database.run_within(READY_LIMIT, async |client| {
            Ok(client.query_typed("SELECT 1 FROM blobs LIMIT 1", &[]).await.map(drop)?)
        })
    }
}

/// The two columns of blobs as parameters.
fn columns(ids: &[BlobId]) -> (Vec<i16>, Vec<&[u8]>) {
    ids.iter().map(|id| (kind(*id), id.as_bytes().as_slice())).unzip()
}

/// The blob of two columns, kind and digest.
fn blob_id(row: &Row, at: usize) -> Result<BlobId> {
    let kind: i16 = row.try_get(at)?;
    let digest: &[u8] = row.try_get(at + 1)?;
    match (kind, <[u8; 32]>::try_from(digest)) {
        (0, Ok(digest)) => Ok(BlobId::Content(ContentDigest::from_bytes(digest))),
        (1, Ok(digest)) => Ok(BlobId::Layer(Sha256Digest::from_bytes(digest))),
        _ => Err(StorageError::Mismatch(format!("the database has a blob of kind {kind} that is none"))),
    }
}

/// Adds to what is in use; whether that is within `most`, which is not looked at where nothing grows. The last statement of
/// a transaction: all others wait for it from here on.
async fn account(tx: &Transaction<'_>, blobs: i64, records: i64, bytes: i64, most: i64) -> Result<bool> {
    let sql = "UPDATE store SET blobs = blobs + $1, records = records + $2, bytes = bytes + $3
               WHERE $3 <= 0 OR bytes + $3 <= $4";
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] =
        [(&blobs, Type::INT8), (&records, Type::INT8), (&bytes, Type::INT8), (&most, Type::INT8)];
    Ok(tx.execute_typed(sql, &params).await? > 0)
}
