//! Bundles, blobs and records on disk, the index, the context scan, GC and locks.
//!
//! In: contents and diffs of steps and layers ([`BundleWriter`]), small values by key ([`Store::record_put`]), build
//! contexts ([`scan`]). Out: the same again, verified. Who calls it: everything that runs, imports, exports or shares.
//! What it never does: interpret what it holds beyond the types of `memobuild-tree`.
//!
//! # The directory
//! ```text
//! format          version; an unknown one is an error
//! index.sqlite    records and tags (WAL; several processes at once)
//! bundles/        one file per diff: its tree part and its small files, packed
//! blobs/ab/...    one file per large file, by BLAKE3, 0444: also an overlayfs data-only lower directory
//! oci/sha256/     blobs of images as registries know them; oci/partial/: downloads under way
//! mounts/         cache mounts        contexts/  stat caches of scans
//! tmp/            files being written, scratch directories; each bears its process's token
//! locks/ leases/  who waits for what, who uses what
//! unknown/        what a repair found among all this and the store did not make
//! ```
//!
//! # What a crash can do
//! Every file gets its final name by rename, when all of it is written, and every row is written after what it names:
//! a process killed at any moment leaves at worst unnamed files in `tmp/` and unreferenced ones, which GC removes.
//!
//! When the machine goes down, files renamed without fsync can be empty or cut short, and rows can be there without
//! their files. An fsync for each step would cost 1 to 10 ms, so nothing is synced on the way; instead nothing is
//! believed unseen: a bundle's tables carry a checksum and its contents are compared with their digests when first
//! read, and a blob carries a mark that says in which boot of the machine it was written, and is read through once if
//! that is over. What fails is set aside and counts as a miss. So a crash loses work, never truth.
//!
//! # Who may delete
//! Only [`Store::gc`], and [`Store::fsck`] where it is to repair, and never what a living process has touched: each
//! process appends what it is about to use to its lease before it looks whether it is there. [`Store::clean`] removes
//! only what dead processes left.
#![forbid(unsafe_code)]

mod blobs;
mod bundle;
mod check;
mod clean;
mod content;
mod digest_map;
mod error;
pub mod fsck;
mod gc;
mod index;
mod inventory;
mod layout;
mod lease;
mod lock;
mod mark;
mod oci;
mod records;
pub mod scan;
mod scratch;
mod store;
mod tmp_file;
mod upstream;
mod usage;

pub use bundle::BundleWriter;
pub use check::Finding;
pub use clean::{Cleaned, Remnant, Removed};
pub use content::{Content, ContentReader, Provided, Provider};
pub use error::{Result, StoreError};
pub use gc::{GcOptions, GcReport};
pub use lease::{Lease, Ref};
pub use lock::FileLock;
pub use oci::{OciBlobWriter, Partial};
pub use scratch::ScratchDir;
pub use store::Store;
pub use upstream::{Joined, Upstream};
pub use usage::{Usage, UsageItem};

/// Files longer than this many bytes are blobs of their own; shorter ones are packed into bundles.
pub const LARGE_FILE: u64 = 64 * 1024;
