//! Runs one command over one tree; gives back exit status and written files.
#![forbid(unsafe_code)]
