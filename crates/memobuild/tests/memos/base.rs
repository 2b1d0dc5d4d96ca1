//! Base images for these tests, each made once: making one takes longer than a build.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use memobuild_tree::KeyHasher;

use crate::common::text;

/// What they are made of.
pub const BUSYBOX: &str = "/bin/busybox";

/// Where the base image that this script gives is kept, made now if it is not there yet.
pub fn kept(extra: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/make-busybox-base");
    let meta = fs::metadata(BUSYBOX).unwrap();
    let mut key = KeyHasher::new("test base");
    key.bytes(extra.as_bytes()).bytes(&fs::read(&script).unwrap()).u64(meta.size()).u64(meta.mtime().cast_unsigned());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bases");
    let kept = dir.join(key.finish().hex());
    if !kept.exists() {
        fs::create_dir_all(&dir).unwrap();
        let own = tempfile::tempdir_in(&dir).unwrap();
        let new = own.path().join("base");
        let made = Command::new(script).arg(&new).env("BASE_EXTRA", extra).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        // Another test may have been faster.
        let renamed = fs::rename(&new, &kept);
        assert!(renamed.is_ok() || kept.exists(), "{renamed:?}");
    }
    kept
}

/// A copy that a test may change.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let at = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &at);
        } else {
            fs::copy(entry.path(), at).unwrap();
        }
    }
}
