//! Which steps run again after which change, and that results found by facts are right.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

mod base;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod hints;

mod hits;
mod image;
mod lazy;
mod order;
mod registry;
mod support;
