//! The database itself, for all that servers keep there: rows of blobs and records (`super`), and builds
//! (`crate::builds`).

use std::{sync::Arc, time::Duration};

use tokio_postgres::Client;

use super::{
    address::Address,
    pool::{self, Pool},
    schema,
};
use crate::storage::{Result, StorageError, waiting::Waiting};

/// How long the database may take for what a request needs. More than its own limits, which end statements there too.
const LIMIT: Duration = Duration::from_secs(15);

/// How long bringing the tables to this version may take, waiting for another server that does it included.
const MIGRATION_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A PostgreSQL with tables of this program's version. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Arc<Pool>,
    waiting: Waiting,
}

impl Database {
    /// Connects, and makes the tables or brings them to this version.
    pub(in crate::storage) fn open(url: &str, waiting: Waiting) -> Result<Self> {
        let pool = Pool::new(Address::parse(url)?);
        waiting.wait(MIGRATION_LIMIT, pool::WHAT, async {
            if let Some(found) = pool.run(schema::migrate).await? {
                let found = format!("the database's tables have version {found}");
                return Err(StorageError::Mismatch(format!("{found}, this program knows {}", schema::VERSION)));
            }
            Ok(())
        })?;
        Ok(Self { pool, waiting })
    }

    /// With threads of its own.
    #[cfg(test)]
    pub(crate) fn connect(url: &str) -> Result<Self> {
        Self::open(url, Waiting::new()?)
    }

    /// Does this on a connection, which is waited for; again if another transaction stood in its way, so it must do
    /// nothing but talk to the database.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the database can't be reached, is too busy or takes too long;
    /// [`StorageError::Postgres`] if it refuses.
    pub(crate) fn run<T>(&self, work: impl AsyncFn(&mut Client) -> Result<T>) -> Result<T> {
        self.run_within(LIMIT, work)
    }

    pub(super) fn run_within<T>(&self, limit: Duration, work: impl AsyncFn(&mut Client) -> Result<T>) -> Result<T> {
        self.waiting.wait(limit, pool::WHAT, self.pool.run(work))
    }
}
