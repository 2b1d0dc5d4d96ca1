//! A little room that is given up when the disk is full: taking rows out of the database needs some for its log, and
//! without that nothing could be removed to make more.

use std::{fs, path::Path};

/// Enough for the log of one round of removals.
const SIZE: usize = 1 << 20;

const NAME: &str = "spare";

/// Takes the room, unless it is held or there is none.
pub(super) fn hold(dir: &Path) {
    let path = dir.join(NAME);
    let held = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == SIZE as u64);
    if !held && fs::write(&path, vec![0; SIZE]).is_err() {
        // Half of it is of no use to anybody.
        release(dir);
    }
}

/// Gives it up.
pub(super) fn release(dir: &Path) {
    // If it is not there it was given up before.
    let _ = fs::remove_file(dir.join(NAME));
}
