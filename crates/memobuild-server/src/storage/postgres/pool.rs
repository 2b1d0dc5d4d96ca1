//! Connections to PostgreSQL: kept while they are good, made anew when the database was away.

use std::{
    error::Error as _,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::AbortHandle,
};
use tokio_postgres::{Client, Error, error::SqlState};

use super::address::Address;
use crate::storage::{Result, StorageError};

/// Connections of one server at most. PostgreSQL allows 100 of all its clients unless told otherwise.
const MOST: usize = 16;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How often work is tried that another transaction stood in the way of.
const TRIES: usize = 8;

/// For this session. A statement or a transaction that a server gave up must not hold locks for long.
const SESSION: &str = "
SET search_path = memobuild;
SET statement_timeout = '10s';
SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '10s';
";

/// What the database is called where it does not answer.
pub(super) const WHAT: &str = "the database";

pub(super) struct Pool {
    address: Address,
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
}

struct Connection {
    client: Client,
    /// Moves its bytes.
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The server may never answer what was asked last.
        self.task.abort();
    }
}

/// A connection that is in use. It is kept for the next one only by [`Lease::give_back`]: given up in the middle of
/// something it must not be used again.
struct Lease<'a> {
    pool: &'a Pool,
    connection: Connection,
    _slot: SemaphorePermit<'a>,
}

impl Lease<'_> {
    fn give_back(self) {
        if !self.connection.client.is_closed() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
        }
    }
}

impl Pool {
    pub(super) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, idle: Mutex::default(), slots: Semaphore::new(MOST) })
    }

    /// Does this on a connection; again if another transaction stood in its way, so it must do nothing but talk to the
    /// database.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if the database can't be reached or is too busy, [`StorageError::Postgres`] if it
    /// refuses.
    pub(super) async fn run<T>(&self, work: impl AsyncFn(&mut Client) -> Result<T>) -> Result<T> {
        let mut lease = self.lease().await?;
        let mut tries = 1;
        loop {
            match work(&mut lease.connection.client).await {
                Ok(value) => {
                    lease.give_back();
                    return Ok(value);
                }
                Err(StorageError::Postgres(error)) if tries < TRIES && in_the_way(&error) => {
                    tries += 1;
                    // Not all that met there should meet again.
                    tokio::time::sleep(Duration::from_millis(5 * tries as u64)).await;
                }
                Err(error) => {
                    lease.give_back();
                    return Err(match error {
                        StorageError::Postgres(error) => failure(error),
                        other => other,
                    });
                }
            }
        }
    }

    async fn lease(&self) -> Result<Lease<'_>> {
        // Never closed.
        let slot = self.slots.acquire().await.map_err(unavailable)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(connection) if connection.client.is_closed() => {}
                Some(connection) => return Ok(Lease { pool: self, connection, _slot: slot }),
                None => return Ok(Lease { pool: self, connection: self.connect().await?, _slot: slot }),
            }
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let connect = async {
            let (client, driver) = self.address.connect().await?;
            let connection = Connection { client, task: tokio::spawn(driver).abort_handle() };
            connection.client.batch_execute(SESSION).await?;
            Ok::<_, Error>(connection)
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(result) => result.map_err(failure),
            Err(_) => Err(unavailable(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

/// Whether it failed because of what else was going on, and would not if done again.
fn in_the_way(error: &Error) -> bool {
    matches!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE))
}

/// What is away and comes back, apart from what is refused.
fn failure(error: Error) -> StorageError {
    let Some(code) = error.code() else {
        // Of the connection, if there is an error of the system below it: none of its bytes arrived.
        let lost = error.is_closed() || error.source().is_some_and(|e| e.is::<io::Error>());
        return if lost { unavailable(error) } else { StorageError::Postgres(error) };
    };
    // Classes: connection exception, insufficient resources, operator intervention (57P01: it is being stopped), and
    // locks that were waited for too long. https://www.postgresql.org/docs/current/errcodes-appendix.html
    let away = ["08", "53", "57"].iter().any(|class| code.code().starts_with(class));
    if away
        || in_the_way(&error)
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
    {
        unavailable(error)
    } else {
        StorageError::Postgres(error)
    }
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::Unavailable { what: WHAT, source: error.into() }
}
