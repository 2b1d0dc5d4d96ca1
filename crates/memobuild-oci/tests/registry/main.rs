//! Pulls from and pushes to a real registry (Debian's docker-registry, on loopback; skopeo looks at what is there).
//! Skipped, saying so, where these programs lack.

#![allow(clippy::unwrap_used)]

mod pull;
mod push;
mod seekable;
mod support;
