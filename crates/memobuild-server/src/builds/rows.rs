//! What rows of builds are, whatever database keeps them: their columns, how lists stand in them, what outputs are cut to.

use std::collections::BTreeMap;

use tokio_postgres::types::FromSql;

use super::{
    Analytics, Build, BuildId, BuildState, Counts, Day, LOST_AFTER, Layer, LayerUse, Limits, Output, STEP_LOG, Step,
    StepState, Totals, fold::Fold, text,
};
use crate::storage::{Result, StorageError, unsigned};

/// The columns of a build, in the order in which [`build`] reads them.
pub(super) const BUILD: &str = "number, id, name, client, state, started, updated, duration_ms, total, ended, running,
    cached, executed, failed, saved_ms, error, sandbox, warnings, next";

/// How many these are.
pub(super) const BUILD_COLUMNS: usize = 19;

/// The columns of a step, in the order in which [`step`] reads them.
pub(super) const STEP: &str =
    "step, label, stage, line, inputs, state, reason, again, began, duration_ms, saved_ms, message";

/// How many these are.
pub(super) const STEP_COLUMNS: usize = 12;

/// Builds that begin between two looks at what is too old or too much.
pub(super) const PRUNE_EVERY: u32 = 50;

/// What is sent to those who watch of an output that grew, in bytes.
pub(super) const LIVE_TAIL: usize = 16 << 10;

/// What either database has in a column.
pub(super) trait Value: rusqlite::types::FromSql + for<'a> FromSql<'a> {}

impl<T: rusqlite::types::FromSql + for<'a> FromSql<'a>> Value for T {}

/// A row of either database.
pub(super) trait Row {
    fn value<T: Value>(&self, at: usize) -> Result<T>;
}

impl Row for rusqlite::Row<'_> {
    fn value<T: Value>(&self, at: usize) -> Result<T> {
        Ok(self.get(at)?)
    }
}

impl Row for tokio_postgres::Row {
    fn value<T: Value>(&self, at: usize) -> Result<T> {
        Ok(self.try_get(at)?)
    }
}

pub(super) fn build(row: &impl Row) -> Result<Build> {
    let (state, warnings): (String, String) = (row.value(4)?, row.value(17)?);
    Ok(Build {
        number: row.value(0)?,
        id: build_id(row, 1)?,
        name: row.value(2)?,
        client: row.value(3)?,
        state: BuildState::of(&state).ok_or_else(|| strange("state", &state))?,
        started: row.value(5)?,
        updated: row.value(6)?,
        duration_ms: row.value(7)?,
        steps: Counts {
            total: count(row, 8)?,
            ended: count(row, 9)?,
            running: count(row, 10)?,
            cached: count(row, 11)?,
            executed: count(row, 12)?,
            failed: count(row, 13)?,
        },
        saved_ms: row.value(14)?,
        error: row.value(15)?,
        sandbox: row.value(16)?,
        warnings: serde_json::from_str(&warnings).map_err(|_| strange("list of warnings", &warnings))?,
        next: count(row, 18)?,
    })
}

pub(super) fn step(row: &impl Row) -> Result<Step> {
    let (inputs, state): (String, String) = (row.value(4)?, row.value(5)?);
    Ok(Step {
        id: number(row.value(0)?)?,
        label: row.value(1)?,
        stage: row.value(2)?,
        line: row.value::<Option<i64>>(3)?.map(number).transpose()?,
        inputs: serde_json::from_str(&inputs).map_err(|_| strange("list of inputs", &inputs))?,
        state: StepState::of(&state).ok_or_else(|| strange("state", &state))?,
        reason: row.value(6)?,
        again: row.value(7)?,
        began: row.value(8)?,
        duration_ms: row.value(9)?,
        saved_ms: row.value(10)?,
        message: row.value(11)?,
    })
}

/// An output out of the columns step, tail and cut.
pub(super) fn output(row: &impl Row) -> Result<Output> {
    let tail: Vec<u8> = row.value(1)?;
    Ok(Output { step: number(row.value(0)?)?, text: text::readable(&tail), cut: row.value(2)? })
}

/// A layer out of the columns digest and size.
pub(super) fn layer(row: &impl Row) -> Result<Layer> {
    Ok(Layer { digest: row.value(0)?, size: count(row, 1)? })
}

