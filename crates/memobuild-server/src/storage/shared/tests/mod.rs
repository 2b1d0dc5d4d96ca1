#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::sync::atomic::{AtomicU32, Ordering};

use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory};

use super::*;
use crate::storage::{
    conformance::{self, Bed, get, key, put},
    postgres::testing::PostgresServer,
};

/// A database of a server that tests share, and objects in memory.
struct Shared<'a> {
    server: &'a PostgresServer,
    database: String,
    url: String,
    objects: Arc<InMemory>,
    waiting: Waiting,
    dir: tempfile::TempDir,
}

impl<'a> Shared<'a> {
    fn new(server: &'a PostgresServer) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = server.database(&database);
        let (objects, dir) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
        Self { server, database, url, objects, waiting: Waiting::new().unwrap(), dir }
    }

    /// One server's storage.
    fn node(&self, max_bytes: Option<u64>) -> Result<SharedStorage> {
        let objects = Objects::new(self.objects.clone(), "some/prefix".into(), self.waiting.clone());
        let metadata = Postgres::open(&self.url, max_bytes, self.waiting.clone())?;
        SharedStorage::with(objects, Box::new(metadata), self.dir.path(), max_bytes)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, &format!("SET search_path = memobuild; {sql}"))
    }

    fn age(&self, id: BlobId, seconds: i64) {
        let sql = format!("UPDATE blobs SET last_used = seconds() - {seconds} WHERE digest = '\\x{}'", id.hex());
        self.sql(&sql);
    }

    /// Objects without the marker.
    fn names(&self) -> Vec<String> {
        let waiting = &self.waiting;
        waiting
            .wait(Duration::from_secs(60), "", async {
                use futures_util::TryStreamExt as _;
                let all: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
                let names = all.into_iter().map(|meta| meta.location.to_string());
                Ok(names.filter(|name| name != "some/prefix/memobuild-server").collect())
            })
            .unwrap()
    }

    /// Objects and rows are the same; what is counted is what there is.
    fn counted(&self, storage: &SharedStorage) {
        storage.flush().unwrap();
        let rows = self.sql("SELECT object FROM blobs UNION SELECT object FROM uploads ORDER BY 1");
        let mut names = self.names();
        names.sort();
        let rows: Vec<String> = rows.lines().map(|row| format!("some/prefix/{row}")).collect();
        assert_eq!(names, rows);
        let usage = storage.usage().unwrap();
        let there = self.sql(
            "SELECT (SELECT count(*) FROM blobs), (SELECT count(*) FROM records),
             (SELECT coalesce(sum(size), 0) FROM (SELECT size FROM blobs UNION ALL SELECT size FROM records
              UNION ALL SELECT size FROM uploads UNION ALL SELECT size FROM garbage) s)",
        );
        assert_eq!(there, format!("{}|{}|{}", usage.blobs, usage.records, usage.bytes));
        assert_eq!(std::fs::read_dir(self.dir.path().join("spool")).unwrap().count(), 0);
    }
}

struct OneNode<'a> {
    shared: Shared<'a>,
    storage: SharedStorage,
}

impl Bed for OneNode<'_> {
    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn age(&self, id: BlobId, seconds: i64) {
        self.storage.flush().unwrap();
        self.shared.age(id, seconds);
    }

    fn counted(&self) {
        self.shared.counted(&self.storage);
    }
}

#[test]
fn does_what_every_storage_does() {
    let Some(server) = PostgresServer::start() else { return };
    conformance::all(&|max_bytes| {
        let shared = Shared::new(&server);
        let storage = shared.node(max_bytes).unwrap();
        Box::new(OneNode { shared, storage })
    });
}
