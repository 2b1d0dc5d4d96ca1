//! What the store's tests share: diffs of a few files, and child processes of the test binary itself.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::process::{Child, Command, Stdio};

use memobuild_store::Store;
use memobuild_tree::{Change, ContentDigest, Diff, File, KeyDigest, Meta, Mtime, Node};

pub(crate) fn key(text: &str) -> KeyDigest {
    KeyDigest::from_bytes(*blake3::hash(text.as_bytes()).as_bytes())
}

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// A diff that puts these contents at `/0`, `/1`...
pub(crate) fn diff(contents: &[&[u8]]) -> Diff {
    let mut diff = Diff::default();
    for (n, bytes) in contents.iter().enumerate() {
        let file = File {
            meta: Meta::new(0o644, Mtime::default()),
            size: bytes.len() as u64,
            content: ContentDigest::of(bytes),
            link: None,
        };
        diff.set(format!("/{n}").as_bytes(), Change::Put(Node::File(file)));
    }
    diff
}

/// Bytes of a large file that differ by seed.
pub(crate) fn large(seed: u8) -> Vec<u8> {
    (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

/// Runs a test of this binary, marked `#[ignore]`, in a process of its own, with arguments in variables.
pub(crate) fn child(test: &str, vars: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(vars.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn var(name: &str) -> String {
    std::env::var(name).expect("run by another test, which sets it")
}