/// A layer out of these columns and the number of builds, and of the last of them id and name.
pub(super) fn layer_use(row: &impl Row) -> Result<LayerUse> {
    Ok(LayerUse { layer: layer(row)?, builds: count(row, 2)?, build: build_id(row, 3)?, name: row.value(4)? })
}

pub(super) fn build_id(row: &impl Row, at: usize) -> Result<BuildId> {
    let text: String = row.value(at)?;
    text.parse().map_err(|_| strange("id", &text))
}

pub(super) fn count(row: &impl Row, at: usize) -> Result<u64> {
    Ok(unsigned(row.value(at)?))
}

/// A step's number, or that of a line.
pub(super) fn number(n: i64) -> Result<u32> {
    u32::try_from(n).map_err(|_| strange("number", &n.to_string()))
}

fn strange(what: &str, found: &str) -> StorageError {
    StorageError::Mismatch(format!("the database of builds has a {what} that is none: {found:?}"))
}

/// A list as it stands in a column.
pub(super) fn list<T: Clone + Into<serde_json::Value>>(items: &[T]) -> String {
    serde_json::Value::from(items.to_vec()).to_string()
}

/// A client that said nothing for too long will hardly come back; if it does, the build goes on.
pub(super) fn lose(build: &mut Build, now: i64) {
    if build.state == BuildState::Running && build.updated < now - LOST_AFTER {
        build.state = BuildState::Lost;
    }
}

/// About what the rows of a build take, in bytes, without its outputs.
pub(super) fn weight(fold: &Fold) -> i64 {
    let of = |step: &Step| 200 + step.label.len() + step.message.as_ref().map_or(0, String::len);
    let steps: usize = fold.steps.values().map(of).sum();
    i64::try_from(500 + steps).unwrap_or(i64::MAX)
}

/// What steps wrote, by step.
pub(super) fn written(fold: &Fold) -> BTreeMap<u32, Vec<u8>> {
    let mut written = BTreeMap::<u32, Vec<u8>>::new();
    for (step, bytes) in &fold.output {
        written.entry(*step).or_default().extend_from_slice(bytes);
    }
    written
}

/// The end of an output that is kept. `cut`: whether more came before it.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
    pub(super) cut: bool,
}

impl Tail {
    /// Adds to it, and keeps it within bounds.
    pub(super) fn grow(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        if self.bytes.len() > STEP_LOG {
            // From the begin of a line, if one is near.
            let from = self.bytes.len() - STEP_LOG;
            let line = self.bytes.get(from..).and_then(|rest| rest.iter().take(1000).position(|b| *b == b'\n'));
            self.bytes.drain(..from + line.map_or(0, |at| at + 1));
            self.cut = true;
        }
    }

    /// What those are told who watch.
    pub(super) fn told(&self, step: u32) -> Output {
        let shown = text::readable(&self.bytes);
        let (end, shorter) = text::tail(&shown, LIVE_TAIL);
        Output { step, text: end.to_owned(), cut: self.cut || shorter }
    }
}

/// A day out of the columns day, builds, succeeded, failed, cached, executed, saved and duration.
pub(super) fn day(row: &impl Row) -> Result<Day> {
    let totals = Totals {
        builds: count(row, 1)?,
        succeeded: count(row, 2)?,
        failed: count(row, 3)?,
        cached: count(row, 4)?,
        executed: count(row, 5)?,
        saved_ms: row.value(6)?,
        duration_ms: row.value(7)?,
    };
    Ok(Day { day: row.value(0)?, totals })
}

/// Days and their sums.
pub(super) fn analytics(days: Vec<Day>, running: u64) -> Analytics {
    let mut totals = Totals::default();
    for Day { totals: day, .. } in &days {
        totals.builds += day.builds;
        totals.succeeded += day.succeeded;
        totals.failed += day.failed;
        totals.cached += day.cached;
        totals.executed += day.executed;
        totals.saved_ms += day.saved_ms;
        totals.duration_ms += day.duration_ms;
    }
    Analytics { totals, days, running }
}

/// What was not heard of since then is too old.
pub(super) fn oldest(limits: &Limits, now: i64) -> i64 {
    now.saturating_sub(i64::try_from(limits.age.as_millis()).unwrap_or(i64::MAX))
}
