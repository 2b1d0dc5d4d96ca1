//! The SQLite index: opened when first needed, set aside when damaged, shared by many processes.
//!
//! WAL mode, `synchronous=NORMAL`: a commit is no fsync. After a power failure the last commits may be gone, or may be
//! there while the files they name are not; both are misses. Closing makes no checkpoint (it would cost a short build
//! an fsync); SQLite makes one by itself as the log grows, and it may not grow long: whoever opens the index first has to
//! read all of the log.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::{
    error::{Result, StoreError},
    layout::Layout,
    lock::FileLock,
};

pub(crate) const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        id INTEGER PRIMARY KEY,
        ns TEXT NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        refs BLOB NOT NULL,
        sum BLOB NOT NULL,
        used INTEGER NOT NULL,
        UNIQUE (ns, key)
    );
    CREATE TABLE IF NOT EXISTS tags (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        refs BLOB NOT NULL,
        sum BLOB NOT NULL
    );
    PRAGMA user_version = 1;
";
/// How long a process waits for another one's transaction, which takes milliseconds.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

/// The log's length, in pages of 4 KiB, at which a commit writes it back. Reading SQLite's own 1000 took 3 ms, a tenth of
/// a short command.
const LOG_PAGES: i64 = 200;

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    repair_lock: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// Inode of the file, to see whether another process has set it aside meanwhile.
    inode: u64,
}

impl Index {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { path: layout.index(), repair_lock: layout.lock("index-repair"), state: Mutex::default() }
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// Whether it was opened at all, so that closing has something to do.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).open.is_some()
    }

    /// Runs statements; `op` says what they do, for the error. If the index shows damage, and to another connection too,
    /// it is replaced by an empty one and they run once more.
    pub(crate) fn with<T>(&self, op: &'static str, run: impl Fn(&mut Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = |state: &mut State| -> rusqlite::Result<T> {
            let open = match &mut state.open {
                Some(open) => open,
                none => none.insert(self.open()?),
            };
            run(&mut open.connection)
        };
        let mut result = attempt(&mut state);
        if result.as_ref().is_err_and(is_damage) {
            // SQLite calls a read that failed so too (SQLITE_IOERR_CORRUPTFS), and the next one may succeed.
            let first = state.open.take();
            result = attempt(&mut state);
            // Names can be read by the one that was open if no other can be opened any more.
            state.open = state.open.take().or(first);
        }
        match result {
            Err(e) if is_damage(&e) => {
                self.set_aside(&mut state, e)?;
                attempt(&mut state).map_err(|e| self.error(op, e))
            }
            other => other.map_err(|e| self.error(op, e)),
        }
    }

    /// Opens the file. A new one is set up by one process alone: two that have both looked into it, and both want it
    /// for themselves, would not wait for each other, and SQLite fails one of them at once.
    fn open(&self) -> rusqlite::Result<Open> {
        let connection = connect(&self.path)?;
        if schema_version(&connection)? == 0 {
            // Without the lock it is still right, only not certain to work.
            let _lock = FileLock::take(&self.repair_lock, true, true);
            set_up(&connection)?;
        }
        opened(connection, &self.path)
    }

    /// What a failure of SQLite is to callers.
    pub(crate) fn error(&self, op: &'static str, source: rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                StoreError::NoSpace { op, path, source: io::Error::new(io::ErrorKind::StorageFull, source) }
            }
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                StoreError::Permission { op, path, source: io::Error::new(io::ErrorKind::PermissionDenied, source) }
            }
            _ if is_damage(&source) => StoreError::CorruptIndex { path, source },
            _ => StoreError::Index { op, path, source },
        }
    }

    /// Moves the damaged files away, keeping what tags can still be read: those are the user's.
    fn set_aside(&self, state: &mut State, cause: rusqlite::Error) -> Result<()> {
        let _lock = FileLock::take(&self.repair_lock, true, true)?;
        let inode = state.open.as_ref().map(|open| open.inode);
        if let (Some(opened), Ok(meta)) = (inode, fs::metadata(&self.path))
            && opened != meta.ino()
        {
            // Another process was first.
            state.open = None;
            return Ok(());
        }
        let tags = state.open.as_ref().map(|open| rescue_tags(&open.connection)).unwrap_or_default();
        state.open = None;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let aside = self.path.with_file_name(format!("index.corrupt-{now}"));
        if fs::rename(&self.path, &aside).is_err() {
            return Err(StoreError::CorruptIndex { path: self.path.clone(), source: cause });
        }
        for suffix in ["-wal", "-shm"] {
            let with = |path: &Path| PathBuf::from([path.as_os_str(), suffix.as_ref()].join("".as_ref()));
            let _ = fs::rename(with(&self.path), with(&aside));
        }
        state.warnings.push(format!(
            "the cache index was damaged ({cause}) and has been set aside as {}; {} tags were kept, all else is built anew",
            aside.display(),
            tags.len()
        ));
        let new = connect(&self.path).and_then(|new| set_up(&new).and_then(|()| opened(new, &self.path)));
        let open = state.open.insert(new.map_err(|e| self.error("open", e))?);
        for (name, value, refs, sum) in tags {
            let sql = "INSERT OR IGNORE INTO tags (name, value, refs, sum) VALUES (?1, ?2, ?3, ?4)";
            open.connection.execute(sql, (name, value, refs, sum)).map_err(|e| self.error("rebuild", e))?;
        }
        Ok(())
    }
}

