//! Several processes on one store, killed at any moment; and a full disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use common::{child, diff, key, large, store, var};
use memobuild_store::{GcOptions, Ref, Store, StoreError};

/// Writes bundles with small and large files and records of them, for as long as it lives.
fn write_on(store: &Store, seed: u64, rounds: u64) {
    for n in 0..rounds {
        let small = format!("{seed} {n}").repeat(50);
        let mut big = large(n as u8);
        big.extend_from_slice(small.as_bytes());
        let contents: [&[u8]; 3] = [b"shared by all", small.as_bytes(), &big];
        let writer = store.bundle_writer();
        writer.add_bytes(contents[0]).unwrap();
        writer.add_reader(&mut &contents[1][..], 10).unwrap();
        let scratch = store.scratch_dir().unwrap();
        fs::write(scratch.path().join("f"), contents[2]).unwrap();
        let digest = memobuild_tree::ContentDigest::of(contents[2]);
        writer.adopt_blob(&scratch.path().join("f"), &digest, big.len() as u64).unwrap();
        let id = writer.finish(&diff(&contents)).unwrap();
        let oci = store.oci_blob_put(small.as_bytes()).unwrap();
        store.record_put("s", &key(&format!("{seed} {n}")), id.as_bytes(), &[Ref::Bundle(id), Ref::Oci(oci)]).unwrap();
    }
}

#[test]
#[ignore = "run as a process of its own by other tests"]
fn child_writes() {
    let store = Store::open(Path::new(&var("STORE"))).unwrap();
    print!("ready");
    std::io::stdout().flush().unwrap();
    write_on(&store, var("SEED").parse().unwrap(), var("ROUNDS").parse().unwrap());
}

/// Every record leads to a whole bundle.
fn read_all(store: &Store) -> usize {
    let keys = store.record_list("s").unwrap();
    for key in &keys {
        let value = store.record_get("s", key).unwrap().unwrap();
        let id = memobuild_tree::BundleId::from_bytes(value.try_into().unwrap());
        let diff = store.load_bundle(&id).unwrap().expect("the record's bundle is there");
        diff.walk(&mut |_, change| {
            if let memobuild_tree::Change::Put(memobuild_tree::Node::File(file)) = change {
                store.content(&file.content).unwrap().read_all().unwrap();
            }
        });
    }
    keys.len()
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let text = path.to_str().unwrap();
    let mut kept = 0;
    for round in 0..1000u64 {
        // On a loaded machine few get as far as writing: then more of them are needed.
        if round >= 100 && kept > 30 {
            break;
        }
        let mut process =
            child("child_writes", &[("STORE", text), ("SEED", &round.to_string()), ("ROUNDS", "1000000")]);
        // From before the store is made until many bundles are in it.
        if round % 4 != 0 {
            let mut out = process.stdout.take().unwrap();
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"ready") && out.read(&mut byte).unwrap() == 1 {
                seen.push(byte[0]);
            }
        }
        std::thread::sleep(Duration::from_micros(round * 1_337 % 80_000));
        process.kill().unwrap();
        process.wait().unwrap();
        let store = Store::open(&path).unwrap();
        let now = read_all(&store);
        assert!(now >= kept, "no record is lost");
        kept = now;
        if round % 10 == 9 {
            assert_eq!(store.check().unwrap(), []);
        }
    }
    assert!(kept > 30, "the processes lived long enough to write: {kept}");
    let store = Store::open(&path).unwrap();
    assert!(fs::read_dir(path.join("tmp")).unwrap().count() > 0, "some were killed while they wrote");
    store.gc(&GcOptions::default()).unwrap();
    assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0, "leftovers are swept");
    assert_eq!(store.check().unwrap(), []);
    assert_eq!(read_all(&store), kept);
}

