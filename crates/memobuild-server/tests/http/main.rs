//! The server over real sockets: what it answers, what it refuses, what a crash leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a failure here is a failed test")]

mod access;
mod audit;
mod bazel;
mod blobs;
mod builds;
mod care;
mod client;
mod crash;
mod faults;
mod grpc;
mod hooks;
mod hostile;
mod limits;
mod live;
mod openapi;
mod records;
mod socket;
mod tls;
