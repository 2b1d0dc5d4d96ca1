//! Pulls from and pushes to registries on loopback: a real one (Debian's docker-registry; skopeo looks at what is there),
//! and a strict one of our own, in this process. Tests of the real one are skipped, saying so, where these programs lack.

#![allow(clippy::unwrap_used)]

mod artifacts;
mod early;
mod helpers;
mod hosts;
mod limits;
mod pull;
mod push;
mod resume;
mod seekable;
mod strict;
mod strictness;
mod support;
mod tokens;
