//! Accidents: builders that are killed, disks that fill up, caches on odd file systems, of other users and of other
//! versions, a crowd in one cache. Whatever happens, the next build is right; and the commands that find and remove
//! what is left of it do so, and nothing else.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../bad_input/support.rs"]
#[allow(dead_code, reason = "shared with the tests of bad input")]
mod support;

mod crowd;
mod disk;
mod formats;
mod fsck;
mod full;
mod kills;
mod places;
mod project;
mod registry;
