//! Events, logging and the error kinds that every crate shares.
#![forbid(unsafe_code)]
