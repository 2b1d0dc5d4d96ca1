//! `type=tar`: the root file system as one tar.

use memobuild_store::Store;
use memobuild_tree::{Diff, DirChange, Tree};

use super::{Dest, OutputError, dest::Sink};
use crate::layer::{LayerError, TimestampPolicy, write_rootfs};

/// Writes the whole tree as a tar; with an epoch every time in it is that second, as BuildKit has it.
pub fn write_tar(store: &Store, tree: &Tree, epoch: Option<i64>, dest: &Dest) -> Result<(), OutputError> {
    let mut sink = Sink::open(dest)?;
    let policy = epoch.map_or(TimestampPolicy::Keep, TimestampPolicy::Set);
    let diff = Diff { root: DirChange::creating(tree.root()) };
    write_rootfs(&diff, store, policy, &mut sink).map_err(|e| match e {
        LayerError::Write(source) => sink.error(source),
        other => other.into(),
    })?;
    sink.finish()
}
