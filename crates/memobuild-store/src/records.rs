//! Records and tags: small values by key, with the names of what they keep alive.
//!
//! Each row carries a checksum of itself, since SQLite has none and a changed bit could be a wrong cache hit.

use std::time::{SystemTime, UNIX_EPOCH};

use memobuild_tree::{KeyDigest, KeyHasher};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::{Ref, Store, error::Result, index::Index};

/// Last-use times are written only when they are this old, in seconds: a build that only reads should not write.
const USED_GRANULARITY: i64 = 3600;

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// The checksum of a row.
pub(crate) fn sum(ns: &str, key: &[u8], value: &[u8], refs: &[u8]) -> Vec<u8> {
    let mut h = KeyHasher::new("memobuild.store.row.v1");
    h.value(ns).bytes(key).bytes(value).bytes(refs);
    h.finish_bytes().first_chunk::<16>().map(|c| c.to_vec()).unwrap_or_default()
}

/// One row as GC and the check see it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) used: i64,
    pub(crate) refs: Vec<Ref>,
    pub(crate) whole: bool,
}

/// What stands for the namespace in the checksum of a tag.
pub(crate) const TAG_NS: &str = "\0tag";

impl Store {
    /// The record of that key, here or upstream. Reading it leases what it refers to.
    pub fn record_get(&self, ns: &str, key: &KeyDigest) -> Result<Option<Vec<u8>>> {
        Ok(self.record_here(ns, key)?.or_else(|| self.record_upstream(ns, key)))
    }

