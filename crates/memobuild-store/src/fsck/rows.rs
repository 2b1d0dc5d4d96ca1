//! The index, read and never written: whether it is a whole database, whether every row has its checksum, and whether
//! what the rows refer to is there.
//!
//! It is opened on its own and for reading: opened as a build does it, a damaged index would be set aside.

use std::{fs, path::Path};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, config::DbConfig};

use super::{
    look::{Check, Found, Subject, is_there, path_of, shown},
    report::Kind,
};
use crate::{
    Ref,
    error::Result,
    index::{BUSY, SCHEMA_VERSION, is_damage, schema_version},
    records::{TAG_NS, sum},
};

/// Faults of a database that are told of, at most.
const MAX_FAULTS: usize = 5;

/// A table with the columns that every check of a row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Records,
    Tags,
}

impl Table {
    /// All rows.
    fn select(self) -> &'static str {
        match self {
            Self::Records => "SELECT id, value, refs, sum, ns, key FROM records",
            Self::Tags => "SELECT rowid, value, refs, sum, name FROM tags",
        }
    }

    /// One row.
    pub(super) fn select_one(self) -> &'static str {
        match self {
            Self::Records => "SELECT id, value, refs, sum, ns, key FROM records WHERE id = ?1",
            Self::Tags => "SELECT rowid, value, refs, sum, name FROM tags WHERE rowid = ?1",
        }
    }

    pub(super) fn delete_one(self) -> &'static str {
        match self {
            Self::Records => "DELETE FROM records WHERE id = ?1",
            Self::Tags => "DELETE FROM tags WHERE rowid = ?1",
        }
    }
}

/// What is wrong with the index.
pub(super) fn scan(check: &Check<'_>) -> Result<Vec<Found>> {
    let attempt = || match open(&check.layout.index())? {
        Some(connection) => read(check, &connection),
        None => Ok(Vec::new()),
    };
    match attempt() {
        Err(e) if is_damage(&e) => Ok(vec![damaged(e.to_string())]),
        other => other.map_err(|e| check.index.error("read", e)),
    }
}

fn damaged(what: String) -> Found {
    Found::new(Subject::Index, Kind::DamagedIndex, what)
}

/// The same of an open one. Damage to the whole may also be an error.
pub(super) fn read(check: &Check<'_>, connection: &Connection) -> rusqlite::Result<Vec<Found>> {
    let faults = faults(connection)?;
    if !faults.is_empty() {
        return Ok(vec![damaged(faults.join("; "))]);
    }
    let mut found = Vec::new();
    for table in [Table::Records, Table::Tags] {
        let mut statement = connection.prepare(table.select())?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            check.progress.row();
            found.extend(wrong(check, table, row)?);
        }
    }
    Ok(found)
}

/// None: there is none yet, or one that nothing was written to.
fn open(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if fs::metadata(path).map_or(0, |meta| meta.len()) == 0 {
        return Ok(None);
    }
    let opened = match connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // Whoever made it was killed in the middle: what it left half done is taken back by the next who may write.
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        }
        other => other,
    };
    let (connection, version) = opened?;
    // Made, and left before there was a table in it.
    Ok((version != 0).then_some(connection))
}

/// A connection, and the version that its tables were made by.
fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<(Connection, i64)> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = schema_version(&connection)?;
    Ok((connection, version))
}

/// What SQLite itself finds wrong.
fn faults(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    match schema_version(connection)? {
        SCHEMA_VERSION => {}
        version => return Ok(vec![format!("unknown schema version {version}")]),
    }
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MAX_FAULTS})"))?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// What is wrong with a row.
pub(super) fn wrong(check: &Check<'_>, table: Table, row: &Row<'_>) -> rusqlite::Result<Option<Found>> {
    let id = row.get(0)?;
    let (value, bytes, stored): (Vec<u8>, Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let (subject, name, sum) = match table {
        Table::Records => {
            let (ns, key): (String, Vec<u8>) = (row.get(4)?, row.get(5)?);
            let hex: String = key.iter().take(6).map(|b| format!("{b:02x}")).collect();
            (Subject::Record(id), format!("record {ns}/{hex}"), sum(&ns, &key, &value, &bytes))
        }
        Table::Tags => {
            let name: String = row.get(4)?;
            let sum = sum(TAG_NS, name.as_bytes(), &value, &bytes);
            (Subject::Tag(id), format!("tag {name}"), sum)
        }
    };
    let (damaged, dangling) = match table {
        Table::Records => (Kind::DamagedRecord, Kind::DanglingRecord),
        Table::Tags => (Kind::DamagedTag, Kind::DanglingTag),
    };
    let found = |kind, what: String, lacks| Found { row: Some(name), lacks, ..Found::new(subject, kind, what) };
    if sum != stored {
        return Ok(Some(found(damaged, "it does not have its checksum".into(), Vec::new())));
    }
    let lacks: Vec<Ref> =
        Ref::decode_all(&bytes).into_iter().filter(|name| !is_there(&path_of(check.layout, name))).collect();
    let what = match lacks.as_slice() {
        [] => return Ok(None),
        [one] => format!("it refers to {}, which is not there", shown(one)),
        [first, rest @ ..] => format!("it refers to {} and {} more, which are not there", shown(first), rest.len()),
    };
    Ok(Some(found(dangling, what, lacks)))
}