/// A tag's row: name, value, references, checksum.
pub(crate) type RawTag = (String, Vec<u8>, Vec<u8>, Vec<u8>);

/// The tags that can be read of an index, whatever else is wrong with it.
pub(crate) fn rescue_tags(connection: &Connection) -> Vec<RawTag> {
    let read = || -> rusqlite::Result<Vec<RawTag>> {
        let mut statement = connection.prepare("SELECT name, value, refs, sum FROM tags")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        Ok(rows.map_while(std::result::Result::ok).collect())
    };
    read().unwrap_or_default()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// The version that the tables were made by; 0: none were made.
pub(crate) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the tables, unless another process has done so meanwhile.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    if schema_version(connection)? == 0 {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    }
    Ok(())
}

fn opened(connection: Connection, path: &Path) -> rusqlite::Result<Open> {
    let version = schema_version(&connection)?;
    if version != SCHEMA_VERSION {
        // Only a damaged header says so: formats change with the store's `format` file.
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        return Err(rusqlite::Error::SqliteFailure(code, Some(format!("unknown schema version {version}"))));
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    let inode = fs::metadata(path).map(|meta| meta.ino()).unwrap_or_default();
    Ok(Open { connection, inode })
}

/// Whether an error comes from what the file holds.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(e, message) => {
            matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                // A table that is gone though the version says that it was made.
                || message.as_deref().is_some_and(|m| m.starts_with("no such table") || m.starts_with("no such column"))
        }
        rusqlite::Error::SqlInputError { msg, .. } => {
            msg.starts_with("no such table") || msg.starts_with("no such column")
        }
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Store;

    /// How often work on a new index fails as if that were damaged; gives the names in its directory that tell of it.
    fn aside(failures: u32) -> (Result<()>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let left = Cell::new(failures);
        let result = store.index().with("try", |_| match left.get() {
            0 => Ok(()),
            more => {
                left.set(more - 1);
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                Err(rusqlite::Error::SqliteFailure(code, None))
            }
        });
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        (result, names.filter(|name| name.to_string_lossy().starts_with("index.corrupt-")).count())
    }

    #[test]
    fn an_index_is_set_aside_only_if_it_is_found_damaged_twice() {
        for (failures, asides) in [(0, 0), (1, 0)] {
            let (result, found) = aside(failures);
            assert!(result.is_ok());
            assert_eq!(found, asides);
        }
        let (result, found) = aside(2);
        assert!(result.is_ok());
        assert!(found > 0);
        assert!(matches!(aside(3).0, Err(StoreError::CorruptIndex { .. })));
    }
}
