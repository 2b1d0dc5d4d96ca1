//! Several servers on one bucket and one database, all of them real: the servers are processes, the bucket is SeaweedFS
//! (the program `weed`, or what SEAWEEDFS names), the database PostgreSQL. What is not installed is skipped, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a failure here is a failed test")]

mod builds;
#[allow(dead_code, reason = "tests/http uses the rest")]
#[path = "../http/client.rs"]
mod client;
mod faults;
mod node;
mod nodes;
#[path = "../../src/storage/postgres/testing.rs"]
mod postgres;
mod proxy;
mod results;
mod seaweed;
#[path = "../http/socket.rs"]
mod socket;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use node::Node;
use postgres::PostgresServer;
use seaweed::SeaweedFs;

/// What a case gets: a bucket's prefix and a database of its own.
struct Bed<'a> {
    postgres: &'a PostgresServer,
    seaweed: &'a SeaweedFs,
    database: String,
    metadata: String,
    storage: String,
}

impl<'a> Bed<'a> {
    fn new(postgres: &'a PostgresServer, seaweed: &'a SeaweedFs) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let metadata = postgres.database(&database);
        let storage = format!("s3://{}/{database}", seaweed::BUCKET);
        Self { postgres, seaweed, database, metadata, storage }
    }

    /// A server that talks to the bucket directly.
    fn node(&self, max_size: Option<u64>) -> Node {
        Node::start(self, &self.seaweed.endpoint(), max_size)
    }

    fn sql(&self, sql: &str) -> String {
        self.postgres.sql(&self.database, &format!("SET search_path = memobuild; {sql}"))
    }

    /// What the database has counted is what its rows say.
    fn counted(&self) {
        let there = self.sql(
            "SELECT (SELECT count(*) FROM blobs), (SELECT count(*) FROM records),
             (SELECT coalesce(sum(size), 0) FROM (SELECT size FROM blobs UNION ALL SELECT size FROM records
              UNION ALL SELECT size FROM uploads UNION ALL SELECT size FROM garbage) s)",
        );
        assert_eq!(there, self.sql("SELECT blobs, records, bytes FROM store"));
    }
}

/// A case with its name.
type Case = (&'static str, fn(&Bed<'_>));

/// Runs cases one after the other on the same database server and bucket.
fn run(cases: &[Case]) {
    let Some(seaweed) = SeaweedFs::start() else { return };
    let Some(postgres) = PostgresServer::start() else { return };
    for (name, case) in cases {
        let began = Instant::now();
        println!("{name}");
        case(&Bed::new(&postgres, &seaweed));
        println!("    {} ms", began.elapsed().as_millis());
    }
}
