//! The commands against a real registry, Debian's docker-registry: push, pull, settings, credentials, shared caches.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

mod attest;
#[path = "../memos/base.rs"]
mod base;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod server;
mod settings;
#[path = "../memos/support.rs"]
mod support;
