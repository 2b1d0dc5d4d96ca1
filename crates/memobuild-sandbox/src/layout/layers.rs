//! Chains of directories for overlays: each tree laid out is kept, and the next one is only the difference from the
//! nearest, as one more layer.

use std::{
    collections::VecDeque,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use memobuild_tree::{Diff, FullDigest, Tree};

use crate::{contents::Contents, error::SandboxError, launch::ServerHandle, spec::Bytes};

/// Longest chain; overlayfs takes 500 layers, but each costs every look-up.
const MAX_CHAIN: usize = 100;

/// How many known trees are looked at for the nearest one.
const NEAREST: usize = 16;

struct Known {
    digest: FullDigest,
    tree: Tree,
    /// Uppermost first.
    chain: Vec<Bytes>,
}

/// The trees laid out so far.
pub(crate) struct Layers {
    dir: PathBuf,
    state: Mutex<(VecDeque<Known>, u64)>,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Layers {
    /// Layers will stand below that directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), state: Mutex::default() }
    }

    /// The directories that make up a tree, uppermost first.
    pub(crate) fn chain(
        &self,
        server: &ServerHandle,
        tree: &Tree,
        contents: &dyn Contents,
    ) -> Result<Vec<Bytes>, SandboxError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, next) = &mut *state;
        let digest = tree.full_digest();
        if let Some(found) = known.iter().find(|k| k.digest == digest) {
            return Ok(found.chain.clone());
        }
        let empty = Tree::default();
        let near = known
            .iter()
            .take(NEAREST)
            .filter(|k| k.chain.len() < MAX_CHAIN)
            .map(|k| (Diff::between(&k.tree, tree), k.chain.as_slice()))
            .min_by_key(|(diff, _)| weight(diff));
        let fresh = Diff::between(&empty, tree);
        let (diff, below) = match near {
            Some((diff, below)) if weight(&diff) <= weight(&fresh) => (diff, below),
            _ => (fresh, [].as_slice()),
        };
        *next += 1;
        let dir = self.dir.join(format!("layer-{next}"));
        server.lay_out(&dir, true, &diff, tree, contents)?;
        let mut chain: Vec<Bytes> = vec![dir.as_os_str().as_bytes().into()];
        chain.extend(below.iter().cloned());
        known.push_front(Known { digest, tree: tree.clone(), chain: chain.clone() });
        Ok(chain)
    }
}

/// Roughly what a diff costs to lay out.
pub(super) fn weight(diff: &Diff) -> u64 {
    let mut weight = 0;
    diff.walk(&mut |_, change| {
        weight += 1;
        if let memobuild_tree::Change::Put(memobuild_tree::Node::File(file)) = change {
            weight += file.size / 16384;
        }
    });
    weight
}
