//! Uploads and downloads on a registry that can go on with them, whatever breaks.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use memobuild_image::Descriptor;
use memobuild_oci::{
    reference::Reference,
    registry::{Pushed, Registries, RegistryError},
};

use crate::{
    push::{opened, push_to},
    strict::{Options, Place, Strict},
    support::*,
};

/// Bytes of blobs that arrived at the registry, whether anything came of them or not.
fn arrived(strict: &Strict) -> u64 {
    strict.log().iter().filter(|l| l.target.contains("/blobs/uploads/")).map(|l| l.received).sum()
}

fn cut_two_hundred_times(options: Options) {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 6, 10_000_000);
    let (_keep, store) = store();
    let (base, root) = opened(layout.path(), &store);
    let total: u64 = fs::read_dir(layout.path().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let strict = Strict::new(options);
    let cuts = Arc::new(AtomicUsize::new(200));
    let port = cutting_proxy(strict.port, 1_000_000, cuts.clone());
    let mut rounds = 0;
    while rounds == 0 || cuts.load(Ordering::Relaxed) > 0 {
        rounds += 1;
        strict.clear_log();
        let report = push_to(&[&format!("127.0.0.1:{port}/a{rounds}:1")], &base, &root, &store).unwrap();
        assert_eq!(report.sent + report.present, 7);
        // What has arrived is never sent again.
        let arrived = arrived(&strict);
        assert!(arrived <= total + total / 50, "{arrived} bytes for {total}");
        let (_other, fresh) = crate::support::store();
        let back = open(&format!("127.0.0.1:{port}/a{rounds}:1"), &fresh).unwrap();
        assert_eq!((back.manifest, back.tree(&|_, _| ()).unwrap()), (root.digest, tree.clone()));
    }
    assert_eq!(strict.open_uploads(), 0);
}

#[test]
fn two_hundred_cuts_of_large_layers() {
    cut_two_hundred_times(Options::default());
}

#[test]
fn two_hundred_cuts_where_uploads_wander_and_downloads_lie_elsewhere() {
    cut_two_hundred_times(Options { place: Place::Relative, min_chunk: 5 << 20, redirect: true, ..Options::default() });
}

/// Where nothing is kept of a request that broke off, it is sent once more, in parts, and no oftener.
#[test]
fn cuts_where_broken_requests_leave_nothing() {
    let strict = Strict::new(Options { keeps_cut_puts: false, ..Options::default() });
    let port = cutting_proxy(strict.port, 70_000_000, Arc::new(AtomicUsize::new(2)));
    let bytes = noise(80 << 20, 4);
    let to: Reference = format!("127.0.0.1:{port}/a:1").parse().unwrap();
    let (_, pushed) = Registries::new(nobody()).push_bytes(&to, "application/octet-stream", &bytes).unwrap();
    assert_eq!(pushed, Pushed::Sent);
    let log = strict.log();
    assert_eq!(log.iter().filter(|l| l.method == "PUT" && l.received > 0).count(), 1);
    assert!(log.iter().any(|l| l.method == "PATCH"));
    assert!(arrived(&strict) <= 2 * bytes.len() as u64);
    assert_eq!(strict.open_uploads(), 0);
}

/// A blob goes in one request, and in parts where that is too long for the registry or what stands before it.
#[test]
fn what_is_too_long_for_one_request_goes_in_parts() {
    for abrupt in [false, true] {
        let strict = Strict::new(Options { max_request: 40 << 20, abrupt, ..Options::default() });
        let (short, long) = (noise(39 << 20, 5), noise(80 << 20, 6));
        assert_eq!(send(&strict, &short).unwrap(), Pushed::Sent);
        assert!(!strict.log().iter().any(|l| l.method == "PATCH"));
        assert_eq!(send(&strict, &long).unwrap(), Pushed::Sent);
        let parts: Vec<u64> = strict.log().iter().filter(|l| l.method == "PATCH").map(|l| l.received).collect();
        assert_eq!(parts, [32 << 20, 32 << 20, 16 << 20]);
        assert_eq!(strict.open_uploads(), 0);
    }
}

fn send(strict: &Strict, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    let to: Reference = format!("{}/a:1", strict.host).parse().unwrap();
    Registries::new(nobody()).push_bytes(&to, "application/octet-stream", bytes).map(|(_, pushed)| pushed)
}

#[test]
fn places_of_all_kinds_and_parts_of_a_least_length() {
    for place in [Place::Path, Place::Absolute, Place::Relative] {
        // Larger than the parts that are sent without being asked.
        let strict = Strict::new(Options { place, min_chunk: 40 << 20, max_request: 45 << 20, ..Options::default() });
        let bytes = noise(50 << 20, 5);
        assert_eq!(send(&strict, &bytes).unwrap(), Pushed::Sent);
        assert_eq!(send(&strict, &bytes).unwrap(), Pushed::Present);
        let log = strict.log();
        let parts: Vec<u64> = log.iter().filter(|l| l.method == "PATCH").map(|l| l.received).collect();
        assert_eq!(parts, [40 << 20, 10 << 20]);
    }
}

