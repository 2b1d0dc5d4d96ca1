//! `rpmdb.sqlite`: a table `Packages` with the headers in its column `blob` (rpm 4.16 and later).

use std::io::Cursor;

use rusqlite::{Connection, MAIN_DB, config::DbConfig};

/// The headers, in the order of their numbers.
pub(crate) fn headers(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    read(bytes).map_err(|e| e.to_string())
}

fn read(bytes: &[u8]) -> rusqlite::Result<Vec<Vec<u8>>> {
    let mut bytes = bytes.to_vec();
    // A database in memory has no write-ahead log; without this it would not open (SQLite's fileformat2, 1.3.3).
    for version in bytes.iter_mut().skip(18).take(2) {
        *version = 1;
    }
    let mut db = Connection::open_in_memory()?;
    let len = bytes.len();
    db.deserialize_read_exact(MAIN_DB, Cursor::new(bytes), len, true)?;
    // The file comes from an image: nothing in its schema is to be run.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    let mut rows = db.prepare("SELECT blob FROM Packages ORDER BY hnum")?;
    rows.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str, blob: &[u8]) -> Vec<u8> {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        db.execute("INSERT INTO Packages(blob) VALUES(?)", [blob]).unwrap();
        let mut db = db;
        db.serialize(MAIN_DB).unwrap().to_vec()
    }

    const SCHEMA: &str = "CREATE TABLE Packages(hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)";

    #[test]
    fn blobs_are_read_whatever_the_journal_was() {
        let mut bytes = database(SCHEMA, b"header");
        assert_eq!(headers(&bytes).unwrap(), [b"header"]);
        bytes[18..20].fill(2);
        assert_eq!(headers(&bytes).unwrap(), [b"header"]);
    }

    #[test]
    fn damage_and_views_are_errors() {
        assert!(headers(b"").is_err());
        assert!(headers(b"rubbish").is_err());
        let whole = database(SCHEMA, &[7; 100_000]);
        assert!(headers(whole.get(..whole.len() / 2).unwrap()).is_err());
        let view = "CREATE TABLE t(blob, hnum); CREATE VIEW Packages AS SELECT * FROM t;
            CREATE TRIGGER i INSTEAD OF INSERT ON Packages BEGIN INSERT INTO t VALUES(new.blob, 1); END";
        assert!(headers(&database(view, b"x")).is_err());
    }
}
