//! Uploads that were interrupted, kept for a while so that their clients can go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::storage::CheckedWriter;

/// How many are kept: each has a file open.
const MOST: usize = 64;

/// Interrupted uploads by resource name, in which clients put an identifier of their own.
pub(super) struct Uploads {
    parked: Mutex<HashMap<String, Parked>>,
    keep_for: Duration,
}

struct Parked {
    writer: CheckedWriter,
    since: Instant,
}

impl Uploads {
    pub(super) fn new(keep_for: Duration) -> Arc<Self> {
        Arc::new(Self { parked: Mutex::default(), keep_for })
    }

    fn parked(&self) -> MutexGuard<'_, HashMap<String, Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came of an upload. Of too many the oldest goes.
    pub(super) fn park(self: &Arc<Self>, name: String, writer: CheckedWriter) {
        if writer.size() == 0 {
            return;
        }
        let dropped = {
            let mut parked = self.parked();
            let oldest = parked.iter().min_by_key(|(_, p)| p.since).map(|(name, _)| name.clone());
            let dropped = oldest.filter(|_| parked.len() >= MOST).and_then(|name| parked.remove(&name));
            (parked.insert(name, Parked { writer, since: Instant::now() }), dropped)
        };
        drop(dropped);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(this.keep_for).await;
            this.forget();
        });
    }

    /// Drops those that nobody went on with.
    fn forget(&self) {
        let old: Vec<Parked> = {
            let mut parked = self.parked();
            parked.extract_if(|_, p| p.since.elapsed() >= self.keep_for).map(|(_, p)| p).collect()
        };
        // Their files are removed with no lock held.
        drop(old);
    }

    /// The writer to go on with at this offset in bytes.
    pub(super) fn resume(&self, name: &str, offset: u64) -> Option<CheckedWriter> {
        let mut parked = self.parked();
        if parked.get(name)?.writer.size() != offset {
            return None;
        }
        parked.remove(name).map(|p| p.writer)
    }

    /// Where to go on: 0 if nothing was kept.
    pub(super) fn committed(&self, name: &str) -> u64 {
        self.parked().get(name).map_or(0, |p| p.writer.size())
    }

    /// Forgets what was kept, of an upload that begins anew.
    pub(super) fn restart(&self, name: &str) {
        let old = self.parked().remove(name);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use memobuild_tree::ContentDigest;

    use super::*;
    use crate::BlobId;

    fn writer(bytes: &[u8]) -> CheckedWriter {
        let mut writer = CheckedWriter::new(BlobId::Content(ContentDigest::of(b"whatever")), 100, None);
        let _ = writer.take(bytes);
        writer
    }

    #[tokio::test]
    async fn uploads_go_on_where_they_ended() {
        let uploads = Uploads::new(Duration::from_secs(3600));
        uploads.park("a".into(), writer(b"123"));
        uploads.park("empty".into(), writer(b""));
        assert_eq!((uploads.committed("a"), uploads.committed("b"), uploads.committed("empty")), (3, 0, 0));
        assert!(uploads.resume("a", 2).is_none());
        assert_eq!(uploads.resume("a", 3).map(|w| w.size()), Some(3));
        assert!(uploads.resume("a", 3).is_none());
        for n in 0..=MOST {
            uploads.park(format!("upload {n}"), writer(b"1"));
        }
        assert_eq!(uploads.parked().len(), MOST);
        assert_eq!(uploads.committed("upload 0"), 0);
        uploads.restart("upload 1");
        assert_eq!(uploads.committed("upload 1"), 0);
    }

    #[tokio::test]
    async fn what_nobody_goes_on_with_is_dropped() {
        let uploads = Uploads::new(Duration::ZERO);
        uploads.park("a".into(), writer(b"123"));
        while uploads.committed("a") > 0 {
            tokio::task::yield_now().await;
        }
    }
}
