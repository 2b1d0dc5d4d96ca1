//! Builds that clients tell of: what is kept of each, and the trait of what keeps them.
//!
//! In: batches of events ([`Batch`]), as `memobuild build` sends them. Out: the state of each build and its steps, sums
//! over many, and what changed, for those who watch (`live.rs`). Called by the routes. What it never does: trust a client
//! about sizes, ids or the time. Times are this server's own; durations are the client's.
//!
//! Events are folded into rows by code that knows no database (`fold.rs`). [`SqliteBuilds`] keeps the rows of one server,
//! [`PostgresBuilds`] those of all that share a storage; what is the same in both is in `rows.rs`.

#[cfg(test)]
mod conformance;
mod event;
mod fold;
mod follow;
mod live;
mod model;
mod postgres;
mod rows;
mod sqlite;
mod text;

pub use event::{Batch, BatchError, Counted, Event, Outcome, PlannedStep};
pub(crate) use follow::follow;
pub(crate) use live::{Live, Watcher};
pub use model::{
    Analytics, Build, BuildId, BuildState, Change, Counts, Day, Detail, Layer, LayerUse, Output, Step, StepState,
    Totals,
};
pub(crate) use postgres::PostgresBuilds;
pub use sqlite::SqliteBuilds;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::storage::Result;

/// Keeps builds. The functions block, as those of [`crate::Storage`] do.
pub trait Builds: Send + Sync + 'static {
    /// Milliseconds since 1970, by the clock that all have who keep builds here: what the other functions take as `now`.
    fn now(&self) -> Result<i64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Takes events of a build, which begins with the first of them. `client`: the name of the token that sent them.
    /// `now`: milliseconds since 1970. Events that were taken before (by their number) change nothing.
    fn take(&self, batch: &Batch, client: &str, now: i64) -> Result<Change>;

    /// At most `most` builds, newest first; `before`: only those with a lower number than this.
    fn list(&self, before: Option<i64>, most: usize, now: i64) -> Result<Vec<Build>>;

    /// All that is known of one.
    fn get(&self, id: &BuildId, now: i64) -> Result<Option<Detail>>;

    /// The newest, for those who ask for no other.
    fn newest(&self) -> Result<Option<BuildId>>;

    /// Sums over the builds that began at this time (milliseconds since 1970) or later.
    fn analytics(&self, since: i64, now: i64) -> Result<Analytics>;

    /// The largest layers of the images that were built, the largest first.
    fn layers(&self, most: usize) -> Result<Vec<LayerUse>>;

    /// Removes what is older than [`Limits::age`], and the oldest builds where there are too many; gives how many.
    fn prune(&self, now: i64) -> Result<u64>;
}

/// What is kept of builds, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a build is kept after its last event.
    pub age: Duration,
    /// How many builds are kept.
    pub builds: u64,
    /// About how many bytes they may take together, logs included.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { age: Duration::from_secs(90 * 86_400), builds: 10_000, bytes: 1 << 30 }
    }
}

/// A build that is silent for this long, in milliseconds, counts as lost: clients send something every 15 seconds.
pub(crate) const LOST_AFTER: i64 = 90_000;

/// Bytes kept of a step's output: its end.
pub(crate) const STEP_LOG: usize = 64 << 10;

/// Bytes kept of the output of all steps of a build; the outputs that ended first go first.
pub(crate) const BUILD_LOG: u64 = 2 << 20;
