//! Digests as newtypes, the Merkle file tree, and diffs over it.
//!
//! A [`Tree`] is a whole root file system held in memory: names, metadata and content *digests*, never contents.
//! A [`Diff`] is what one step changed; [`Diff::apply`] folds it over a tree and [`Diff::between`] finds it again.
//! Every directory knows two digests: its *identity* (what cache keys use, see [`TreeDigest`]) and its *full* digest
//! (mtimes included, see [`FullDigest`]).
//!
//! What a step was seen to depend on are [`facts`]: paths of a tree, and what was found there.
//!
//! Who calls it: every crate above. What it never does: I/O.
#![forbid(unsafe_code)]

pub mod codec;
mod diff;
pub mod digest;
pub mod facts;
pub mod hash;
mod node;
pub mod path;
mod summary;
mod tree;

pub use diff::{ApplyError, Change, Diff, DirChange};
pub use digest::{BundleId, ContentDigest, FullDigest, KeyDigest, LinkId, PathSetDigest, Sha256Digest, TreeDigest};
pub use hash::{ContentHash, KeyHasher};
pub use node::{Dir, File, Kind, Meta, Mtime, Node, Special, SpecialKind, Symlink, Xattrs};
pub use summary::{Marks, Summary};
pub use tree::{Entry, ResolveError, Resolved, Seen, Tree};