#[test]
fn two_processes_write_while_a_third_collects() {
    let (dir, store) = store();
    let text = dir.path().to_str().unwrap();
    let start = |seed: &str| child("child_writes", &[("STORE", text), ("SEED", seed), ("ROUNDS", "150")]);
    let mut processes = vec![start("1"), start("2")];
    let started = Instant::now();
    while processes.iter_mut().any(|p| p.try_wait().unwrap().is_none()) {
        store.gc(&GcOptions::default()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(120));
    }
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(read_all(&store), 300);
    store.gc(&GcOptions::default()).unwrap();
    assert_eq!(store.check().unwrap(), []);
    assert_eq!(read_all(&store), 300);
}

#[test]
#[ignore = "run as a process of its own by other tests"]
fn child_holds() {
    let store = Store::open(Path::new(&var("STORE"))).unwrap();
    let _lock = store.lock("held", true).unwrap();
    let id = memobuild_tree::BundleId::from_hex(&var("BUNDLE")).unwrap();
    assert!(store.has_bundle(&id));
    print!("ready");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn leases_and_locks_end_with_their_process() {
    let (dir, store) = store();
    let writer = store.bundle_writer();
    writer.add_bytes(b"x").unwrap();
    let id = writer.finish(&diff(&[b"x"])).unwrap();
    drop(store);
    let mut process = child("child_holds", &[("STORE", dir.path().to_str().unwrap()), ("BUNDLE", &id.hex())]);
    let mut out = process.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"ready") && out.read(&mut byte).unwrap() == 1 {
        seen.push(byte[0]);
    }
    let store = Store::open(dir.path()).unwrap();
    assert!(store.try_lock("held", true).unwrap().is_none());
    let all = GcOptions { all: true, ..GcOptions::default() };
    assert_eq!(store.gc(&all).unwrap().bundles, 0);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(store.try_lock("held", true).unwrap().is_some());
    assert_eq!(store.gc(&all).unwrap().bundles, 1);
}

#[test]
fn who_leaves_leaves_no_lease_though_others_hold_the_store() {
    let (dir, store) = store();
    let leases = || std::fs::read_dir(dir.path().join("leases")).unwrap().count();
    let other = store.clone();
    store.lease().unwrap();
    let with = leases();
    store.leave();
    assert_eq!(leases(), with - 1);
    // It works on, and makes no new one.
    let writer = other.bundle_writer();
    writer.add_bytes(b"x").unwrap();
    writer.finish(&diff(&[b"x"])).unwrap();
    assert_eq!(leases(), with - 1);
}

#[test]
fn a_full_disk_is_one_clear_error_and_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|out| out.status.success());
    if !mounted {
        println!("skipped: a small tmpfs can be mounted only as root");
        return;
    }
    let store = Store::open(&dir.path().join("store")).unwrap();
    let mut committed = 0;
    let error = loop {
        let big = large(committed);
        let writer = store.bundle_writer();
        match writer.add_bytes(&big).and_then(|_| writer.finish(&diff(&[&big]))) {
            Ok(id) => {
                let put = store.record_put("s", &key(&committed.to_string()), id.as_bytes(), &[Ref::Bundle(id)]);
                if let Err(e) = put {
                    break e;
                }
            }
            Err(e) => break e,
        }
        committed += 1;
    };
    let record = loop {
        if let Err(e) = store.record_put("fill", &key(&committed.to_string()), &[1; 60_000], &[]) {
            break e;
        }
        committed += 1;
    };
    let findings = store.check().unwrap();
    let whole = read_all(&store);
    drop(store);
    let unmounted = std::process::Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("prune"));
    assert!(matches!(record, StoreError::NoSpace { .. }), "{record:?}");
    assert_eq!(findings, []);
    assert!(whole >= 4);
}

/// The index is made by whoever comes first.
#[test]
fn many_begin_at_once_in_a_new_store() {
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for n in 0..6 {
                let (dir, start) = (dir.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    let put = Store::open(dir).and_then(|s| s.record_put("s", &key(&format!("{n}")), b"value", &[]));
                    assert!(put.is_ok(), "round {round}: {put:?}");
                });
            }
        });
        assert_eq!(Store::open(dir.path()).unwrap().record_list("s").unwrap().len(), 6);
    }
}
