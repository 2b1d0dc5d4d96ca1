//! What an operator sees of builds from outside: logs, trace contexts, spans. And what nobody may see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, dead_code, reason = "modules of one test")]

#[path = "../memos/base.rs"]
mod base;
mod collector;
#[path = "../common/mod.rs"]
mod common;
mod logs;
mod secrets;
mod server;
mod spans;
#[path = "../memos/support.rs"]
mod support;
mod traces;

use std::process::Output;

use common::Place;

/// An image that needs no sandbox.
fn place() -> Place {
    let dockerfile = "FROM scratch AS base\nCOPY a.txt /a\nFROM base\nCOPY b.txt /b\nWORKDIR /w\n";
    Place::with(&[("Dockerfile", dockerfile), ("a.txt", "a\n"), ("b.txt", "b\n")])
}

/// A build with these variables.
fn build(place: &Place, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = place.command(env!("CARGO_BIN_EXE_memobuild"));
    command.arg("build").args(args).arg(".").envs(variables.iter().copied());
    command.output().unwrap()
}
