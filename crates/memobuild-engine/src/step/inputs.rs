//! The identities that a step's exact keys are made of.

use std::{collections::BTreeMap, sync::Arc};

use memobuild_plan::model::{CopySource, MountKind, Op, Run, Step, StepId};
use memobuild_tree::{KeyHasher, TreeDigest};

use super::{Values, value};
use crate::{EngineError, session::Session, value::Value};

/// The tree that the step changes. A COPY with `--link` takes nothing of it.
pub(super) fn parent(step: &Step, values: &Values) -> Result<Arc<Value>, EngineError> {
    let id = super::parent(step).ok_or_else(|| EngineError::step("a source has no parent"))?;
    Ok(value(values, id)?.clone())
}

/// Identities of all whole trees that the step uses, the parent's first.
pub(super) fn trees(step: &Step, values: &Values) -> Result<Vec<TreeDigest>, EngineError> {
    let mut out = vec![parent(step, values)?.identity()];
    let mut add = |id: &StepId| -> Result<(), EngineError> {
        out.push(value(values, *id)?.identity());
        Ok(())
    };
    match &step.op {
        Op::Run(run) => run.mounts.iter().filter_map(mounted).try_for_each(|(id, _)| add(id))?,
        Op::Copy(copy) => {
            for source in &copy.sources {
                if let CopySource::Path { from, .. } = source {
                    add(from)?;
                }
            }
        }
        _ => {}
    }
    Ok(out)
}

/// The tree and path that a mount takes something from.
pub(super) fn mounted(mount: &memobuild_plan::model::Mount) -> Option<(&StepId, &str)> {
    match &mount.kind {
        MountKind::Bind { from, path, .. } => Some((from, path)),
        MountKind::Cache { from: Some((from, path)), .. } => Some((from, path)),
        _ => None,
    }
}

/// The parent's identity, and of each mounted tree the identity of the part that is mounted.
pub(super) fn run_parts(session: &Session<'_>, run: &Run, values: &Values) -> Result<Vec<TreeDigest>, EngineError> {
    let mut out = vec![value(values, run.parent)?.identity()];
    let mut trees = BTreeMap::new();
    for (id, path) in run.mounts.iter().filter_map(mounted) {
        if path == "/" {
            out.push(value(values, *id)?.identity());
            continue;
        }
        let tree = match trees.get(id) {
            Some(tree) => tree,
            None => {
                let tree = value(values, *id)?.tree(session.store)?;
                trees.entry(id).or_insert(tree)
            }
        };
        let node = tree.resolve(path.as_bytes(), true).ok().and_then(|r| r.node);
        let identity = node.map(|node| node.identity()).unwrap_or_else(|| {
            // Nothing there: the step will fail, and fails under a key of its own.
            TreeDigest::from_bytes(KeyHasher::new("memobuild.absent.v1").finish_bytes())
        });
        out.push(identity);
    }
    Ok(out)
}
