#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::sync::atomic::{AtomicU32, Ordering};

use object_store::{ObjectStore as _, memory::InMemory};

use super::*;
use crate::storage::{
    Committed,
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
        let metadata = Postgres::open(Database::open(&self.url, self.waiting.clone())?, max_bytes)?;
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

#[test]
fn the_objects_and_the_database_belong_together() {
    let Some(server) = PostgresServer::start() else { return };
    let shared = Shared::new(&server);
    put(&shared.node(None).unwrap(), b"one").unwrap();
    // The same two, and a server more.
    assert_eq!(shared.node(None).unwrap().usage().unwrap().blobs, 1);

    // Another database beside these objects, and other objects beside this database.
    let mut other = Shared::new(&server);
    other.objects = shared.objects.clone();
    assert!(matches!(other.node(None), Err(StorageError::Mismatch(_))));
    let moved = Shared { objects: Arc::new(InMemory::new()), ..shared };
    assert!(matches!(moved.node(None), Err(StorageError::Mismatch(_))));

    // A database of a newer version is left alone.
    moved.sql("INSERT INTO versions VALUES (1000000, now())");
    let Err(StorageError::Mismatch(why)) = moved.node(None) else { panic!("a newer version was opened") };
    assert!(why.contains("1000000"), "{why}");
}

#[test]
fn an_upload_whose_lease_has_ended_is_not_seen() {
    let Some(server) = PostgresServer::start() else { return };
    let shared = Shared::new(&server);
    let (a, b) = (shared.node(Some(10_000)).unwrap(), shared.node(Some(10_000)).unwrap());
    let id = BlobId::Content(memobuild_tree::ContentDigest::of(b"late"));
    let lease = Duration::from_secs(60);
    let Begun::Upload(object) = a.inner.metadata.begin(id, 4, lease).unwrap() else { panic!("there is room") };
    // It counts, and nobody can name it.
    assert_eq!(b.usage().unwrap().bytes, 4);
    let record = Record { value: vec![], blobs: vec![id] };
    assert_eq!(b.record_put(&key(1), &record).unwrap(), RecordPut::Missing(vec![id]));
    assert!(matches!(put(&b, &[1; 9999]), Err(StorageError::Full)));

    // The other server puts it away.
    shared.sql("UPDATE uploads SET expires = seconds() - 1");
    b.flush().unwrap();
    assert_eq!(b.usage().unwrap().bytes, 0);
    // Its maker was only slow. It is told, and what it made meanwhile goes once no request can be under way.
    a.inner.objects.put(&object, &mut b"late".as_slice(), 4).unwrap();
    assert_eq!(a.inner.metadata.finish(id, &object).unwrap(), None);
    assert_eq!(b.blob_size(id).unwrap(), None);
    assert_eq!(shared.names().len(), 1);
    b.flush().unwrap();
    assert_eq!(shared.names().len(), 1);
    shared.sql("UPDATE garbage SET settled = seconds()");
    b.flush().unwrap();
    assert_eq!(shared.names(), Vec::<String>::new());
    shared.counted(&b);
}

#[test]
fn what_one_server_leaves_undeleted_another_deletes() {
    let Some(server) = PostgresServer::start() else { return };
    let shared = Shared::new(&server);
    let (a, b) = (shared.node(None).unwrap(), shared.node(None).unwrap());
    let (id, _) = put(&a, b"old").unwrap();
    shared.age(id, 1000);
    // As if killed after its transaction: the object is there, and takes its room.
    let removed = a.inner.metadata.collect(Some(Duration::from_secs(500)), None).unwrap().unwrap();
    assert_eq!((removed.blobs, removed.bytes), (1, 3));
    assert_eq!((shared.names().len(), b.usage().unwrap().bytes), (1, 3));
    // The blob is gone all the same, and may come again before that object is deleted.
    assert_eq!(b.blob_size(id).unwrap(), None);
    assert_eq!(put(&b, b"old").unwrap().1, Committed::Created);
    b.flush().unwrap();
    assert_eq!(get(&a, id, 0).unwrap(), b"old");
    assert_eq!((shared.names().len(), b.usage().unwrap().bytes), (1, 3));
    shared.counted(&a);
}

#[test]
fn uses_of_one_server_keep_blobs_from_another() {
    let Some(server) = PostgresServer::start() else { return };
    let shared = Shared::new(&server);
    let (a, b) = (shared.node(Some(10_000)).unwrap(), shared.node(Some(10_000)).unwrap());
    let (first, _) = put(&a, &[1; 4000]).unwrap();
    let (second, _) = put(&a, &[2; 4000]).unwrap();
    shared.age(first, 200);
    shared.age(second, 100);
    assert_eq!(b.blob_size(first).unwrap(), Some(4000));
    b.flush().unwrap();
    put(&a, &[3; 4000]).unwrap();
    assert_eq!(a.blobs_missing(&[first, second]).unwrap(), [second]);
    // What is older than what the database has changes nothing.
    a.inner.metadata.touch(&[(Used::Blob(first), Duration::from_secs(3600))]).unwrap();
    assert_eq!(shared.sql("SELECT count(*) FROM blobs WHERE last_used < seconds() - 60"), "0");
}

#[test]
fn a_database_that_says_nothing_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/db", listener.local_addr().unwrap());
    let opened = Database::open(&url, Waiting::new().unwrap());
    assert!(matches!(opened, Err(StorageError::Unavailable { what: "the database", .. })));
    drop(listener);
    let opened = Database::open(&url, Waiting::new().unwrap());
    assert!(matches!(opened, Err(StorageError::Unavailable { .. })));
}
