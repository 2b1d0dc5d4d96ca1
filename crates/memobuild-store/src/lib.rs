//! Bundles, blobs and records on disk, the index, the context scan, GC and locks.
#![forbid(unsafe_code)]

mod error;
pub mod scan;
mod skeleton;

pub use error::{Result, StoreError};
pub use skeleton::*;
