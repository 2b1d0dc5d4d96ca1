//! Bundles, blobs and records on disk, the index, the context scan, GC and locks.
#![forbid(unsafe_code)]
