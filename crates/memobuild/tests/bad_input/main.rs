//! Bad input and bad luck: whatever is wrong, there is one clear error with the right exit code, or the right image
//! where the input is legal; nothing half-written stands under a final name, and nothing panics.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod files;
mod images;
mod stopped;
mod support;
