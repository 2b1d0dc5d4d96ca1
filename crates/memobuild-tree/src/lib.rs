//! Digests, the Merkle file tree, diffs over it. Pure: no I/O.
#![forbid(unsafe_code)]
