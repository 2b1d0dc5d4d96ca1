//! The identities that a step's exact keys are made of.

use std::sync::Arc;

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
    for (id, path) in run.mounts.iter().filter_map(mounted) {
        out.push(part(session, *id, path, values)?);
    }
    Ok(out)
}

/// The identity of what stands at a path of a step's tree.
pub(super) fn part(session: &Session<'_>, id: StepId, path: &str, values: &Values) -> Result<TreeDigest, EngineError> {
    let value = value(values, id)?;
    if path == "/" {
        return Ok(value.identity());
    }
    let node = value.tree(session.store)?.resolve(path.as_bytes(), true).ok().and_then(|r| r.node);
    // Nothing there: the step will fail, and fails under a key of its own.
    let absent = || TreeDigest::from_bytes(KeyHasher::new("memobuild.absent.v1").finish_bytes());
    Ok(node.map_or_else(absent, |node| node.identity()))
}
