//! What an image says of itself: a software bill of materials, the provenance of its build, the in-toto statements that
//! carry both, and (feature `sign`) signatures in cosign's format.
//!
//! What comes in: the image's files through the trait [`Files`], and what the build knows of itself as plain structs.
//! What goes out: bytes (documents, statements, configs, manifests) and the descriptors that name them.
//! Called by the engine's export and the command line. Never does I/O of its own: bytes of files are read through
//! [`Files`], blobs are stored and pushed by the caller, and times and ids are given by it.
#![forbid(unsafe_code)]

pub mod attach;
mod files;
pub mod provenance;
pub mod purl;
pub mod sbom;
#[cfg(feature = "sign")]
pub mod sign;
pub mod statement;

pub use files::{Contents, Entry, EntryKind, Files, TreeFiles};
