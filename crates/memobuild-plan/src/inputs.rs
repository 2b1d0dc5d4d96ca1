//! Which steps an operation reads: the edges of the graph.

use crate::model::{CopySource, MountKind, Op, StepId};

impl Op {
    /// The steps whose trees it needs, in order; one may stand there several times.
    pub fn inputs(&self) -> Vec<StepId> {
        match self {
            Op::Scratch | Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => Vec::new(),
            Op::Run(run) => {
                let mounts = run.mounts.iter().filter_map(|mount| match &mount.kind {
                    MountKind::Bind { from, .. } | MountKind::Cache { from: Some((from, _)), .. } => Some(*from),
                    _ => None,
                });
                [run.parent].into_iter().chain(mounts).collect()
            }
            Op::Copy(copy) => {
                let sources = copy.sources.iter().filter_map(|source| match source {
                    CopySource::Path { from, .. } => Some(*from),
                    CopySource::Inline { .. } => None,
                });
                [copy.parent].into_iter().chain(sources).collect()
            }
            Op::Mkdir(mkdir) => vec![mkdir.parent],
        }
    }

    /// As [`Op::inputs`], to be changed.
    pub(crate) fn inputs_mut(&mut self) -> Vec<&mut StepId> {
        match self {
            Op::Scratch | Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => Vec::new(),
            Op::Run(run) => {
                let mounts = run.mounts.iter_mut().filter_map(|mount| match &mut mount.kind {
                    MountKind::Bind { from, .. } | MountKind::Cache { from: Some((from, _)), .. } => Some(from),
                    _ => None,
                });
                [&mut run.parent].into_iter().chain(mounts).collect()
            }
            Op::Copy(copy) => {
                let sources = copy.sources.iter_mut().filter_map(|source| match source {
                    CopySource::Path { from, .. } => Some(from),
                    CopySource::Inline { .. } => None,
                });
                [&mut copy.parent].into_iter().chain(sources).collect()
            }
            Op::Mkdir(mkdir) => vec![&mut mkdir.parent],
        }
    }

    /// One word for it: `run`, `copy`, ...
    pub fn name(&self) -> &'static str {
        match self {
            Op::Scratch => "scratch",
            Op::Image(_) => "image",
            Op::Local(_) => "local",
            Op::Http(_) => "http",
            Op::Git(_) => "git",
            Op::Run(_) => "run",
            Op::Copy(_) => "copy",
            Op::Mkdir(_) => "mkdir",
        }
    }
}
