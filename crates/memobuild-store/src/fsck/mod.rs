//! The check of a whole store, in use or not: every record, every reference, every byte, every name; and its repair.
//!
//! In: a store, and a [`Progress`] that counts along. Out: a [`Report`] of findings, each of one [`Kind`], which knows
//! what it means and what helps. Who calls it: `memobuild fsck`. What it never does: change anything without being told
//! to.
//!
//! # While the store is in use
//! Builds and prunes go on while it is read: nothing is locked for long. So what looks wrong may have been on its way
//! in or out. All that was found is looked at again in the end, while no prune runs, and only what is still so counts.
//!
//! # Repair
//! What is damaged can only be a miss, so it is removed, and with it what refers to it, until all that is left is
//! whole. Names of images are the user's: where one has to go, the report says which. What memobuild did not make is
//! moved aside, never removed, and what a running process holds is left alone.
//!
//! # Memory
//! Names and rows are read one at a time. What is held at once is one bundle's tables for each thread, and what was
//! found.

mod look;
mod repair;
mod report;
mod rows;
mod walk;

use std::{
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use self::look::{Check, Found, Subject};
pub use self::report::{Finding, Kind, Options, Outcome, Progress, Report};
use crate::{
    Store,
    error::{Result, StoreError},
};

/// Names that wait to be looked at.
const QUEUE: usize = 1024;
/// What is on its way in or out has arrived after this time.
const BREATH: Duration = Duration::from_millis(200);

impl Store {
    /// Checks everything, and repairs it if that is asked for. Takes as long as reading the whole store does.
    ///
    /// # Errors
    /// Directories can't be listed, or the index can't be read for another reason than damage. A file that can't be
    /// read is a finding.
    pub fn fsck(&self, options: &Options, progress: &Progress) -> Result<Report> {
        let check = Check { layout: self.layout(), index: self.index(), progress };
        let mut found = everything(&check, options.workers())?;
        if !found.is_empty() {
            thread::sleep(BREATH);
            found = self.look_again(&check, found)?;
        }
        found.sort();
        found.dedup();
        let mut findings = match options.repair && !found.is_empty() {
            true => repair::repair(self, &check, found)?,
            false => found.iter().map(|found| found.finding(check.layout)).collect(),
        };
        findings.sort_by(|a, b| (&a.at, a.kind).cmp(&(&b.at, b.kind)));
        Ok(Report::new(findings, progress))
    }

    /// What is still so.
    fn look_again(&self, check: &Check<'_>, found: Vec<Found>) -> Result<Vec<Found>> {
        // Its directory may be what lacks; then no prune runs either.
        let _no_prune = self.lock("gc", false).ok();
        // Not counted twice.
        let progress = Progress::default();
        let check = Check { progress: &progress, ..*check };
        let rows = match found.iter().any(|found| found.subject.is_row()) {
            true => rows::scan(&check)?,
            false => Vec::new(),
        };
        let mut still = Vec::new();
        for before in found {
            if before.subject.is_row() {
                let same = |now: &&Found| now.subject == before.subject && now.kind == before.kind;
                still.extend(rows.iter().find(same).cloned());
            } else {
                still.extend(check.look(&before.subject)?);
            }
        }
        Ok(still)
    }
}

/// Looks at all there is: one thread reads the index, one lists names, the others look at what they name.
fn everything(check: &Check<'_>, threads: usize) -> Result<Vec<Found>> {
    let gathered = Mutex::new(Ok(Vec::new()));
    let add = |new: Result<Vec<Found>>| {
        let mut all = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *all, new) {
            (Ok(all), Ok(new)) => {
                check.progress.found(new.len());
                all.extend(new);
            }
            (all, Err(error)) if all.is_ok() => *all = Err(error),
            _ => {}
        }
    };
    let (sender, receiver) = mpsc::sync_channel::<Subject>(QUEUE);
    let receiver = Mutex::new(receiver);
    let look = || loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(subject) = next else { return };
        add(check.look(&subject).map(Vec::from_iter));
    };
    let read_index = || add(rows::scan(check));
    thread::scope(|scope| {
        // Dropped with this block: then the threads come to their end.
        let sender = sender;
        // Trees may be deep, and whoever decodes one recurses.
        let thread = || thread::Builder::new().stack_size(memobuild_tree::codec::STACK);
        let cannot = |e| StoreError::io("start a thread for", &check.layout.dir)(e);
        thread().spawn_scoped(scope, read_index).map_err(cannot)?;
        for _ in 0..threads {
            thread().spawn_scoped(scope, look).map_err(cannot)?;
        }
        walk::each(check.layout, &mut |subject| {
            // Nobody takes the receiver away.
            let _ = sender.send(subject);
        })
    })?;
    gathered.into_inner().unwrap_or_else(PoisonError::into_inner)
}