/// A registry that started anew in the middle of an upload no longer knows it.
#[test]
fn uploads_that_the_registry_forgot_begin_anew() {
    let strict = Strict::new(Options { max_request: 40 << 20, ..Options::default() });
    let bytes = noise(70 << 20, 6);
    let to: Reference = format!("{}/a:1", strict.host).parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, &bytes).unwrap();
    let blob = Descriptor::of("application/octet-stream", &bytes);
    let forgotten = AtomicUsize::new(0);
    let progress = |done: u64, _: Option<u64>| {
        let has_part = || strict.log().iter().any(|l| l.method == "PATCH");
        if done > 40 << 20 && has_part() && forgotten.fetch_add(1, Ordering::Relaxed) == 0 {
            strict.forget_uploads();
        }
    };
    let source = || fs::File::open(&path).map_err(|e| RegistryError::Source(e.into()));
    let pushed = Registries::new(nobody()).push_blob(&to, &blob, &[], &source, &progress).unwrap();
    assert_eq!(pushed, Pushed::Sent);
    assert!(strict.log().iter().any(|l| l.status == 404 && matches!(l.method.as_str(), "PATCH" | "PUT")));
    assert_eq!(strict.open_uploads(), 0);
}

/// What is given up leaves nothing behind.
#[test]
fn uploads_that_fail_are_cancelled() {
    let strict = Strict::new(Options::default());
    let to: Reference = format!("{}/a:1", strict.host).parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    // The file is not what its descriptor says.
    fs::write(&path, noise(6_000_000, 7)).unwrap();
    let blob = Descriptor::of("application/octet-stream", &noise(6_000_000, 8));
    let error = Registries::new(nobody()).push_file(&to, &blob, &path).unwrap_err();
    assert!(error.to_string().contains("did not match"), "{error}");
    // And where there is no file at all.
    let none = dir.path().join("none");
    let error = Registries::new(nobody()).push_file(&to, &blob, &none).unwrap_err();
    assert!(error.to_string().contains(&none.display().to_string()), "{error}");
    assert!(strict.asked().last().is_some_and(|a| a.starts_with("DELETE /v2/a/blobs/uploads/")));
    assert_eq!(strict.open_uploads(), 0);
}

#[test]
fn blobs_of_another_repository_are_taken_over() {
    let bytes = noise(5 << 20, 9);
    let push = |strict: &Strict, repository: &str, from: &[&str]| {
        let to: Reference = format!("{}/{repository}", strict.host).parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, &bytes).unwrap();
        let source = || fs::File::open(&path).map_err(|e| RegistryError::Source(e.into()));
        let blob = Descriptor::of("application/octet-stream", &bytes);
        Registries::new(nobody()).push_blob(&to, &blob, from, &source, &|_, _| ()).unwrap()
    };
    let strict = Strict::new(Options::default());
    assert_eq!(push(&strict, "base", &[]), Pushed::Sent);
    assert_eq!(push(&strict, "app", &["base"]), Pushed::Mounted);
    assert_eq!(push(&strict, "app", &["base"]), Pushed::Present);
    assert_eq!(push(&strict, "other", &[]), Pushed::Sent);
    strict.set(|o| o.mount_from_anywhere = true);
    assert_eq!(push(&strict, "third", &[]), Pushed::Mounted);
    // The upload that it opens instead is the one that is used.
    strict.set(|o| (o.mount, o.mount_from_anywhere) = (false, false));
    strict.clear_log();
    assert_eq!(push(&strict, "fourth", &["base"]), Pushed::Sent);
    assert_eq!(strict.log().iter().filter(|l| l.method == "POST").count(), 1);
    assert_eq!(strict.open_uploads(), 0);
}

#[test]
fn downloads_go_on_or_start_again_as_the_registry_can() {
    let layout = tempfile::tempdir().unwrap();
    let tree = make_image_of(layout.path(), 2, 3_000_000);
    for (ranges, redirect) in [(true, false), (true, true), (false, false)] {
        let strict = Strict::new(Options { ranges, ..Options::default() });
        let (_keep, store) = store();
        let (base, root) = opened(layout.path(), &store);
        push_to(&[&format!("{}/a:1", strict.host)], &base, &root, &store).unwrap();
        strict.set(|o| o.redirect = redirect);
        let breaks = Arc::new(AtomicUsize::new(3));
        let (port, _) = breaking_proxy(strict.port, 1_000_000, breaks.clone());
        let (_other, fresh) = crate::support::store();
        let back = open(&format!("127.0.0.1:{port}/a:1"), &fresh).unwrap();
        assert_eq!(back.tree(&|_, _| ()).unwrap(), tree);
        let from_storage = strict.log().iter().filter(|l| l.storage).count();
        assert_eq!(from_storage > 0, redirect);
        if !redirect {
            assert_eq!(breaks.load(Ordering::Relaxed), 0);
        }
    }
}
