use serde_json::json;

use super::*;
use crate::builds::conformance::{self, Bed, T0, id, plan};

struct Place {
    _dir: tempfile::TempDir,
    builds: SqliteBuilds,
}

impl Bed for Place {
    fn builds(&self) -> &dyn Builds {
        &self.builds
    }

    fn steps(&self) -> u64 {
        let steps: u32 =
            self.builds.connection().query_row("SELECT count(*) FROM steps", [], |row| row.get(0)).unwrap();
        steps.into()
    }
}

#[test]
fn does_what_all_builds_do() {
    conformance::all(&|limits| {
        let dir = tempfile::tempdir().unwrap();
        let builds = SqliteBuilds::open(&dir.path().join("builds.sqlite"), limits).unwrap();
        Box::new(Place { _dir: dir, builds })
    });
}

#[test]
fn it_is_there_after_a_restart_and_a_later_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("builds.sqlite");
    let batch = Batch::events(json!({ "build": id(1), "events": [plan()] }).to_string().as_bytes()).unwrap();
    SqliteBuilds::open(&path, Limits::default()).unwrap().take(&batch, "-", T0).unwrap();
    let builds = SqliteBuilds::open(&path, Limits::default()).unwrap();
    assert_eq!(builds.get(&batch.build, T0).unwrap().unwrap().plan.len(), 2);
    drop(builds);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(SqliteBuilds::open(&path, Limits::default()).is_err());
}
