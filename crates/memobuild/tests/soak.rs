//! Never a wrong hit, in small: some random edits, after each of which an incremental build must equal one from nothing.
//! `scripts/test soak` makes 300, `scripts/soak` as many as one likes.

use std::path::Path;

use memobuild_soak::{Options, SoakError, run};

#[test]
fn incremental_builds_equal_builds_from_nothing() {
    let options = Options {
        memobuild: env!("CARGO_BIN_EXE_memobuild").into(),
        work: Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak"),
        seed: 1,
        edits: 12,
        time: None,
        per_project: 6,
        jobs: 2,
        keep: false,
        small_only: true,
        drop_fact: None,
    };
    match run(&options, &|_| {}) {
        Ok(summary) => {
            assert_eq!(summary.failure(), None);
            assert_eq!(summary.edits, 12);
        }
        // No busybox, or no sandbox.
        Err(why @ (SoakError::Base(_) | SoakError::NoSandbox(_))) => println!("skipped: {why}"),
        Err(error) => panic!("{error}"),
    }
}