    /// The record of that key in this store alone.
    pub fn record_here(&self, ns: &str, key: &KeyDigest) -> Result<Option<Vec<u8>>> {
        type Found = (i64, Vec<u8>, Vec<u8>, Vec<u8>, i64);
        let found: Option<Found> = self.index().with("read", |c| {
            c.prepare_cached("SELECT id, value, refs, sum, used FROM records WHERE ns = ?1 AND key = ?2")?
                .query_row((ns, key.as_bytes()), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))
                .optional()
        })?;
        let Some((id, value, refs, stored, used)) = found else { return Ok(None) };
        if stored != sum(ns, key.as_bytes(), &value, &refs) {
            // Damaged: a miss, to be written anew.
            self.record_delete(ns, key)?;
            return Ok(None);
        }
        self.process_lease().touch(&Ref::decode_all(&refs))?;
        if now() - used > USED_GRANULARITY {
            self.note_used(id);
        }
        Ok(Some(value))
    }

    /// Writes a record, replacing one that is there. `refs` is what the record keeps alive: everything in the store
    /// that its bytes name.
    pub fn record_put(&self, ns: &str, key: &KeyDigest, value: &[u8], refs: &[Ref]) -> Result<()> {
        let sql = "INSERT INTO records (ns, key, value, refs, sum, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (ns, key) DO UPDATE SET value = ?3, refs = ?4, sum = ?5, used = ?6";
        self.write_record(sql, ns, key, value, refs).map(|_| ())
    }

    /// Writes a record unless there is one; says whether it did.
    pub fn record_put_new(&self, ns: &str, key: &KeyDigest, value: &[u8], refs: &[Ref]) -> Result<bool> {
        let sql = "INSERT INTO records (ns, key, value, refs, sum, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (ns, key) DO NOTHING";
        self.write_record(sql, ns, key, value, refs)
    }

    fn write_record(&self, sql: &str, ns: &str, key: &KeyDigest, value: &[u8], refs: &[Ref]) -> Result<bool> {
        let refs = Ref::encode_all(refs);
        let sum = sum(ns, key.as_bytes(), value, &refs);
        self.index()
            .with("write", |c| Ok(c.prepare_cached(sql)?.execute((ns, key.as_bytes(), value, &refs, &sum, now()))? > 0))
    }

    /// The keys of all records in a namespace, in order.
    pub fn record_list(&self, ns: &str) -> Result<Vec<KeyDigest>> {
        self.index().with("read", |c| {
            let mut statement = c.prepare_cached("SELECT key FROM records WHERE ns = ?1 ORDER BY key")?;
            let rows = statement.query_map([ns], |row| row.get::<_, [u8; 32]>(0))?;
            rows.map(|row| row.map(KeyDigest::from_bytes)).collect()
        })
    }

    /// Removes a record; says whether there was one.
    pub fn record_delete(&self, ns: &str, key: &KeyDigest) -> Result<bool> {
        self.index().with("write", |c| {
            Ok(c.prepare_cached("DELETE FROM records WHERE ns = ?1 AND key = ?2")?.execute((ns, key.as_bytes()))? > 0)
        })
    }

    /// Gives a name to a value. What tags refer to is never collected.
    pub fn tag_set(&self, name: &str, value: &[u8], refs: &[Ref]) -> Result<()> {
        let refs = Ref::encode_all(refs);
        let sum = sum(TAG_NS, name.as_bytes(), value, &refs);
        let sql = "INSERT INTO tags (name, value, refs, sum) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (name) DO UPDATE SET value = ?2, refs = ?3, sum = ?4";
        self.index().with("write", |c| c.prepare_cached(sql)?.execute((name, value, &refs, &sum)).map(|_| ()))
    }

    /// The value of a name. Reading it leases what it refers to.
    pub fn tag_get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found: Option<(Vec<u8>, Vec<u8>, Vec<u8>)> = self.index().with("read", |c| {
            c.prepare_cached("SELECT value, refs, sum FROM tags WHERE name = ?1")?
                .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        let whole =
            |(value, refs, stored): &(Vec<u8>, Vec<u8>, Vec<u8>)| *stored == sum(TAG_NS, name.as_bytes(), value, refs);
        let Some((value, refs, _)) = found.filter(whole) else { return Ok(None) };
        self.process_lease().touch(&Ref::decode_all(&refs))?;
        Ok(Some(value))
    }

    /// All names with their values, in order.
    pub fn tags(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.index().with("read", |c| {
            let mut statement = c.prepare_cached("SELECT name, value, refs, sum FROM tags ORDER BY name")?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (name, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
                if row.get::<_, Vec<u8>>(3)? == sum(TAG_NS, name.as_bytes(), &value, &row.get::<_, Vec<u8>>(2)?) {
                    out.push((name, value));
                }
            }
            Ok(out)
        })
    }

    /// Takes a name away; says whether it was there.
    pub fn tag_remove(&self, name: &str) -> Result<bool> {
        self.index().with("write", |c| Ok(c.prepare_cached("DELETE FROM tags WHERE name = ?1")?.execute([name])? > 0))
    }

    /// Writes the last-use times gathered so far, in one transaction. Also done when the last handle is dropped.
    pub fn flush(&self) -> Result<()> {
        let ids = self.take_used();
        if ids.is_empty() { Ok(()) } else { write_used(self.index(), &ids) }
    }

    /// All records, least recently used first.
    pub(crate) fn record_rows(&self) -> Result<Vec<Row>> {
        self.index().with("read", |c| {
            let mut statement =
                c.prepare("SELECT id, ns, key, value, refs, sum, used FROM records ORDER BY used, id")?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (ns, key): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
                let (value, refs): (Vec<u8>, Vec<u8>) = (row.get(3)?, row.get(4)?);
                let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
                out.push(Row {
                    id: row.get(0)?,
                    whole: row.get::<_, Vec<u8>>(5)? == sum(&ns, &key, &value, &refs),
                    name: format!("{ns}/{hex}"),
                    used: row.get(6)?,
                    refs: Ref::decode_all(&refs),
                });
            }
            Ok(out)
        })
    }

    /// All tags.
    pub(crate) fn tag_rows(&self) -> Result<Vec<Row>> {
        self.index().with("read", |c| {
            let mut statement = c.prepare("SELECT rowid, name, value, refs, sum FROM tags ORDER BY name")?;
            let mut rows = statement.query([])?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let (name, value, refs): (String, Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?, row.get(3)?);
                out.push(Row {
                    id: row.get(0)?,
                    whole: row.get::<_, Vec<u8>>(4)? == sum(TAG_NS, name.as_bytes(), &value, &refs),
                    name,
                    used: now(),
                    refs: Ref::decode_all(&refs),
                });
            }
            Ok(out)
        })
    }

    /// Removes records by row, unless they were written or used again since they were listed.
    pub(crate) fn remove_rows(&self, rows: &[&Row]) -> Result<()> {
        self.index().with("write", |c: &mut Connection| {
            let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for row in rows {
                transaction
                    .prepare_cached("DELETE FROM records WHERE id = ?1 AND used = ?2")?
                    .execute((row.id, row.used))?;
            }
            transaction.commit()
        })
    }
}

/// Sets the last use of these rows to now.
pub(crate) fn write_used(index: &Index, ids: &[i64]) -> Result<()> {
    index.with("write", |c| {
        let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in ids {
            transaction.prepare_cached("UPDATE records SET used = ?2 WHERE id = ?1")?.execute((id, now()))?;
        }
        transaction.commit()
    })
}
