//! Removing what was not used for longest.

use std::{fs, io::ErrorKind, sync::PoisonError};

use super::{Inner, Result, spare};
use crate::storage::{GcReport, StorageError, rows::Used};

/// Rows removed at a time: requests that name blobs wait so long.
const AT_ONCE: usize = 64;

impl Inner {
    /// Removes what was last used before this time (seconds since 1970), and more until at most `most` bytes are used.
    pub(super) fn collect(&self, before: Option<i64>, most: Option<u64>) -> Result<GcReport> {
        match self.try_collect(before, most) {
            Err(StorageError::Full) => {
                spare::release(&self.dir);
                let report = self.try_collect(before, most);
                spare::hold(&self.dir);
                report
            }
            report => report,
        }
    }

    fn try_collect(&self, before: Option<i64>, most: Option<u64>) -> Result<GcReport> {
        let mut report = GcReport::default();
        self.write_uses()?;
        loop {
            let naming = self.naming.write().unwrap_or_else(PoisonError::into_inner);
            let mut index = self.index();
            let mut over = self.space.used().saturating_sub(most.unwrap_or(u64::MAX));
            let mut going = Vec::new();
            for oldest in index.oldest(AT_ONCE)? {
                if over == 0 && before.is_none_or(|time| oldest.last_used >= time) {
                    break;
                }
                over = over.saturating_sub(oldest.size);
                going.push(oldest);
            }
            if going.is_empty() {
                return Ok(report);
            }
            let removed = index.remove(&going)?;
            drop(index);
            self.space.release(removed.bytes);
            report.blobs += removed.blobs;
            report.records += removed.records;
            report.freed_bytes += removed.bytes;
            for oldest in &going {
                let Used::Blob(id) = oldest.what else { continue };
                let path = self.path(id);
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != ErrorKind::NotFound
                {
                    return Err(StorageError::io("remove", &path)(error));
                }
            }
            drop(naming);
        }
    }
}
