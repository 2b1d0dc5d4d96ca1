//! Runs one command over one tree; gives back exit status and what was written.
//!
//! In: a [`Step`] (an in-memory [`memobuild_tree::Tree`], a command, mounts) and the [`Contents`] that its digests
//! name. Out: an [`Outcome`] with the exit status and a [`memobuild_tree::Diff`]. Who calls it: `memobuild-engine`.
//! What it never does: know of caches, Dockerfiles or registries; change the caller's own process (namespaces, ids and
//! mounts belong to a helper process, the *sandbox server*, which is this program run again, see [`init_main`]).
//!
//! | module | what it is |
//! |---|---|
//! | `step`, `contents`, `error` | what callers see |
//! | `sandbox`, `mode`, `choose`, `rundir` | settings, finding the mode, running a step in it |
//! | `served` | the tree as a step sees it: mount points put in, ids that cannot be mapped hidden |
//! | `fuse` | serves trees from memory; `recorder` hears of every look-up |
//! | `server` | the helper process: namespaces, mounts, pid 1, seccomp |
//! | `harvest` | from the upper directory to a diff |
//! | `compose`, `spec`, `ids` | what the helper process is told |
//! | `launch`, `run`, `channel`, `wire` | speaking to it, and driving one step |
//! | `emulate` | programs of other processors, and what runs them |
//! | `ssh` | sockets handed to a step |
//! | `layout` | trees laid out on disk, for the modes without FUSE |
//! | `sys` | raw system calls; the only place with `unsafe` |
#![deny(unsafe_code)]

mod channel;
mod choose;
mod compose;
mod contents;
pub mod doctor;
mod emulate;
mod error;
mod fuse;
mod harvest;
mod ids;
mod launch;
mod layout;
mod mode;
mod run;
mod rundir;
mod sandbox;
mod served;
mod server;
mod spec;
mod ssh;
mod step;
mod sys;
mod wire;

pub use contents::{Contents, ReadAt};
pub use emulate::{Platforms, Runner};
pub use error::SandboxError;
pub use ids::expected_ownership;
pub use mode::{Mode, ModeChoice, ModeKind, OwnershipClass};
pub use sandbox::{SANDBOX_INIT_ARG, Sandbox, SandboxConfig, init_main};
pub use served::part_of;
pub use step::{
    Cancel, Exit, Host, Looked, Mount, MountKind, Network, Outcome, Output, Security, Step, Stream, Timings, Ulimit,
    User,
};
