//! The database: rows of blobs and of records. All SQL is here.

use std::{collections::HashMap, path::Path, time::Duration};

use memobuild_tree::{ContentDigest, Sha256Digest};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params, types::Type};

use super::{Record, RecordPut, Result, Usage};
use crate::{
    BlobId, RecordKey,
    storage::rows::{Oldest, Removed, Table, Used, item_digest, kind, record_size, signed, unsigned},
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS blobs (
    kind INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, last_used INTEGER NOT NULL,
    PRIMARY KEY (kind, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_by_use ON blobs (last_used);
-- One row for a record, one for each item of a list. item: BLAKE3 of an item, empty for a record.
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, list INTEGER NOT NULL, namespace TEXT NOT NULL, key BLOB NOT NULL,
    item BLOB NOT NULL, value BLOB NOT NULL, size INTEGER NOT NULL, last_used INTEGER NOT NULL,
    UNIQUE (list, namespace, key, item)
);
CREATE INDEX IF NOT EXISTS records_by_use ON records (last_used);
CREATE TABLE IF NOT EXISTS names (
    record INTEGER NOT NULL REFERENCES records (id) ON DELETE CASCADE, place INTEGER NOT NULL,
    kind INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (record, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_by_blob ON names (kind, digest);
";

pub(super) struct Index {
    connection: Connection,
    /// Rows: counting them takes the longer the more there are.
    blobs: u64,
    records: u64,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power failure may take the last records: work, never truth.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.execute_batch(SCHEMA)?;
        let mut index = Self { connection, blobs: 0, records: 0 };
        let Usage { blobs, records, .. } = index.count()?;
        (index.blobs, index.records) = (blobs, records);
        Ok(index)
    }

    fn write(&mut self) -> Result<Transaction<'_>> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    pub(super) fn ready(&self) -> Result<()> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM blobs LIMIT 1")?.exists([]).map(drop)?)
    }

    /// How many rows there are; without their bytes.
    pub(super) fn usage(&self) -> Usage {
        Usage { blobs: self.blobs, records: self.records, ..Usage::default() }
    }

    /// Looks at all rows.
    pub(super) fn count(&self) -> Result<Usage> {
        let sum = |table: &str| {
            let sql = format!("SELECT count(*), coalesce(sum(size), 0) FROM {table}");
            self.connection.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        };
        let (blobs, records) = (sum("blobs")?, sum("records")?);
        let bytes = unsigned(blobs.1) + unsigned(records.1);
        Ok(Usage { blobs: unsigned(blobs.0), records: unsigned(records.0), bytes, max_bytes: None })
    }

    pub(super) fn blobs(&self) -> Result<HashMap<BlobId, u64>> {
        let mut statement = self.connection.prepare("SELECT kind, digest, size FROM blobs")?;
        let rows = statement.query_map([], |row| Ok((blob_id(row, 0)?, unsigned(row.get(2)?))))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether it is new.
    pub(super) fn add_blob(&mut self, id: BlobId, size: u64, now: i64) -> Result<bool> {
        let sql = "INSERT OR IGNORE INTO blobs (kind, digest, size, last_used) VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let added = statement.execute(params![kind(id), id.as_bytes(), signed(size), now])? > 0;
        drop(statement);
        self.blobs += u64::from(added);
        Ok(added)
    }

    /// Whether there is a row for this blob.
    pub(super) fn has_blob(&self, id: BlobId) -> Result<bool> {
        Ok(missing(&self.connection, &[id])?.is_empty())
    }

    pub(super) fn remove_blobs(&mut self, ids: impl Iterator<Item = BlobId>) -> Result<()> {
        let tx = self.write()?;
        let mut removed = Removed::default();
        for id in ids {
            removed.add(&remove_blob(&tx, id)?);
        }
        tx.commit()?;
        self.forget(&removed);
        Ok(())
    }

    /// Rows under this key with their numbers, newest first.
    pub(super) fn select(&self, table: Table, key: &RecordKey, most: usize) -> Result<Vec<(i64, Record)>> {
        select(&self.connection, table, key, most)
    }

    /// Puts in a record that is the first under its key, or an item of a list.
    pub(super) fn insert(&mut self, table: Table, key: &RecordKey, record: &Record, now: i64) -> Result<RecordPut> {
        let tx = self.write()?;
        if table == Table::Records
            && let Some((_, first)) = select(&tx, table, key, 1)?.pop()
        {
            return Ok(RecordPut::Existing(first));
        }
        let missing = missing(&tx, &record.blobs)?;
        if !missing.is_empty() {
            return Ok(RecordPut::Missing(missing));
        }
        let item = if table == Table::Lists { item_digest(record).to_vec() } else { Vec::new() };
        let place = params![table as i64, key.namespace(), key.key(), item];
        // The number of a row says how new an item is: an equal one goes, so that it comes back as the newest.
        let sql = "DELETE FROM records WHERE list = ?1 AND namespace = ?2 AND key = ?3 AND item = ?4";
        let replaced = tx.prepare_cached(sql)?.execute(place)? > 0;
        let sql = "INSERT INTO records (list, namespace, key, item, value, size, last_used)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let size = signed(record_size(record));
        tx.prepare_cached(sql)?.execute(params![
            table as i64,
            key.namespace(),
            key.key(),
            item,
            record.value,
            size,
            now
        ])?;
        let row = tx.last_insert_rowid();
        let mut name = tx.prepare_cached("INSERT INTO names (record, place, kind, digest) VALUES (?1, ?2, ?3, ?4)")?;
        for (place, id) in (0i64..).zip(&record.blobs) {
            name.execute(params![row, place, kind(*id), id.as_bytes()])?;
        }
        drop(name);
        tx.commit()?;
        // An equal item that was there had its room already.
        self.records += u64::from(!replaced);
        Ok(if replaced { RecordPut::Existing(record.clone()) } else { RecordPut::Stored })
    }

    /// Removes all but the newest items of a list; gives the bytes that they took.
    pub(super) fn shorten(&mut self, key: &RecordKey, most: usize) -> Result<u64> {
        let tx = self.write()?;
        let sql = "SELECT id FROM records WHERE list = ?1 AND namespace = ?2 AND key = ?3
                   ORDER BY id DESC LIMIT -1 OFFSET ?4";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<i64> = tx
            .prepare_cached(sql)?
            .query_map(params![Table::Lists as i64, key.namespace(), key.key(), most], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut removed = Removed::default();
        for row in rows {
            removed.add(&remove_record(&tx, row)?);
        }
        tx.commit()?;
        self.forget(&removed);
        Ok(removed.bytes)
    }

    pub(super) fn touch(&mut self, used: &HashMap<Used, i64>) -> Result<()> {
        let tx = self.write()?;
        let mut blob = tx.prepare_cached("UPDATE blobs SET last_used = ?1 WHERE kind = ?2 AND digest = ?3")?;
        let mut record = tx.prepare_cached("UPDATE records SET last_used = ?1 WHERE id = ?2")?;
        for (what, time) in used {
            match what {
                Used::Blob(id) => blob.execute(params![time, kind(*id), id.as_bytes()])?,
                Used::Record(row) => record.execute(params![time, row])?,
            };
        }
        drop((blob, record));
        Ok(tx.commit()?)
    }

    /// What was not used for longest, first. Of what was used in the same second records go first: they name blobs.
    pub(super) fn oldest(&self, most: usize) -> Result<Vec<Oldest>> {
        let sql = "SELECT * FROM (SELECT kind, digest, size, last_used FROM blobs ORDER BY last_used LIMIT ?1)
                   UNION ALL
                   SELECT * FROM (SELECT -1, id, size, last_used FROM records ORDER BY last_used LIMIT ?1)
                   ORDER BY 4, 1 LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
            let what = if row.get::<_, i64>(0)? < 0 { Used::Record(row.get(1)?) } else { Used::Blob(blob_id(row, 0)?) };
            Ok(Oldest { what, size: unsigned(row.get(2)?), last_used: row.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Removes rows, and the records that name the blobs among them.
    pub(super) fn remove(&mut self, rows: &[Oldest]) -> Result<Removed> {
        let tx = self.write()?;
        let mut removed = Removed::default();
        for row in rows {
            removed.add(&match row.what {
                Used::Blob(id) => remove_blob(&tx, id)?,
                // It may have gone with a blob.
                Used::Record(id) => remove_record(&tx, id)?,
            });
        }
        tx.commit()?;
        self.forget(&removed);
        Ok(removed)
    }

    fn forget(&mut self, removed: &Removed) {
        self.blobs = self.blobs.saturating_sub(removed.blobs);
        self.records = self.records.saturating_sub(removed.records);
    }
}

/// Removes a blob's row and the records that name it.
fn remove_blob(tx: &Transaction<'_>, id: BlobId) -> Result<Removed> {
    let sql = "SELECT DISTINCT record FROM names WHERE kind = ?1 AND digest = ?2";
    let rows: Vec<i64> = tx
        .prepare_cached(sql)?
        .query_map(params![kind(id), id.as_bytes()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut removed = Removed::default();
    for row in rows {
        removed.add(&remove_record(tx, row)?);
    }
    let sql = "DELETE FROM blobs WHERE kind = ?1 AND digest = ?2 RETURNING size";
    let size = tx.prepare_cached(sql)?.query_row(params![kind(id), id.as_bytes()], |row| row.get(0)).optional()?;
    if let Some(size) = size {
        removed.add(&Removed { blobs: 1, records: 0, bytes: unsigned(size) });
    }
    Ok(removed)
}

/// Removes a record's row, if it is there.
fn remove_record(tx: &Transaction<'_>, row: i64) -> Result<Removed> {
    let mut statement = tx.prepare_cached("DELETE FROM records WHERE id = ?1 RETURNING size")?;
    let size = statement.query_row([row], |row| row.get(0)).optional()?;
    Ok(size.map_or_else(Removed::default, |size| Removed { blobs: 0, records: 1, bytes: unsigned(size) }))
}

fn select(connection: &Connection, table: Table, key: &RecordKey, most: usize) -> Result<Vec<(i64, Record)>> {
    let sql = "SELECT id, value FROM records WHERE list = ?1 AND namespace = ?2 AND key = ?3 ORDER BY id DESC LIMIT ?4";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows: Vec<(i64, Vec<u8>)> = connection
        .prepare_cached(sql)?
        .query_map(params![table as i64, key.namespace(), key.key(), most], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut names = connection.prepare_cached("SELECT kind, digest FROM names WHERE record = ?1 ORDER BY place")?;
    rows.into_iter()
        .map(|(row, value)| {
            let blobs = names.query_map([row], |row| blob_id(row, 0))?.collect::<rusqlite::Result<_>>()?;
            Ok((row, Record { value, blobs }))
        })
        .collect()
}

fn missing(connection: &Connection, ids: &[BlobId]) -> Result<Vec<BlobId>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blobs WHERE kind = ?1 AND digest = ?2")?;
    let mut missing = Vec::new();
    for id in ids {
        if !statement.exists(params![kind(*id), id.as_bytes()])? {
            missing.push(*id);
        }
    }
    Ok(missing)
}

/// The blob of two columns, kind and digest.
fn blob_id(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<BlobId> {
    let digest: [u8; 32] = row.get(at + 1)?;
    match row.get::<_, i64>(at)? {
        0 => Ok(BlobId::Content(ContentDigest::from_bytes(digest))),
        1 => Ok(BlobId::Layer(Sha256Digest::from_bytes(digest))),
        other => Err(rusqlite::Error::FromSqlConversionFailure(at, Type::Integer, format!("kind {other}").into())),
    }
}
